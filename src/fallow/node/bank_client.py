"""Asking the bank: one typed method for each request, which goes on asking until the bank answers or time is up.

Every request is idempotent (an operation id, or a document's hash), so that asking again after a lost answer, a crash
or a restart of the bank never pays twice. Refusals become errors that say where the money is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from fallow.errors import FallowError, UnavailableError, fail
from fallow.ports import Clock, Entropy
from fallow.rules.escrow import Refusal
from fallow.wire.documents import Signed
from fallow.wire.ledger import (
    BalanceOf,
    Books,
    CloseEscrow,
    Deposit,
    DrawAuditors,
    Drawn,
    GetBalance,
    GetBooks,
    GetSettlement,
    Grant,
    IssueToken,
    LedgerDone,
    LedgerRefused,
    OpenAccount,
    OpenEscrow,
    Redeem,
    SettlementOf,
    Slash,
    SlashEquivocation,
    Transfer,
    Unbond,
)
from fallow.wire.messages import Message, NodeAddress

M = TypeVar("M", bound=Message)

FIRST_WAIT_S, MAX_WAIT_S = 0.1, 2.0
OPERATION_BYTES = 32

_CODES = {
    Refusal.BALANCE_TOO_SMALL: "E1301",
    Refusal.STAKE_TOO_SMALL: "E1301",
    Refusal.ESCROW_CLOSED: "E1302",
    Refusal.NO_ACCOUNT: "E1304",
}
_MONEY: dict[type[Message], str] = {
    OpenAccount: "No welcome grant was given, nothing was spent.",
    OpenEscrow: "Nothing was locked: the budget is in the requester's balance, the stake in the provider's.",
    Redeem: "What was paid before stays paid; this voucher added nothing.",
    CloseEscrow: "The escrow keeps its money until it is closed.",
    Slash: "No stake was taken.",
    SlashEquivocation: "No stake was taken.",
    DrawAuditors: "Nothing was spent.",
    Deposit: "Nothing moved: it is still in your balance.",
    Unbond: "Nothing moved: it is still your stake.",
    Transfer: "Nothing moved: it is still in your balance.",
}


class Calls(Protocol):
    """The part of `node.rpc.Rpc` that is needed here."""

    async def call(self, address: NodeAddress, request: Message, timeout_s: float = 10.0) -> Message:
        """One request, one reply."""
        ...


@dataclass(frozen=True)
class Patience:
    """How long to go on: `total_s` in all, `call_s` for one try."""

    total_s: float = 30.0
    call_s: float = 10.0


def refusal(request: Message, answer: LedgerRefused) -> FallowError:
    """A refusal as an error: E1301 too little money, E1302 closed, E1304 no account, E1303 anything else."""
    code = next((code for reason, code in _CODES.items() if reason == answer.reason), "E1303")
    what = f"The bank refused {type(request).__name__}: {answer.reason.replace('_', ' ')}"
    detail = f" ({answer.detail})" if answer.detail else ""
    return fail(code, f"{what}{detail}.", money=_MONEY.get(type(request), "Nothing moved."))


class BankClient:
    """The pool's bank at `address`. Methods raise RejectedError E1301 to E1304 when the bank's rules say no, and
    UnavailableError when it did not answer in time: then it may have acted or not, and calling again with the same
    `operation` (or the same document) tells. Without `operation` a new one is drawn."""

    def __init__(
        self, rpc: Calls, address: NodeAddress, clock: Clock, entropy: Entropy, patience: Patience | None = None
    ) -> None:
        self._rpc, self._address, self._clock, self._entropy = rpc, address, clock, entropy
        self._patience = patience or Patience()

    async def open_account(self, certificate: Signed, token: str = "", operation: bytes = b"") -> None:
        """Bind this node to its account; with a token, take the welcome grant once."""
        await self._do(OpenAccount(operation or self._draw(), certificate, token))

    async def grant(self, account: bytes, amount_ucr: int, operation: bytes = b"") -> None:
        """Mint; for the pool's operator."""
        await self._do(Grant(operation or self._draw(), account, amount_ucr))

    async def issue_token(self, token_hash: bytes, uses: int, expires_ms: int, operation: bytes = b"") -> None:
        """Invite; for the pool's operator."""
        await self._do(IssueToken(operation or self._draw(), token_hash, uses, expires_ms))

    async def transfer(self, to: bytes, amount_ucr: int, operation: bytes = b"") -> None:
        """Pay another account."""
        await self._do(Transfer(operation or self._draw(), to, amount_ucr))

    async def deposit(self, amount_ucr: int, operation: bytes = b"") -> None:
        """Balance into stake."""
        await self._do(Deposit(operation or self._draw(), amount_ucr))

    async def unbond(self, amount_ucr: int, operation: bytes = b"") -> None:
        """Free stake towards the balance, after the pool's delay."""
        await self._do(Unbond(operation or self._draw(), amount_ucr))

    async def open_escrow(self, request: OpenEscrow) -> None:
        """Lock both sides of a lease."""
        await self._do(request)

    async def redeem(self, voucher: Signed) -> None:
        """Have a voucher paid."""
        await self._do(Redeem(voucher))

    async def close_escrow(self, lease: bytes) -> None:
        """Settle a lease. E1303 `too_early` for a requester before the lease's end and grace."""
        await self._do(CloseEscrow(lease))

    async def slash(self, request: Slash) -> None:
        """Have a verdict carried out."""
        await self._do(request)

    async def slash_equivocation(self, lease: bytes, first: Signed, second: Signed) -> None:
        """Have a contradiction punished."""
        await self._do(SlashEquivocation(lease, first, second))

    async def draw_auditors(self, claim: Signed) -> bytes:
        """The randomness that belongs to a claim."""
        return (await self._ask(DrawAuditors(claim), Drawn)).seed

    async def balance(self, account: bytes) -> BalanceOf:
        """What an account has."""
        return await self._ask(GetBalance(account), BalanceOf)

    async def settlement(self, lease: bytes) -> Signed | None:
        """The bank's signed word on a lease; None for one that it does not know. The signature is not checked here."""
        return (await self._ask(GetSettlement(lease), SettlementOf)).settlement

    async def books(self) -> Books:
        """The whole in one line."""
        return await self._ask(GetBooks(), Books)

    def _draw(self) -> bytes:
        return self._entropy.draw(OPERATION_BYTES)

    async def _do(self, request: Message) -> None:
        await self._ask(request, LedgerDone)

    async def _ask(self, request: Message, kind: type[M]) -> M:
        until_s = self._clock.monotonic_s() + self._patience.total_s
        wait_s = FIRST_WAIT_S
        while True:
            left_s = until_s - self._clock.monotonic_s()
            try:
                answer = await self._rpc.call(self._address, request, max(0.001, min(left_s, self._patience.call_s)))
                break
            except UnavailableError as error:
                pause_s = wait_s * (0.5 + self._entropy.draw(1)[0] / 512)
                if self._clock.monotonic_s() + pause_s >= until_s:
                    raise _gave_up(request, error) from error
            await self._clock.sleep(pause_s)
            wait_s = min(2 * wait_s, MAX_WAIT_S)
        if isinstance(answer, LedgerRefused):
            raise refusal(request, answer)
        if not isinstance(answer, kind):
            raise fail("E1102", f"The bank answered {type(request).__name__} with {type(answer).__name__}.")
        return answer


def _gave_up(request: Message, error: UnavailableError) -> FallowError:
    asks_only = isinstance(request, GetBalance | GetSettlement | GetBooks | DrawAuditors)
    money = "Nothing was spent." if asks_only else (
        "The bank may or may not have done it. Doing it again is safe: the same operation never moves money twice."
    )  # fmt: skip
    return fail(error.code, f"The bank does not answer: {error.what}", cause=error.cause, money=money)
