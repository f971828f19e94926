"""A requester that cheats: it charges honest providers with evidence made up with sock puppets, to have their stake."""

from __future__ import annotations

import asyncio

import msgspec

from fallow.adapters.keys import Identity
from fallow.errors import FallowError
from fallow.sim.chain import digest
from fallow.sim.host import Host
from fallow.wire.claims import MerkleTree, output_hash, task_leaf
from fallow.wire.codec import decode
from fallow.wire.documents import ClaimRoot, Lease, Signed, Verdict
from fallow.wire.eip712 import hash_document
from fallow.wire.ledger import Evidence, Slash, SlashEquivocation
from fallow.wire.messages import Claimed
from fallow.wire.tasks import TaskSpec


class Accuser:
    """What the steward's machine does beside its node. The puppets have accounts of their own, and no stake. `charges`
    are those that the bank has answered."""

    def __init__(self, steward: Host) -> None:
        self._steward, self.charges = steward, 0
        self._puppets = [Identity.from_secrets(digest("node", n), digest("puppet", n)) for n in range(2)]
        self._claims: asyncio.Queue[Claimed] = asyncio.Queue()

    def seen(self, claim: Claimed) -> None:
        """An honest provider has claimed something."""
        self._claims.put_nowait(claim)

    async def accuse(self) -> None:
        """A chore: charge whoever claims, in the three ways there are."""
        while True:
            claim = await self._claims.get()
            await asyncio.sleep(0.3)  # so that the steward has heard of it too
            root, spec = decode(ClaimRoot, claim.claim.body), self._steward.town.referee.specs.get(claim.task)
            steward = self._steward.stewarding
            theirs = steward.signed_lease(root.lease) if steward is not None else None
            order = steward.records.order(theirs) if steward is not None and theirs is not None else None
            if spec is not None and theirs is not None and order is not None:
                await self._charge(theirs, claim, spec, order)

    def _witness(self, theirs: Signed, puppet: Identity, task: bytes, spec: TaskSpec) -> Evidence:
        """A puppet's claim to another answer, under a lease that no bank has seen."""
        bank, lease = self._steward.town.bank_account, decode(Lease, theirs.body)
        lease = msgspec.structs.replace(lease, provider=puppet.account, provider_node=puppet.node)
        answer = digest("puppets say")
        root = MerkleTree([task_leaf(task, answer, spec.units)]).root
        claim = ClaimRoot(hash_document(lease, bank), 1, root, 1, spec.units)
        return Evidence(puppet.sign(lease, bank), puppet.sign(claim, bank), answer, spec.units, 0, ())

    async def _charge(self, theirs: Signed, claim: Claimed, spec: TaskSpec, order: Signed) -> None:
        me, lease = self._steward, decode(ClaimRoot, claim.claim.body).lease
        accused = Evidence(theirs, claim.claim, output_hash(claim.output), spec.units, 0, ())
        others = tuple(self._witness(theirs, puppet, claim.task, spec) for puppet in self._puppets)
        stake = decode(Lease, theirs.body).stake_ucr
        verdict = me.sign_unseen(Verdict(lease, claim.task, accused.output, others[0].output, stake))
        mine = me.sign_unseen(ClaimRoot(lease, 1, digest("not its root"), 1, spec.units))
        orders = (order,) * 3
        for request in (
            Slash(verdict, spec, accused, others, orders), Slash(verdict, spec, accused, (others[0],) * 2, orders),
            SlashEquivocation(lease, claim.claim, mine),
        ):  # fmt: skip
            try:
                await me.services.rpc.call(me.services.bank, request, 2.0)
                self.charges += 1
            except FallowError:
                return
