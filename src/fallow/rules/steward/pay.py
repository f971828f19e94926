"""How money moves: vouchers for what is final, and the last word about a lease."""

from __future__ import annotations

from fallow.rules.steward.events import (
    EndLease,
    LedgerClosed,
    LedgerRefusedCharge,
    LedgerSlashed,
    Pay,
    PeerTookVoucher,
)
from fallow.rules.steward.state import Job, Mark, Seat, Stage, Turn
from fallow.units import format_money
from fallow.wire.refusals import words


def pay_out(turn: Turn) -> None:
    """One voucher per lease whose debt grew in this turn."""
    for seat in turn.paying.values():
        owed = seat.owed_ucr()
        if owed > seat.money.voucher_ucr and seat.stage in (Stage.OPEN, Stage.CLOSING):
            seat.money.voucher_ucr = owed
            turn.ask(Pay(seat.lease, seat.peer, owed))
    turn.paying.clear()


def paid(seat: Seat, event: PeerTookVoucher) -> None:
    """The provider has a voucher; what it says of amounts that were never promised changes nothing."""
    seat.money.acked_ucr = max(seat.money.acked_ucr, min(event.cumulative_ucr, seat.money.voucher_ucr))


def close_seat(turn: Turn, job: Job, seat: Seat) -> None:
    """Settle a lease that owes and is owed nothing more."""
    if seat.stage is not Stage.OPEN or seat.money.charges:
        return
    pay_out(turn)
    seat.stage = Stage.CLOSING
    turn.ask(close_effect(seat))


def close_effect(seat: Seat) -> EndLease:
    """The last word about a lease."""
    return EndLease(seat.lease, seat.peer, seat.owed_ucr(), seat.leased.ends_ms)


def charged(turn: Turn, job: Job, seat: Seat, event: LedgerSlashed | LedgerRefusedCharge) -> None:
    """The bank has judged a charge."""
    if seat.money.charges.pop(event.task, None) is None:
        return
    if isinstance(event, LedgerSlashed):
        seat.money.slashed_ucr += event.slashed_ucr
        turn.note(job, "caught", f"{format_money(event.slashed_ucr)} of its stake was slashed.", seat.node)
    else:
        turn.note(job, "warning", f"The bank did not accept a charge: {words(event.reason)}.", seat.node)


def closed(turn: Turn, job: Job, seat: Seat, event: LedgerClosed) -> None:
    """The bank has closed the escrow, at our wish or the provider's."""
    if seat.stage in (Stage.CLOSED, Stage.DROPPED):
        return
    seat.money.settled = (event.paid_ucr, event.refunded_ucr, event.slashed_ucr)
    seat.money.slashed_ucr = max(seat.money.slashed_ucr, event.slashed_ucr)
    seat.stage = Stage.CLOSED
    if seat.mark is Mark.NONE:
        seat.mark = Mark.LEAVING
    job.live.pop(seat.number, None)
    job.market.dry = job.market.alone = False
    text = f"Lease closed: {format_money(event.paid_ucr)} paid, {format_money(event.refunded_ucr)} back."
    turn.note(job, "paid", text, seat.node)
