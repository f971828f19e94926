"""Checking lane batches: a few of the answered tasks are asked again on other providers' lanes, where they look like
any other task, and the answers are compared. What a check found right needs no check of its own: with all answers
checked, each would be worth another for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from fallow.node.lanes.journal import Answered, LaneWitness, evidence_of, find_claim, keep_witnesses
from fallow.node.lanes.leg import Ask, Leg
from fallow.node.services import Services
from fallow.rules.steward import events as t
from fallow.wire.claims import value_hash
from fallow.wire.documents import Signed
from fallow.wire.ledger import Evidence
from fallow.wire.messages import LaneItem, LaneResult
from fallow.wire.tasks import TaskSpec

ANSWER_S = 120.0
CLAIM_WAIT_S = 30.0
CLAIM_POLL_S = 0.25
Tell = Callable[[t.StewardEvent], Awaitable[None]]


class LaneAudits:
    """Runs AuditLane effects: `legs` are a steward's lanes by lease."""

    def __init__(
        self, services: Services, legs: Mapping[bytes, Leg], signed_lease: Callable[[bytes], Signed | None], tell: Tell
    ) -> None:
        self._s, self._legs, self._signed_lease, self._tell = services, legs, signed_lease, tell

    async def audit(self, effect: t.AuditLane) -> None:
        """Answer with LaneAudited, LaneCaught or LaneUnchecked."""
        await self._tell(await self._judge(effect))

    async def _judge(self, effect: t.AuditLane) -> t.StewardEvent:
        leg, used = self._legs.get(effect.lease), set[bytes]()
        claim = find_claim(self._s.log, effect.lease, effect.first)
        paid = leg.paid(effect.first, claim.count) if leg is not None and claim is not None else []
        for index in effect.indexes:
            if leg is None or index >= len(paid):
                return self._unchecked(effect, "What was answered is no longer at hand.")
            record = paid[index]
            if (check := leg.checks.get(record.number)) is not None and (same := await check):
                used.add(same)  # it was asked to check another, and is right: a check of it would be checked in turn
                continue
            claimed = LaneWitness(effect.lease, record.number, value_hash(record.value), record.units)
            winner, witnesses = await self._compare(effect, record, claimed)
            if winner is None:
                return self._unchecked(effect, "Too few other providers answered.")
            agreeing = [one for one in witnesses if one.answer == winner and one.lease != effect.lease]
            if winner != claimed.answer:
                return await self._caught(effect, leg, record, claimed, agreeing)
            used.update(witness.lease for witness in agreeing)
            await asyncio.to_thread(keep_witnesses, self._s.log, effect.lease, record.number, agreeing)
        if not used:
            return self._unchecked(effect, "Nothing in the sample could be compared.")
        auditors = tuple(sorted(used))[:64]
        return t.LaneAudited(self._s.clock.now_ms(), effect.lease, effect.claim_hash, auditors)

    def _unchecked(self, effect: t.AuditLane, what: str) -> t.StewardEvent:
        return t.LaneUnchecked(self._s.clock.now_ms(), effect.lease, effect.claim_hash, what)

    async def _compare(
        self, effect: t.AuditLane, record: Answered, claimed: LaneWitness
    ) -> tuple[tuple[bytes, int] | None, list[LaneWitness]]:
        """-> the answer that stands, if one does, and who said what. While it is not known, no check waits for another
        but for the answers that are asked for here, so none waits for ever."""
        witnesses, checks, winner = [claimed], dict[bytes, asyncio.Future[bytes]](), None
        try:
            for lease in effect.auditors:
                if (auditor := self._legs.get(lease)) is None or not auditor.ready:
                    continue
                checks[lease] = asyncio.get_running_loop().create_future()
                witness = await self._witness(auditor, record, checks[lease])
                if witness is not None:
                    witnesses.append(witness)
                if (winner := _winner(witnesses, effect)) is not None:
                    break
        finally:
            right = [one.lease for one in witnesses if one.answer == winner]
            for lease, check in checks.items():
                others = [other for other in right if other != lease]
                check.set_result(others[0] if lease in right and others else b"")
        return winner, witnesses

    async def _witness(self, auditor: Leg, record: Answered, check: asyncio.Future[bytes]) -> LaneWitness | None:
        answer: asyncio.Future[LaneResult] = asyncio.get_running_loop().create_future()

        def deliver(_ask: Ask, message: LaneItem | LaneResult) -> None:
            if isinstance(message, LaneResult) and not answer.done():
                answer.set_result(message)

        ask = Ask(
            record.params, record.seed, False, deliver, receipt=True, only=auditor.plan.lease,
            units_most=auditor.side.most_units(record.params),
        )  # fmt: skip
        if not auditor.take(ask):
            return None
        auditor.checks[ask.number] = check
        try:
            result = await asyncio.wait_for(answer, ANSWER_S)
        except TimeoutError:
            ask.unwanted = True
            auditor.stop(ask)
            return None
        if result.code:
            return None
        return LaneWitness(auditor.plan.lease, ask.number, value_hash(result.value), result.units)

    async def _caught(
        self, effect: t.AuditLane, leg: Leg, record: Answered, claimed: LaneWitness, others: list[LaneWitness]
    ) -> t.StewardEvent:
        accused = await self._evidence(claimed)
        proofs = [proof for witness in others if (proof := await self._evidence(witness)) is not None]
        if accused is None or len(proofs) < 2:
            return self._unchecked(effect, "Other providers answered differently, but have not signed for it.")
        task = TaskSpec(leg.kind, record.params, leg.setting.inputs, record.seed, record.units, 0, 0)
        return t.LaneCaught(
            self._s.clock.now_ms(), effect.lease, effect.claim_hash, task, accused, tuple(proofs[:8])
        )  # fmt: skip

    async def _evidence(self, witness: LaneWitness) -> Evidence | None:
        """The provider's own signature under its answer; waits for its next claim, which covers it."""
        leg = self._legs.get(witness.lease)
        signed = self._signed_lease(witness.lease)
        if leg is None or signed is None:
            return None
        until_s = self._s.clock.monotonic_s() + CLAIM_WAIT_S
        while find_claim(self._s.log, witness.lease, witness.number) is None:
            if self._s.clock.monotonic_s() >= until_s:
                return None
            await self._s.clock.sleep(CLAIM_POLL_S)
        return evidence_of(self._s.log, witness, signed, leg.answered)


def _winner(witnesses: list[LaneWitness], effect: t.AuditLane) -> tuple[bytes, int] | None:
    """The answer that stands: `quorum` equal ones, the claimed one counted, against none; or one that `quorum` (and 2)
    accounts other than the accused's gave. None while neither is so."""
    answers = {witness.answer for witness in witnesses}
    others = [witness for witness in witnesses if witness.lease != effect.lease]
    if len(answers) == 1 and len(witnesses) >= effect.quorum:
        return witnesses[0].answer
    for answer in answers:
        if sum(witness.answer == answer for witness in others) >= max(2, effect.quorum):
            return answer
    return None
