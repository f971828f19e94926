"""The steward's end of lanes in the simulator: hands small tasks to ready lanes, remembers answers, compares claims
with them, and carries out checks. What `node/lane*.py` does with streams, as calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from fallow.rules.steward import events as t
from fallow.sim.crash import Ask, Flow
from fallow.sim.provider_lane import SimLaneTask
from fallow.wire.claims import MerkleTree, lane_leaf, params_hash, value_hash
from fallow.wire.documents import ClaimRoot, Signed
from fallow.wire.ledger import Evidence
from fallow.wire.messages import Failure, LaneReady, LaneResult, OpenLane
from fallow.wire.tasks import TaskSpec

if TYPE_CHECKING:
    from fallow.sim.steward import Steward

TRIES = 3
CALL_MS = 2_000
WAIT_MS = 1_000
EVIDENCE_WAITS = 15


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """A lane task that was answered, kept until its lease is settled."""

    number: int
    params: bytes
    seed: int
    value: bytes
    units: int

    def leaf(self) -> bytes:
        """What the provider must have committed to."""
        return bytes(lane_leaf(self.number, params_hash(self.params), self.seed, value_hash(self.value), self.units))


class Vote(NamedTuple):
    """An answer to a task that is being checked."""

    lease: bytes
    number: int
    digest: bytes
    units: int


class Leg:
    """The lane under one lease. `claims` are the batches that were claimed on it."""

    def __init__(self, plan: t.PrepareLane) -> None:
        self.plan = plan
        self.ready = False
        self.numbers = 0
        self.flying = 0
        self.answered: dict[int, Answered] = {}
        self.claims: list[t.LaneAnswered] = []


class LaneDesk:
    """All lanes of one steward's life."""

    def __init__(self, steward: Steward) -> None:
        self._me = steward
        self.legs: dict[bytes, Leg] = {}
        self._auditing: set[bytes] = set()
        self.answers = 0

    def prepare(self, effect: t.PrepareLane) -> None:
        """Open a lane; ask again until it is there or nobody wants it."""
        leg = self.legs.get(effect.lease)
        if leg is None:
            leg = self.legs[effect.lease] = Leg(effect)
            for _, raw in self._me.log.read(f"lane/{effect.lease.hex()}"):
                record = msgspec.msgpack.decode(raw, type=Answered)
                leg.answered[record.number] = record
            leg.numbers = int(self._me.log.get(f"lane/{effect.lease.hex()}") or b"0")
            for _, raw in self._me.log.read(f"lane-claims/{effect.lease.hex()}"):
                leg.claims.append(msgspec.msgpack.decode(raw, type=t.LaneAnswered))
        if not leg.ready:
            self._me.follow(self._open(leg))

    def _open(self, leg: Leg) -> Flow:
        lease = leg.plan.lease
        while self._me.seat_of(lease) is not None:
            answer = yield Ask(leg.plan.peer.node, OpenLane(lease), CALL_MS)
            if isinstance(answer, LaneReady):
                leg.ready = True
                self._me.tell(t.LaneReady(self._me.now_ms, lease))
                return
            if isinstance(answer, Failure):
                event = t.LaneUnready(self._me.now_ms, lease, answer.code, answer.what, retryable=True)
                self._me.tell(event)
                return
            yield WAIT_MS

    def ask(self, job: bytes, params: bytes, seed: int) -> bool:
        """Send a task of the job on its least busy lane; False when there is none."""
        ready = [leg for lease, leg in self.legs.items() if leg.ready and self._me.room_units(lease, job) > leg.flying]
        if not ready:
            return False
        leg = min(ready, key=lambda leg: leg.flying)
        self._me.follow(self._send(leg, params, seed, lambda _vote: None))
        return True

    def _send(self, leg: Leg, params: bytes, seed: int, done: Callable[[Vote | None], None]) -> Flow:
        """One task under a number that was never used: numbers are on disk before they are used."""
        leg.numbers += 1
        lease, number = leg.plan.lease, leg.numbers
        self._me.log.put(f"lane/{lease.hex()}", str(number).encode())
        self._me.point()
        leg.flying += 1
        answer = None
        for _ in range(TRIES):
            answer = yield Ask(leg.plan.peer.node, SimLaneTask(lease, number, params, seed), CALL_MS)
            if answer is not None:
                break
        leg.flying -= 1
        if isinstance(answer, LaneResult) and not answer.code and answer.units == 1:
            record = Answered(number, params, seed, answer.value, answer.units)
            self._me.log.append(f"lane/{lease.hex()}", [msgspec.msgpack.encode(record)])
            leg.answered[number] = record
            self.answers += 1
            done(Vote(lease, number, bytes(value_hash(answer.value)), answer.units))
            return
        if isinstance(answer, Failure):
            leg.ready = False
            self._me.follow(self._open(leg))
        done(None)

    def claimed(self, sequence: int, signed: Signed, root: ClaimRoot, claim_hash: bytes, first: int) -> None:
        """A root over lane answers: told to the brain when it is over exactly what we got."""
        leg = self.legs.get(root.lease)
        records = [leg.answered.get(n) for n in range(first, first + min(root.count, 1_000))] if leg else []
        known = [record for record in records if record is not None]
        if leg is None or len(known) != root.count or not known:
            return
        units = sum(record.units for record in known)
        if (MerkleTree([record.leaf() for record in known]).root, units) != (root.root, root.units):
            return
        now_ms = self._me.now_ms
        event = t.LaneAnswered(now_ms, root.lease, sequence, signed, claim_hash, first, root.count, units)
        leg.claims.append(event)
        self._me.log.append(f"lane-claims/{root.lease.hex()}", [msgspec.msgpack.encode(event)])
        self._me.tell(event)

    # checks -----------------------------------------------------------------------------------------------------------

    def audit(self, effect: t.AuditLane) -> None:
        """Do some tasks of a batch again elsewhere."""
        if effect.claim_hash not in self._auditing:
            self._auditing.add(effect.claim_hash)
            self._me.follow(self._audit(effect))

    def _audit(self, effect: t.AuditLane) -> Flow:
        leg = self.legs.get(effect.lease)
        unchecked = t.LaneUnchecked(0, effect.lease, effect.claim_hash, "too few others answered")
        used: set[bytes] = set()
        for index in effect.indexes:
            record = leg.answered.get(effect.first + index) if leg else None
            if record is None:
                return self._tell(unchecked)
            claimed = Vote(effect.lease, record.number, bytes(value_hash(record.value)), record.units)
            votes: list[Vote | None] = []
            for lease in effect.auditors:
                auditor = self.legs.get(lease)
                if auditor is not None and auditor.ready and _winner(claimed, votes, effect.quorum) is None:
                    yield from self._send(auditor, record.params, record.seed, votes.append)
            winner = _winner(claimed, votes, effect.quorum)
            if winner is None:
                return self._tell(unchecked)
            agreeing = [vote for vote in votes if vote is not None and vote.digest == winner]
            if winner != claimed.digest:
                return (yield from self._catch(effect, record, claimed, agreeing))
            used |= {vote.lease for vote in agreeing}
        return self._tell(t.LaneAudited(0, effect.lease, effect.claim_hash, tuple(sorted(used))))

    def _catch(self, effect: t.AuditLane, record: Answered, claimed: Vote, others: list[Vote]) -> Flow:
        for _ in range(EVIDENCE_WAITS):
            proofs = [proof for vote in others if (proof := self._evidence(vote)) is not None]
            accused = self._evidence(claimed)
            if accused is not None and len(proofs) >= 2:
                kind = self._me.kind_of(effect.lease)
                task = TaskSpec(kind, record.params, (), record.seed, record.units, 0, 0)
                self._tell(t.LaneCaught(0, effect.lease, effect.claim_hash, task, accused, tuple(proofs)))
                return
            yield WAIT_MS
        self._tell(t.LaneUnchecked(0, effect.lease, effect.claim_hash, "nobody signed for the other answer"))

    def _evidence(self, vote: Vote) -> Evidence | None:
        leg, signed = self.legs.get(vote.lease), self._me.signed_lease(vote.lease)
        if leg is None or signed is None:
            return None
        for event in leg.claims:
            if event.first <= vote.number < event.first + event.count:
                leaves = [leg.answered[n].leaf() for n in range(event.first, event.first + event.count)]
                index = vote.number - event.first
                path = MerkleTree(leaves).path(index)
                return Evidence(signed, event.claim, vote.digest, vote.units, index, path, vote.number)
        return None

    def _tell(self, event: t.LaneUnchecked | t.LaneAudited | t.LaneCaught) -> None:
        self._auditing.discard(event.claim_hash)
        self._me.tell(msgspec.structs.replace(event, at_ms=self._me.now_ms))


def _winner(claimed: Vote, found: list[Vote | None], quorum: int) -> bytes | None:
    """The answer that stands: `quorum` equal ones, the claimed one counted, against none; or one that as many (and 2)
    others gave."""
    others = [vote for vote in found if vote is not None]
    if others and all(vote.digest == claimed.digest for vote in others) and len(others) + 1 >= quorum:
        return claimed.digest
    for vote in others:
        if sum(other.digest == vote.digest for other in others) >= max(2, quorum):
            return vote.digest
    return None
