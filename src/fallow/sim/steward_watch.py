"""How the simulated steward follows its leases: polls that are held like streams, and what is checked of each event
before the brain hears of it. What `node/steward/watch.py` does on a real network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fallow.errors import FallowError, fail
from fallow.rules.steward import events as t
from fallow.rules.steward.state import Seat, Stage
from fallow.sim.crash import Ask, Flow
from fallow.sim.provider_streams import LeaseEvents
from fallow.wire.claims import MerkleTree, output_hash, task_leaf
from fallow.wire.documents import ClaimRoot, Signed
from fallow.wire.eip712 import hash_document, open_signed
from fallow.wire.messages import Claimed, LaneClaimed, LeaseEvent, LeaseLeaving, TaskFailed, WatchLease

if TYPE_CHECKING:
    from fallow.sim.steward import Steward

POLL_MS = 8_000
RETRY_MS = 500


class Watches:
    """All leases that are followed."""

    def __init__(self, steward: Steward) -> None:
        self._me = steward
        self._leases: set[bytes] = set()

    def watch(self, effect: t.WatchLease) -> None:
        """Begin to follow a lease; one that is followed already goes on where it is."""
        if effect.lease not in self._leases:
            self._leases.add(effect.lease)
            self._me.follow(self._watch(effect))

    def _open(self, lease: bytes) -> bool:
        seat = self._me.seat_of(lease)
        return seat is not None and seat.stage is Stage.OPEN

    def _watch(self, effect: t.WatchLease) -> Flow:
        """Follow a lease until it is closed. A poll that fails is a stream that broke."""
        seen, node = effect.after_sequence, effect.peer.node
        while self._me.seat_of(effect.lease) is not None:
            answer = yield Ask(node, WatchLease(effect.lease, seen), POLL_MS)
            now_ms = self._me.now_ms
            known = node in self._me.state.roll.since
            if not isinstance(answer, LeaseEvents):
                # Said whenever the brain believes otherwise: a quote may have changed its mind meanwhile.
                if not known and self._open(effect.lease):
                    self._me.tell(t.PeerUnobserved(now_ms, node))
                yield RETRY_MS
                continue
            self._me.referee.heard(node)
            if known:
                self._me.tell(t.PeerObserved(now_ms, node))
            for event in answer.events:
                self._event(effect.lease, event)
                seen = max(seen, event.sequence)
        self._leases.discard(effect.lease)

    def _event(self, lease: bytes, event: LeaseEvent) -> None:
        seat, now_ms, body = self._me.seat_of(lease), self._me.now_ms, event.body
        if seat is None:
            return
        match body:
            case Claimed():
                self._me.accuse(seat, body)
                self._me.tell(self._claimed(lease, seat, event.sequence, body))
            case TaskFailed(task, code, what, retryable):
                self._me.tell(t.PeerFailed(now_ms, lease, event.sequence, task, code, what, retryable))
            case LaneClaimed(claim, first):
                try:
                    root, claim_hash = self._open_claim(claim, lease, seat)
                except FallowError:
                    return
                self._me.desk.claimed(event.sequence, claim, root, claim_hash, first)
            case LeaseLeaving(reason):
                self._me.tell(t.PeerLeaving(now_ms, lease, event.sequence, reason))
            case _:
                pass

    def _open_claim(self, claim: Signed, lease: bytes, seat: Seat) -> tuple[ClaimRoot, bytes]:
        root = open_signed(claim, ClaimRoot, self._me.bank_account, seat.account)
        if root.lease != lease:
            raise fail("E1101", "a claim under another lease")
        return root, bytes(hash_document(root, self._me.bank_account))

    def _claimed(self, lease: bytes, seat: Seat, sequence: int, body: Claimed) -> t.StewardEvent:
        now_ms, digest = self._me.now_ms, bytes(output_hash(body.output))
        job = self._me.state.jobs[self._me.state.leases[lease][0]]
        slot = job.tasks.get(body.task)
        units = 0 if slot is None else job.slots[slot].spec.units
        try:
            root, claim_hash = self._open_claim(body.claim, lease, seat)
            tree = MerkleTree([task_leaf(body.task, digest, units)])
            if (root.root, root.count, root.units) != (tree.root, 1, units):
                raise fail("E1101", "a claim that does not commit to what it came with")
        except FallowError as error:
            return t.PeerFailed(now_ms, lease, sequence, body.task, "E1101", str(error)[:200], retryable=True)
        return t.PeerClaimed(
            now_ms, lease, sequence, body.task, body.output, digest, body.claim, claim_hash, body.holders
        )  # fmt: skip
