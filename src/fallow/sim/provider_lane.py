"""The provider's end of lanes in the simulator: answers small tasks and has the brain claim them in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fallow.rules.provider import events as t
from fallow.rules.provider.money import allowance_units
from fallow.sim.network import Reply
from fallow.sim.work import lane_value
from fallow.wire.claims import lane_leaf, merkle_root, params_hash, value_hash
from fallow.wire.documents import Word
from fallow.wire.messages import Failure, LaneReady, LaneResult, Message

if TYPE_CHECKING:
    from fallow.sim.provider import Provider

FLUSH_MS = 600
LOAD_MS = 300
MAX_BATCH = 8


class SimLaneTask(Message, frozen=True):
    """One LaneTask of the lane under `lease`, as a call of its own. -> LaneResult, or Failure when there is no such
    lane."""

    lease: Word
    number: int
    params: bytes
    seed: int


class Lanes:
    """All open lanes of one provider's life."""

    def __init__(self, provider: Provider) -> None:
        self._me = provider
        self._answers: dict[bytes, dict[int, LaneResult]] = {}
        self._leaves: dict[bytes, dict[int, tuple[bytes, int]]] = {}

    def open(self, lease: bytes, reply: Reply) -> None:
        """Load the work; a new lane takes the place of an old one only when the process did not know it."""
        entry = self._me.state.leases.get(lease)
        if entry is None or entry.phase not in ("signed", "open"):
            reply(Failure("E1302", "no such lease"))
            return
        self._answers.setdefault(lease, {})
        self._leaves.setdefault(lease, {})
        self._me.later(LOAD_MS, lambda: reply(LaneReady(LOAD_MS, 0)))

    def close(self, lease: bytes) -> None:
        """No more work under the lease; what was answered is claimed now."""
        self._answers.pop(lease, None)
        self._leaves.pop(lease, None)

    def answer(self, task: SimLaneTask, reply: Reply) -> None:
        """Answer once; the same number again gets the same answer."""
        answers = self._answers.get(task.lease)
        if answers is None:
            reply(Failure("E1801", "the lane is gone"))
            return
        if task.number in answers:
            reply(answers[task.number])
            return
        unclaimed = sum(units for _, units in self._leaves[task.lease].values())
        if allowance_units(self._me.state, task.lease) <= unclaimed:
            reply(LaneResult(task.number, b"", 0, "E1803", "owed too much"))
            return
        value, units = self._me.ways.lane(task.number, lane_value(task.params, task.seed))
        answers[task.number] = LaneResult(task.number, value, units)
        leaf = lane_leaf(task.number, params_hash(task.params), task.seed, value_hash(value), units)
        if not self._leaves[task.lease]:
            self._me.later(FLUSH_MS, lambda: self._flush(task.lease))
        self._leaves[task.lease][task.number] = bytes(leaf), units
        reply(answers[task.number])

    def _flush(self, lease: bytes) -> None:
        """Claim the first unbroken run of numbers that were answered."""
        leaves = self._leaves.get(lease)
        if not leaves:
            return
        first = min(leaves)
        run: list[tuple[bytes, int]] = []
        while first + len(run) in leaves and len(run) < MAX_BATCH:
            run.append(leaves[first + len(run)])
        for number in range(first, first + len(run)):
            del leaves[number]
        if leaves:
            self._me.later(FLUSH_MS, lambda: self._flush(lease))
        root, units = merkle_root([leaf for leaf, _ in run]), sum(units for _, units in run)
        self._me.tell(t.LaneAnswered(self._me.now_ms, lease, first, len(run), units, bytes(root)))
