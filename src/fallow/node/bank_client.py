"""Settlement by a pool's bank: one typed method for each request, which goes on asking until the bank answers or time
is up."""

from __future__ import annotations

from typing import Protocol, TypeVar

import structlog

from fallow.errors import FallowError, UnavailableError, fail
from fallow.ports import ClaimDraw, Clock, Entropy, LeaseStanding, Patience
from fallow.wire import ledger
from fallow.wire.claims import accounts_hash
from fallow.wire.codec import decode
from fallow.wire.documents import AuditDraw, ClaimRoot, Settlement, Signed
from fallow.wire.eip712 import hash_document, open_signed
from fallow.wire.messages import Message, NodeAddress
from fallow.wire.refusals import SettlementRefused

M = TypeVar("M", bound=Message)

OPERATION_BYTES = 32

log = structlog.get_logger()


class Calls(Protocol):
    """The part of `node.rpc.Rpc` that is needed here."""

    async def call(self, address: NodeAddress, request: Message, timeout_s: float = 10.0) -> Message:
        """One request, one reply."""
        ...


class BankClient:
    """`ports.Settlement` by the bank at `address` that signs with `account`, as patiently as `patience` says."""

    def __init__(
        self, rpc: Calls, address: NodeAddress, account: bytes, clock: Clock, entropy: Entropy, patience: Patience
    ) -> None:
        self._rpc, self._address, self._account = rpc, address, account
        self._clock, self._entropy, self._patience = clock, entropy, patience

    async def open_account(self, certificate: Signed, token: str = "") -> None:
        await self._do(ledger.OpenAccount(self._draw(), certificate, token))

    async def grant(self, account: bytes, amount_ucr: int, operation: bytes = b"") -> None:
        await self._do(ledger.Grant(operation or self._draw(), account, amount_ucr))

    async def transfer(self, to: bytes, amount_ucr: int, operation: bytes = b"") -> None:
        await self._do(ledger.Transfer(operation or self._draw(), to, amount_ucr))

    async def deposit(self, amount_ucr: int, operation: bytes = b"") -> None:
        await self._do(ledger.Deposit(operation or self._draw(), amount_ucr))

    async def unbond(self, amount_ucr: int, operation: bytes = b"") -> None:
        await self._do(ledger.Unbond(operation or self._draw(), amount_ucr))

    async def open(self, request: ledger.OpenEscrow) -> None:
        await self._do(request)

    async def redeem(self, voucher: Signed) -> None:
        await self._do(ledger.Redeem(voucher))

    async def close(self, lease: bytes) -> None:
        await self._do(ledger.CloseEscrow(lease))

    async def charge(self, request: ledger.Slash | ledger.SlashEquivocation) -> None:
        await self._do(request)

    async def answer(self, request: ledger.Appeal | ledger.Rule) -> None:
        await self._do(request)

    async def draw(self, claim: Signed) -> ClaimDraw:
        found = await self._ask(ledger.DrawAuditors(claim), ledger.DrawOf)
        said = open_signed(found.draw, AuditDraw, self._account, self._account)
        if said.claim != hash_document(decode(ClaimRoot, claim.body), self._account):
            raise fail("E1101", "the bank drew for another claim")
        if said.drawn != accounts_hash(found.drawn):
            raise fail("E1101", "the bank signed for other accounts than it shows")
        return ClaimDraw(said, found.draw, found.drawn)

    async def standing(self, lease: bytes) -> LeaseStanding | None:
        found = await self._ask(ledger.GetSettlement(lease), ledger.SettlementOf)
        if (signed := found.settlement) is None:
            return None
        said = open_signed(signed, Settlement, self._account, self._account)
        if said.lease != lease:
            raise fail("E1101", "the bank answered about another lease")
        return LeaseStanding(said, signed, found.charge)

    async def balance(self, account: bytes) -> ledger.BalanceOf:
        return await self._ask(ledger.GetBalance(account), ledger.BalanceOf)

    async def books(self) -> ledger.Books:
        return await self._ask(ledger.GetBooks(), ledger.Books)

    def _draw(self) -> bytes:
        return self._entropy.draw(OPERATION_BYTES)

    async def _do(self, request: Message) -> None:
        await self._ask(request, ledger.LedgerDone)

    async def _ask(self, request: Message, kind: type[M]) -> M:
        """Every request is idempotent (an operation id, or a document's hash), so that asking again after a lost
        answer, a crash or a restart of the bank never pays twice."""
        patience, began_s = self._patience, self._clock.monotonic_s()
        wait_s = patience.first_wait_s
        while True:
            left_s = began_s + max(patience.total_s, patience.call_s) - self._clock.monotonic_s()
            try:
                answer = await self._rpc.call(self._address, request, max(0.001, min(left_s, patience.call_s)))
                break
            except UnavailableError as error:
                pause_s = wait_s * (0.5 + self._entropy.draw(1)[0] / 512)
                if self._clock.monotonic_s() + pause_s >= began_s + patience.total_s:
                    raise _gave_up(request, error) from error
                log.info("waiting for the bank", request=type(request).__name__, what=error.what)
            await self._clock.sleep(pause_s)
            wait_s = min(2 * wait_s, patience.most_wait_s)
        if isinstance(answer, ledger.LedgerRefused):
            raise SettlementRefused(request, answer.reason, answer.detail)
        if not isinstance(answer, kind):
            raise fail("E1102", f"The bank answered {type(request).__name__} with {type(answer).__name__}.")
        return answer


def _gave_up(request: Message, error: UnavailableError) -> FallowError:
    asks_only = isinstance(request, ledger.GetBalance | ledger.GetSettlement | ledger.GetBooks | ledger.DrawAuditors)
    money = "Nothing was spent." if asks_only else (
        "The bank may or may not have done it. Doing it again is safe: the same operation never moves money twice."
    )  # fmt: skip
    return fail(error.code, f"The bank does not answer: {error.what}", cause=error.cause, money=money)
