"""Checking lane batches: a few of the answered tasks are asked again on other providers' lanes, where they look like
any other task, and the answers are compared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fallow.node.lane_leg import Answered, Ask, Leg, most_units
from fallow.node.services import Services
from fallow.rules.node import steward_types as t
from fallow.wire.claims import MerkleTree, value_hash
from fallow.wire.codec import decode
from fallow.wire.ledger import Evidence
from fallow.wire.messages import LaneItem, LaneResult
from fallow.wire.tasks import TaskSpec

if TYPE_CHECKING:
    from fallow.node.lane import Lanes

ANSWER_S = 120.0
CLAIM_WAIT_S = 30.0
CLAIM_POLL_S = 0.25
Tell = Callable[[t.StewardEvent], Awaitable[None]]


@dataclass(frozen=True)
class Vote:
    """One provider's answer to a task: where it stands in that provider's lane, and its hash."""

    lease: bytes
    number: int
    digest: bytes
    units: int

    @property
    def answer(self) -> tuple[bytes, int]:
        """What is compared: a lane task is metered by whoever answers it, so the meter is part of the answer."""
        return self.digest, self.units


class LaneAudits:
    """Runs AuditLane effects."""

    def __init__(self, services: Services, lanes: Lanes, tell: Tell) -> None:
        self._s, self._lanes, self._tell = services, lanes, tell

    async def audit(self, effect: t.AuditLane) -> None:
        """Answer with LaneAudited, LaneCaught or LaneUnchecked."""
        now_ms = self._s.clock.now_ms()
        leg, used = self._lanes.legs.get(effect.lease), set[bytes]()
        for index in effect.indexes:
            record = leg.answered.get(effect.first + index) if leg is not None else None
            if record is None:
                what = "What was answered is no longer at hand."
                await self._tell(t.LaneUnchecked(now_ms, effect.lease, effect.claim_hash, what))
                return
            claimed = Vote(effect.lease, record.number, value_hash(record.value), record.units)
            votes = await self._votes(effect, record, claimed)
            others = [vote for vote in votes if vote.lease != effect.lease]
            winner = _winner(votes, others, effect)
            if winner is None:
                what = "Too few other providers answered."
                await self._tell(t.LaneUnchecked(now_ms, effect.lease, effect.claim_hash, what))
                return
            if winner != claimed.answer:
                await self._caught(effect, record, claimed, [vote for vote in others if vote.answer == winner])
                return
            used.update(vote.lease for vote in others if vote.answer == winner)
        await self._tell(t.LaneAudited(self._s.clock.now_ms(), effect.lease, effect.claim_hash, tuple(sorted(used))))

    async def _votes(self, effect: t.AuditLane, record: Answered, claimed: Vote) -> list[Vote]:
        votes = [claimed]
        for lease in effect.auditors:
            if (auditor := self._lanes.legs.get(lease)) is None or not auditor.ready:
                continue
            vote = await self._vote(auditor, record)
            if vote is not None:
                votes.append(vote)
            others = [one for one in votes if one.lease != effect.lease]
            if _winner(votes, others, effect) is not None:
                break
        return votes

    async def _vote(self, auditor: Leg, record: Answered) -> Vote | None:
        answer: asyncio.Future[LaneResult] = asyncio.get_running_loop().create_future()

        def deliver(_ask: Ask, message: LaneItem | LaneResult) -> None:
            if isinstance(message, LaneResult) and not answer.done():
                answer.set_result(message)

        ask = Ask(
            record.params, record.seed, False, deliver, receipt=True, only=auditor.plan.lease,
            units_most=most_units(auditor.kind, record.params),
        )  # fmt: skip
        if not auditor.take(ask):
            return None
        try:
            result = await asyncio.wait_for(answer, ANSWER_S)
        except TimeoutError:
            auditor.stop(ask)
            return None
        if result.code:
            return None
        return Vote(auditor.plan.lease, ask.number, value_hash(result.value), result.units)

    async def _caught(self, effect: t.AuditLane, record: Answered, claimed: Vote, others: list[Vote]) -> None:
        now_ms, seen = self._s.clock.now_ms, effect.claim_hash
        accused = await self._evidence(claimed)
        proofs = [proof for vote in others if (proof := await self._evidence(vote)) is not None]
        if accused is None or len(proofs) < 2:
            what = "Other providers answered differently, but have not signed for it."
            await self._tell(t.LaneUnchecked(now_ms(), effect.lease, seen, what))
            return
        leg = self._lanes.legs[effect.lease]
        task = TaskSpec(leg.kind, record.params, (), record.seed, record.units, 0, 0)
        await self._tell(t.LaneCaught(now_ms(), effect.lease, seen, task, accused, tuple(proofs[:8])))

    async def _evidence(self, vote: Vote) -> Evidence | None:
        """The provider's own signature under its answer; waits for its next claim, which covers it."""
        leg = self._lanes.legs.get(vote.lease)
        signed = self._lanes.signed_lease(vote.lease)
        waited = 0.0
        while leg is not None and signed is not None and waited < CLAIM_WAIT_S:
            for key in self._s.log.keys(f"lane-claim/{vote.lease.hex()}/"):
                event = decode(t.LaneAnswered, self._s.log.get(key) or b"")
                if event.first <= vote.number < event.first + event.count:
                    numbers = range(event.first, event.first + event.count)
                    leaves = [record.leaf() for n in numbers if (record := leg.answered.get(n)) is not None]
                    if len(leaves) != event.count:
                        return None
                    index = vote.number - event.first
                    path = MerkleTree(leaves).path(index)
                    return Evidence(signed, event.claim, vote.digest, vote.units, index, path, vote.number)
            await self._s.clock.sleep(CLAIM_POLL_S)
            waited += CLAIM_POLL_S
        return None


def _winner(votes: list[Vote], others: list[Vote], effect: t.AuditLane) -> tuple[bytes, int] | None:
    """The answer that stands: `quorum` equal ones, the claimed one counted, against none; or one that `quorum` (and 2)
    accounts other than the accused's gave. None while neither is so."""
    answers = {vote.answer for vote in votes}
    if len(answers) == 1 and len(votes) >= effect.quorum:
        return votes[0].answer
    for answer in answers:
        if sum(vote.answer == answer for vote in others) >= max(2, effect.quorum):
            return answer
    return None
