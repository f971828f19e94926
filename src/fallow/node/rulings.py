"""The referee of a pool: who appeals has the charged task done again on the bank's own machine, whose answer decides.

It rules only on what it sees: what the accused claimed, then the charge is overturned; what the witnesses gave, then it
is upheld. A machine that cannot do the task, or finds a third answer, leaves it to the owner (`fallow wallet rule`);
without a ruling in time the charge falls.

Defends against: appeals for the chance that nobody looks; work forced on it: each appeal costs whoever is wrong, the
accused a quarter of what is charged, the witnesses what they pledged. It runs in the box, one task at a time."""

from __future__ import annotations

import structlog

from fallow.errors import FallowError
from fallow.node.own_machine import OwnMachine
from fallow.node.services import Services
from fallow.ports import Ledger
from fallow.units import to_text
from fallow.wire.codec import decode
from fallow.wire.documents import Lease, Order, Verdict
from fallow.wire.ledger import LedgerRefused, OpenCharge, Rule, Slash
from fallow.wire.messages import NodeAddress

log = structlog.get_logger()

EVERY_S = 30.0


class Rulings:
    """Rules on appeals in the name of this node's account; `books` are those of its bank, `own` does work again."""

    def __init__(self, services: Services, books: Ledger, own: OwnMachine) -> None:
        self._s, self._books, self._own = services, books, own
        self._seen: set[tuple[bytes, bytes]] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except FallowError as error:
                log.warning("an appeal waits for a ruling", code=error.code, what=error.what)
            await self._s.clock.sleep(EVERY_S)

    async def look(self) -> None:
        """Rule on each appeal that is open, once."""
        for lease in await self._books.appeals():
            charge = await self._books.charge(lease)
            if charge is None or charge.evidence is None or (lease, charge.task) in self._seen:
                continue
            self._seen.add((lease, charge.task))
            await self._rule(lease, charge, charge.evidence)

    async def _rule(self, lease: bytes, charge: OpenCharge, evidence: Slash) -> None:
        try:
            answer = await self._answer(lease, evidence)
        except FallowError as error:
            self._leave(lease, charge, f"it cannot be done again here: {error.what}")
            return
        if answer not in (evidence.accused.output, decode(Verdict, evidence.verdict.body).accepted):
            self._leave(lease, charge, "this machine gives a third answer")
            return
        ruling = Rule(lease, charge.task, upheld=answer != evidence.accused.output)
        said = await self._books.apply(ruling, self._s.identity.account, self._s.clock.now_ms())
        refused = said.reason.value if isinstance(said, LedgerRefused) else ""
        log.info("ruled on an appeal", lease=lease.hex()[:12], upheld=ruling.upheld, refused=refused)

    async def _answer(self, lease: bytes, evidence: Slash) -> bytes:
        """What the task gives here; the inputs come from whoever was a party to it."""
        leases = [decode(Lease, one.lease.body) for one in (evidence.accused, *evidence.others)]
        nodes = dict.fromkeys([leases[0].requester_node, *(one.provider_node for one in leases)])
        numerics = decode(Order, evidence.orders[0].body).numerics
        sources = tuple(NodeAddress(node) for node in nodes)
        return await self._own.answer(evidence.task, numerics, sources, f"appeal/{lease.hex()}")

    def _leave(self, lease: bytes, charge: OpenCharge, why: str) -> None:
        by_hand = f"fallow wallet rule {to_text('lease', lease)} upheld   # or overturned"
        log.warning("an appeal waits for its referee", why=why, until_ms=charge.due_ms, ruling=by_hand)
