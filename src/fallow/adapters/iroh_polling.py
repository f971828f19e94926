"""The second repair of iroh's Python binding: take at once what is ready at once.

The generated binding awaits every asynchronous call through the event loop, although nine in ten are done when Rust's
future is polled for the first time; the trip through the loop's wake-up pipe costs more than the call. `repair`
replaces the driver of all calls by one that looks before it waits: half the CPU time per remote call. It also keeps
quiet when a future that was given up reports to an event loop that has been closed since.

Applied only to the driver that it was written for, like the repair in `iroh_memmove.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import iroh.iroh_ffi

_DRIVER = "_uniffi_rust_call_async"
_KNOWN_NAMES = {"_UniffiContinuationHandleMap", "_uniffi_continuation_callback", "_UNIFFI_RUST_FUTURE_POLL_READY"}
_READY = 0
_IN_A_ROW = 32
"""After so many calls that were ready at once everybody else gets a turn."""

_ffi: Any = iroh.iroh_ffi


class _Wait:
    """One poll: `thread` is set while Rust runs in it, `code` if it answers before it returns."""

    __slots__ = ("code", "future", "loop", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.future = loop, loop.create_future()
        self.thread: int | None = threading.get_ident()
        self.code: int | None = None


_waits: dict[int, _Wait] = {}
_handles = itertools.count(1, 2)
_turns = itertools.cycle(range(_IN_A_ROW))


def _settle(future: asyncio.Future[int], code: int) -> None:
    if not future.done():
        future.set_result(code)


def _answered(handle: int, code: int) -> None:
    """Called by Rust, from any thread, once per poll."""
    wait = _waits.pop(handle)
    if wait.thread == threading.get_ident():
        wait.code = code
        return
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        wait.loop.call_soon_threadsafe(_settle, wait.future, code)


def _make_driver() -> Callable[..., Any]:
    callback = _ffi._UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK(_answered)
    complete_checked = _ffi._uniffi_rust_call_with_error

    async def drive(rust_future: Any, poll: Any, complete: Any, free: Any, lift: Any, errors: Any) -> Any:
        try:
            loop = asyncio.get_running_loop()
            code = None
            while code != _READY:
                wait = _Wait(loop)
                handle = next(_handles)
                _waits[handle] = wait
                poll(rust_future, callback, handle)
                wait.thread = None
                code = wait.code if wait.code is not None else await wait.future
                if wait.code is not None and not next(_turns):
                    await asyncio.sleep(0)
            return lift(complete_checked(errors, complete, rust_future))
        finally:
            free(rust_future)

    return drive


_ours: list[Callable[..., Any]] = []


def is_known(driver: Any) -> bool:
    """Whether this is the driver that the repair was written for."""
    code = getattr(driver, "__code__", None)
    return code is not None and set(code.co_names) >= _KNOWN_NAMES and code.co_argcount == 6


def repair() -> bool:
    """Replace the driver if it is the known one; -> whether the repair is in place. Repeating it is harmless."""
    current = getattr(_ffi, _DRIVER, None)
    if is_known(current):
        _ours[:] = [_make_driver()]
        setattr(_ffi, _DRIVER, _ours[0])
    return getattr(_ffi, _DRIVER, None) in _ours
