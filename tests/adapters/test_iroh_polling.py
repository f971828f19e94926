"""The repair of how iroh's calls are awaited: still needed, and nothing is lost between Rust's threads and the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import iroh.iroh_ffi
import pytest
from tests.adapters.test_iroh_memmove import pristine

from fallow.adapters import iroh_polling
from fallow.adapters.iroh_polling import is_known, repair

__all__ = ["pristine"]


def test_upstream_still_awaits_what_is_ready(pristine: Any) -> None:
    assert is_known(pristine._uniffi_rust_call_async), (
        "iroh's binding drives its calls in another way: measure again, then delete or adapt adapters/iroh_polling.py"
    )


def test_repairing_twice_is_harmless_and_another_driver_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert repair()
    first = iroh.iroh_ffi._uniffi_rust_call_async
    assert repair()
    assert iroh.iroh_ffi._uniffi_rust_call_async is first

    async def better() -> None: ...

    monkeypatch.setattr(iroh.iroh_ffi, "_uniffi_rust_call_async", better)
    assert not repair()
    assert iroh.iroh_ffi._uniffi_rust_call_async is better


class FakeRust:
    """A future that answers each poll as `script` says: a code at once, or a code from another thread."""

    def __init__(self, *script: tuple[str, int]) -> None:
        self.script, self.freed, self.polls = list(script), 0, 0

    def poll(self, _future: object, callback: Callable[[int, int], None], handle: int) -> None:
        self.polls += 1
        how, code = self.script.pop(0)
        if how == "now":
            callback(handle, code)
        else:
            threading.Thread(target=callback, args=(handle, code)).start()

    def complete(self, _future: object, _status: object) -> int:
        return 42

    def free(self, _future: object) -> None:
        self.freed += 1

    async def run(self) -> Any:
        repair()
        drive: Any = iroh.iroh_ffi._uniffi_rust_call_async
        return await drive(object(), self.poll, self.complete, self.free, lambda value: value + 1, None)


@pytest.mark.parametrize(
    "script",
    [[("now", 0)], [("later", 0)], [("now", 1), ("now", 0)], [("later", 1), ("now", 0)], [("now", 1), ("later", 0)]],
)
async def test_every_way_to_answer_a_poll(script: list[tuple[str, int]]) -> None:
    rust = FakeRust(*script)
    async with asyncio.timeout(2):
        assert await rust.run() == 43
    assert (rust.freed, rust.polls) == (1, len(script))
    assert not iroh_polling._waits


async def test_a_row_of_ready_calls_starves_nobody() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(other())
        for _ in range(320):
            await FakeRust(("now", 0)).run()
        task.cancel()
    assert turns >= 9


def test_an_answer_to_a_closed_loop_is_dropped() -> None:
    kept: list[tuple[Callable[[int, int], None], int]] = []

    class Silent(FakeRust):
        def poll(self, _future: object, callback: Callable[[int, int], None], handle: int) -> None:
            kept.append((callback, handle))

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await rust.run()

    rust = Silent()
    asyncio.run(main())
    assert rust.freed == 1
    callback, handle = kept[0]
    callback(handle, 0)
    assert not iroh_polling._waits
