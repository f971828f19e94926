"""Effects on a lease keep the order that matters, whatever takes how long; others do not wait."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from fallow.adapters.clock import SystemClock
from fallow.errors import fail
from fallow.node.steward import role
from fallow.node.steward.order import LeaseOrder
from fallow.node.steward.role import Steward
from fallow.rules.steward import events as t
from fallow.wire.messages import NodeAddress
from fallow.wire.tasks import TaskSpec

PEER = NodeAddress(b"p" * 32)
SPEC = TaskSpec("echo", b"", (), 0, 1, 60, 1)
LEASE, OTHER = b"l" * 32, b"o" * 32
ONE, TWO = b"1" * 32, b"2" * 32


def assign(task: bytes, lease: bytes = LEASE) -> t.Assign:
    return t.Assign(lease, PEER, task, SPEC, ())


CANCEL = t.Cancel(LEASE, PEER, ONE)
PAY, CLOSE = t.Pay(LEASE, PEER, 5), t.EndLease(LEASE, PEER, 5, 0)


class Slow:
    """Takes long for assignments; some fail first."""

    def __init__(self, failures: int = 0) -> None:
        self.seen: list[str] = []
        self._failures = failures

    async def run(self, effect: t.StewardEffect) -> None:
        name = type(effect).__name__ + getattr(effect, "task", b"")[:1].decode()
        self.seen.append(f"begin {name}")
        await asyncio.sleep(0.05 if isinstance(effect, t.Assign | t.Pay) else 0)
        if isinstance(effect, t.Assign) and self._failures:
            self._failures -= 1
            raise fail("E1801", "Nobody answers.")
        self.seen.append(f"end {name}")


async def carried_out(monkeypatch: pytest.MonkeyPatch, slow: Slow, *effects: t.StewardEffect) -> None:
    monkeypatch.setattr(role, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(role, "outstanding", lambda _state: list(effects))
    services: Any = SimpleNamespace(log=None, clock=SystemClock())
    steward: Any = Steward(services, t.Timing())
    steward._performer = slow
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        steward._group = group
        steward._start(effects)


async def test_what_is_asked_of_a_task_is_asked_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(failures=1)
    await carried_out(monkeypatch, slow, assign(ONE), CANCEL)
    assert slow.seen == ["begin Assign1", "begin Assign1", "end Assign1", "begin Cancel1", "end Cancel1"]


async def test_a_lease_is_closed_after_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    await carried_out(monkeypatch, slow, assign(ONE), PAY, CLOSE)
    assert slow.seen[-2:] == ["begin EndLease", "end EndLease"]
    assert set(slow.seen[:2]) == {"begin Assign1", "begin Pay"}


async def test_other_tasks_and_other_leases_do_not_wait() -> None:
    order, over = LeaseOrder(), asyncio.Event()

    async def wait() -> None:
        await over.wait()

    async with asyncio.TaskGroup() as group:
        first = group.create_task(wait())
        order.add(assign(ONE), first)
        assert order.before(assign(TWO)) == order.before(t.EndLease(OTHER, PEER, 0, 0)) == order.before(PAY) == []
        assert order.before(CANCEL) == order.before(CLOSE) == [first]
        over.set()
    await asyncio.sleep(0)
    assert order.before(CLOSE) == []
