"""What a provider says to a charge: it looks at the evidence that the bank keeps, does the task again, and appeals if
that still gives what it claimed. Who finds that it was wrong says nothing, since an appeal that fails costs more.

Defends against: charges whose witnesses lie, also while the owner is away. Does not defend against: a charge for a task
whose inputs nobody has any more, or on a machine that has changed since; then the owner is told, and can appeal."""

from __future__ import annotations

import asyncio

import structlog

from fallow.errors import FallowError, fail
from fallow.node.own_machine import OwnMachine
from fallow.node.services import Services
from fallow.ports import SettlementClient
from fallow.units import to_text
from fallow.wire.claims import evidence_holds, setting_hash, task_id
from fallow.wire.codec import decode
from fallow.wire.documents import ClaimRoot, Lease, Order
from fallow.wire.eip712 import hash_document, open_signed
from fallow.wire.ledger import Appeal, OpenCharge, Slash
from fallow.wire.messages import NodeAddress

log = structlog.get_logger()


class Appeals:
    """Answers each charge once. `bank` is the provider's door to it, `own` where it does work again."""

    def __init__(self, services: Services, bank: SettlementClient, own: OwnMachine) -> None:
        self._s, self._bank, self._own = services, bank, own
        self._charged: tuple[bytes, ...] = ()
        self._told = asyncio.Event()
        self._seen: set[tuple[bytes, bytes]] = set()

    def tell(self, charged: tuple[bytes, ...]) -> None:
        """The bank says that these leases are charged."""
        self._charged = charged
        self._told.set()

    async def run(self) -> None:
        """Until cancelled: answer what is told."""
        while True:
            await self._told.wait()
            self._told.clear()
            try:
                await self.look(self._charged)
            except FallowError as error:
                log.info("a charge waits for an answer", code=error.code, what=error.what)

    async def look(self, leases: tuple[bytes, ...]) -> None:
        """Answer what is charged under these leases. What the bank raises is raised, and tried again when it is told
        again."""
        self._seen = {known for known in self._seen if known[0] in leases}
        for lease in leases:
            found = await self._bank.standing(lease)
            charge = found.charge if found is not None else None
            if charge is not None and (lease, charge.task) not in self._seen:
                if not charge.appealed:
                    await self._answer(lease, charge)
                self._seen.add((lease, charge.task))

    async def _answer(self, lease: bytes, charge: OpenCharge) -> None:
        try:
            upright = await self._gives_the_same(lease, charge)
        except FallowError as error:
            by_hand = f"fallow wallet appeal {to_text('lease', lease)}"
            log.warning(
                "charged with a wrong answer, and the work cannot be done again here",
                until_ms=charge.due_ms, why=error.what, answer=by_hand,
            )  # fmt: skip
            return
        if upright:
            await self._bank.answer(Appeal(lease, charge.task))
            log.warning("charged with a wrong answer, which is right: appealed", lease=lease.hex()[:12])
        else:
            log.warning("charged with a wrong answer, and this machine gives another now", lease=lease.hex()[:12])

    async def _gives_the_same(self, lease: bytes, charge: OpenCharge) -> bool:
        """Whether the task gives here what we claimed. Raises FallowError where it cannot be done, or the evidence is
        about no claim of ours: nobody makes this machine work by a charge that it did not earn."""
        evidence = charge.evidence
        if evidence is None or not evidence.orders or task_id(evidence.task) != charge.task:
            raise fail("E1101", "the bank does not show what was charged")
        terms = _own_claim(evidence, lease, self._s.identity.account, self._s.bank_account)
        numerics, buyer = decode(Order, evidence.orders[0].body).numerics, NodeAddress(terms.requester_node)
        answer = await self._own.answer(evidence.task, numerics, (buyer,), f"appeal/{lease.hex()}")
        return answer == evidence.accused.output


def _own_claim(evidence: Slash, lease: bytes, account: bytes, bank: bytes) -> Lease:
    """The lease under which `account` claimed the answer that is called wrong. Raises PeerFault E1101 for any other."""
    accused = evidence.accused
    terms = open_signed(accused.lease, Lease, bank, account)
    claim = open_signed(accused.claim, ClaimRoot, bank, account)
    setting = setting_hash(evidence.setting) if evidence.setting is not None else b""
    held = evidence_holds(accused, evidence.task, claim.root, claim.count, setting)
    if not held or claim.lease != lease or hash_document(terms, bank) != lease:
        raise fail("E1101", "what was charged is no claim of this account")
    return terms
