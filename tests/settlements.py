"""A settlement without a network: the books at hand, asked in the name of one account."""

from __future__ import annotations

from typing import Any

from tests.ledger_world import BANK, NOW, Person

from fallow.ports import ClaimDraw, Entropy, LeaseStanding, Ledger
from fallow.wire.claims import accounts_hash
from fallow.wire.codec import decode
from fallow.wire.documents import AuditDraw, ClaimRoot, Settlement, Signed
from fallow.wire.eip712 import hash_document, open_signed
from fallow.wire.ledger import (
    Appeal,
    CloseEscrow,
    Deposit,
    DrawAuditors,
    Grant,
    LedgerRefused,
    OpenAccount,
    OpenEscrow,
    Redeem,
    Refusal,
    Rule,
    Slash,
    SlashEquivocation,
    Transfer,
    Unbond,
)
from fallow.wire.messages import Message
from fallow.wire.refusals import SettlementRefused


class BooksAtHand:
    """`ports.Settlement` for one person. `refusals` are given out first, one for each thing that moves money."""

    def __init__(self, ledger: Ledger, person: Person, entropy: Entropy) -> None:
        self.ledger, self.person, self.entropy = ledger, person, entropy
        self.refusals: list[Refusal] = []

    async def open_account(self, certificate: Signed, token: str = "") -> None:
        await self._ask(OpenAccount(self.entropy.draw(32), certificate, token))

    async def grant(self, account: bytes, amount_ucr: int, operation: bytes = b"") -> None:
        await self._ask(Grant(operation or self.entropy.draw(32), account, amount_ucr))

    async def transfer(self, to: bytes, amount_ucr: int, operation: bytes = b"") -> None:
        await self._ask(Transfer(operation or self.entropy.draw(32), to, amount_ucr))

    async def deposit(self, amount_ucr: int, operation: bytes = b"") -> None:
        await self._ask(Deposit(operation or self.entropy.draw(32), amount_ucr))

    async def unbond(self, amount_ucr: int, operation: bytes = b"") -> None:
        await self._ask(Unbond(operation or self.entropy.draw(32), amount_ucr))

    async def open(self, request: OpenEscrow) -> None:
        await self._ask(request)

    async def redeem(self, voucher: Signed) -> None:
        await self._ask(Redeem(voucher))

    async def close(self, lease: bytes) -> None:
        await self._ask(CloseEscrow(lease))

    async def charge(self, request: Slash | SlashEquivocation) -> None:
        await self._ask(request)

    async def answer(self, request: Appeal | Rule) -> None:
        await self._ask(request)

    async def draw(self, claim: Signed) -> ClaimDraw:
        drawn = await self._ask(DrawAuditors(claim))
        said = AuditDraw(
            hash_document(decode(ClaimRoot, claim.body), BANK.account), drawn.seed, accounts_hash(drawn.drawn)
        )
        return ClaimDraw(said, BANK.sign(said), drawn.drawn)

    async def standing(self, lease: bytes) -> LeaseStanding | None:
        signed = await self.ledger.settlement(lease)
        said = signed and open_signed(signed, Settlement, BANK.account, BANK.account)
        return LeaseStanding(said, signed, await self.ledger.charge(lease)) if said and signed else None

    async def balance(self, account: bytes) -> Any:
        return await self.ledger.balance(account, NOW)

    async def books(self) -> Any:
        return await self.ledger.books()

    async def _ask(self, request: Message) -> Any:
        if self.refusals:
            raise SettlementRefused(request, self.refusals.pop(0))
        answer = await self.ledger.apply(request, self.person.account, NOW)
        if isinstance(answer, LedgerRefused):
            raise SettlementRefused(request, answer.reason, answer.detail)
        return answer
