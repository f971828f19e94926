"""What a refusal over money means to a person: its error code, where the money is, and what to type next."""

from __future__ import annotations

from fallow.errors import RejectedError
from fallow.wire import ledger
from fallow.wire.messages import Message

_CODES = {
    ledger.Refusal.BALANCE_TOO_SMALL: "E1301",
    ledger.Refusal.GRANT_STAYS: "E1301",
    ledger.Refusal.STAKE_TOO_SMALL: "E1301",
    ledger.Refusal.ESCROW_CLOSED: "E1302",
    ledger.Refusal.NO_ACCOUNT: "E1304",
}
_NEXT = {
    ledger.Refusal.BAD_TOKEN: "Ask whoever runs the pool for a new ticket.",
    ledger.Refusal.GRANT_STAYS: "Spend it on work; what you earn you can send.",
    ledger.Refusal.NOT_OPERATOR: "Ask whoever runs the pool.",
    ledger.Refusal.NO_SUCH_ACCOUNT: "Check the account: it must have joined this pool.",
    ledger.Refusal.TOO_EARLY: "Try again once the lease has ended.",
    ledger.Refusal.TOO_MANY_PENDING: "Try again later.",
    ledger.Refusal.NOT_REFEREE: "Ask whoever runs the pool.",
    ledger.Refusal.UNDER_CHARGE: "Try again once that charge is decided.",
    ledger.Refusal.PLEDGED: "Try again once the charge is decided, or take out less.",
}
_MONEY: dict[type[Message], str] = {
    ledger.OpenAccount: "No welcome grant was given, nothing was spent.",
    ledger.OpenEscrow: "Nothing was locked: the budget is in the requester's balance, the stake in the provider's.",
    ledger.Redeem: "What was paid before stays paid; this voucher added nothing.",
    ledger.CloseEscrow: "The escrow keeps its money until it is closed.",
    ledger.Slash: "No stake was taken.",
    ledger.SlashEquivocation: "No stake was taken.",
    ledger.Appeal: "The stake stays where it is: locked while the charge is open, else as it was decided.",
    ledger.Rule: "The stake stays where it is: locked while the charge is open, else as it was decided.",
    ledger.DrawAuditors: "Nothing was spent.",
    ledger.Deposit: "Nothing moved: it is still in your balance.",
    ledger.Unbond: "Nothing moved: it is still your stake.",
    ledger.Transfer: "Nothing moved: it is still in your balance.",
}


class SettlementRefused(RejectedError):
    """The rules of the ledger said no to `request`, for the reason `refusal`; nothing changed."""

    def __init__(self, request: Message, refusal: ledger.Refusal, detail: str = "") -> None:
        self.refusal, self.detail = refusal, detail
        super().__init__(
            "E1304" if isinstance(request, ledger.OpenAccount) else code_of(refusal),
            f"The bank refused: {words(refusal, detail)}.",
            money=_MONEY.get(type(request), "Nothing moved."),
            next_step=_NEXT.get(refusal, ""),
        )


def code_of(refusal: ledger.Refusal) -> str:
    """E1301 too little money, E1302 closed, E1304 no account, E1303 anything else."""
    return _CODES.get(refusal, "E1303")


def words(refusal: ledger.Refusal, detail: str = "") -> str:
    """The same for a person, with the numbers that the ledger gave."""
    said = refusal.replace("_", " ")
    return f"{said} ({detail})" if detail else said
