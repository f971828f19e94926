"""A requester that cheats: it charges honest providers with evidence made up with sock puppets, to have their stake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fallow.rules.steward.state import Seat
from fallow.sim.crash import Ask, Flow
from fallow.sim.people import Person, digest
from fallow.wire.claims import MerkleTree, output_hash, task_leaf
from fallow.wire.documents import ClaimRoot, Verdict
from fallow.wire.eip712 import hash_document
from fallow.wire.ledger import Evidence, Slash, SlashEquivocation
from fallow.wire.messages import Claimed
from fallow.wire.tasks import TaskSpec

if TYPE_CHECKING:
    from fallow.sim.steward import Steward


class Accuser:
    """What the steward does beside its brain. Its puppets have accounts of their own, and no stake."""

    def __init__(self, steward: Steward) -> None:
        self._me = steward
        self._puppets = [Person(f"puppet{n}", "", steward.person.bank) for n in range(2)]

    def accuse(self, seat: Seat, claim: Claimed) -> None:
        """A claim came in: charge it, in the three ways there are."""
        found = self._me.state.leases.get(seat.lease)
        key = self._me.state.jobs[found[0]].tasks.get(claim.task) if found is not None else None
        if found is None or key is None or seat.theirs is None:
            return
        spec = self._me.state.jobs[found[0]].slots[key].spec
        accused = Evidence(seat.theirs, claim.claim, output_hash(claim.output), spec.units, 0, ())
        others = tuple(self._witness(seat, puppet, claim.task, spec) for puppet in self._puppets)
        self._me.follow(self._charge(seat, claim, spec, accused, others))

    def _witness(self, seat: Seat, puppet: Person, task: bytes, spec: TaskSpec) -> Evidence:
        """A puppet's claim to another answer, under a lease that no bank has seen."""
        bank = self._me.bank_account
        lease = msgspec.structs.replace(seat.leased, provider=puppet.account, provider_node=puppet.node)
        answer = digest("puppets say")
        root = MerkleTree([task_leaf(task, answer, spec.units)]).root
        claim = ClaimRoot(hash_document(lease, bank), 1, root, 1, spec.units)
        return Evidence(puppet.sign(lease), puppet.sign(claim), answer, spec.units, 0, ())

    def _charge(
        self, seat: Seat, claim: Claimed, spec: TaskSpec, accused: Evidence, others: tuple[Evidence, ...]
    ) -> Flow:
        me, stake = self._me.person, seat.leased.stake_ucr
        verdict = me.sign(Verdict(seat.lease, claim.task, accused.output, others[0].output, stake))
        yield Ask(self._me.bank, Slash(verdict, spec, accused, others))
        yield Ask(self._me.bank, Slash(verdict, spec, accused, (others[0], others[0])))
        mine = me.sign_unseen(ClaimRoot(seat.lease, 1, digest("not its root"), 1, spec.units))
        yield Ask(self._me.bank, SlashEquivocation(seat.lease, claim.claim, mine))
