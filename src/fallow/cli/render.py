"""How jobs, offers and wallets look: for programs as plain dictionaries with stable keys (ids as text, money as whole
ucr), for people as a few lines of text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from fallow.cli.output import table
from fallow.units import format_money, format_size, to_text
from fallow.wire.local import Candidate, Estimate, JobNote, JobView, LeaseView, Wallet
from fallow.wire.messages import Offer

SHORT = 12


def short(kind: str, value: bytes) -> str:
    """The beginning of an id, long enough to be typed back."""
    return to_text(kind, value)[:SHORT]


def moment(at_ms: int) -> str:
    """A time as people read it, in their own zone."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S") if at_ms else "-"


_IDS = {"account": "account", "bank": "account", "node": "node", "lease": "lease", "blob": "blob"}
"""Fields that hold ids, and of what kind."""
_OWN_ID: dict[type, str] = {LeaseView: "lease"}
"""The field that is called "id" for programs."""


def data_of(view: msgspec.Struct) -> dict[str, Any]:
    """A view with what is in it: each field under its own name, ids as text, other bytes as hex digits."""
    own = _OWN_ID.get(type(view))
    fields = msgspec.structs.asdict(view).items()
    return {"id" if name == own else name: _plain(name, value) for name, value in fields}


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return to_text(_IDS[name], value) if value and name in _IDS else value.hex()
    if isinstance(value, tuple):
        return [_plain("", one) for one in cast("tuple[Any, ...]", value)]
    return data_of(value) if isinstance(value, msgspec.Struct) else value


# jobs -----------------------------------------------------------------------------------------------------------------


def job_data(view: JobView) -> dict[str, Any]:
    """A job and all there is to know of it."""
    return {
        "id": to_text("job", view.job),
        "kind": view.kind,
        "name": view.name,
        "phase": view.phase,
        "done": view.done,
        "total": view.total,
        "budget_ucr": view.budget_ucr,
        "spent_ucr": view.spent_ucr,
        "locked_ucr": view.locked_ucr,
        "created_ms": view.created_ms,
        "ended_ms": view.ended_ms,
        "failure_code": view.failure_code,
        "failure": view.failure,
        "served_name": view.served_name,
        "leases": _plain("leases", view.leases),
        "rounds": _plain("rounds", view.rounds),
    }


def progress_of(view: JobView) -> str:
    """How far a job is: rounds or tasks of all, or what was answered when there is no end to it."""
    if view.total:
        return f"{view.done}/{view.total}"
    return f"{view.done} answered" if view.leases else "-"


def jobs_text(views: tuple[JobView, ...]) -> str:
    """The list of jobs."""
    if not views:
        return "No jobs yet. Try: fallow run echo hello --budget 1"
    rows = [
        (
            short("job", view.job),
            view.kind,
            view.name or view.served_name or "-",
            view.phase,
            progress_of(view),
            format_money(view.spent_ucr),
            moment(view.created_ms),
        )
        for view in views
    ]
    return table(("JOB", "KIND", "NAME", "PHASE", "DONE", "SPENT", "SUBMITTED"), rows)


def job_text(view: JobView) -> str:
    """One job at length."""
    spent = f"{format_money(view.spent_ucr)} spent, {format_money(view.locked_ucr)} locked"
    lines = [
        f"{to_text('job', view.job)}  {view.kind}  {view.phase}  {progress_of(view)}",
        f"money: {spent}, of {format_money(view.budget_ucr)}",
        f"submitted {moment(view.created_ms)}, ended {moment(view.ended_ms)}",
    ]
    if view.failure and view.failure_code != "E1402":
        lines.append(f"failed: {view.failure} ({view.failure_code})")
    if view.leases:
        rows = [
            (
                to_text("account", lease.account)[:SHORT],
                lease.state,
                str(lease.tasks_claimed),
                f"{lease.units_final}/{lease.units_claimed}",
                format_money(lease.paid_ucr),
                format_money(lease.slashed_ucr),
            )
            for lease in view.leases
        ]
        lines += ["", table(("PROVIDER", "STATE", "TASKS", "UNITS FINAL", "PAID", "SLASHED"), rows)]
    if view.rounds:
        rounds = [
            (str(r.round), str(r.updates), r.loss or "-", "yes" if r.agreed else "NO", format_size(r.bytes_sent))
            for r in view.rounds
        ]
        lines += ["", table(("ROUND", "UPDATES", "LOSS", "AGREED", "SENT"), rounds)]
    return "\n".join(lines)


def note_text(note: JobNote) -> str:
    """One line of a job's log."""
    who = f" [{short('node', note.node)}]" if note.node else ""
    count = f" {note.done}/{note.total}" if note.total else ""
    return f"{moment(note.at_ms)[11:]} {note.kind:<8}{who}{count} {note.text}".rstrip()


# market and money -----------------------------------------------------------------------------------------------------


def candidate_data(candidate: Candidate) -> dict[str, Any]:
    """A provider and what keeps it from a job."""
    lacks = candidate.shortfalls.shortfalls
    return data_of(candidate) | {"fits": not lacks, "shortfalls": _plain("shortfalls", lacks)}


def estimate_data(estimate: Estimate) -> dict[str, Any]:
    """Who would take a job and what it would cost."""
    return data_of(estimate) | {"candidates": [candidate_data(candidate) for candidate in estimate.candidates]}


def estimate_text(estimate: Estimate) -> str:
    """The table that `why` shows."""
    if not estimate.candidates:
        return "Nobody on the network offers this kind of work now. Providers join with: fallow provide TICKET"
    rows = [
        (
            to_text("account", candidate.account)[:SHORT],
            format_money(candidate.price_ucr),
            str(candidate.units_per_s),
            "; ".join(shortfall_text(s.resource, s.wanted, s.have, s.note) for s in candidate.shortfalls.shortfalls)
            or "fits",
        )
        for candidate in estimate.candidates
    ]
    return table(("PROVIDER", "PRICE/1000", "UNITS/S", "VERDICT"), rows)


def shortfall_text(resource: str, wanted: int, have: int, note: str) -> str:
    """Why not, in a few words."""
    if not wanted and not have:
        return f"{resource}: {note}" if note else resource
    shown = (format_size(wanted), format_size(have)) if resource.endswith("bytes") else (str(wanted), str(have))
    return f"{resource}: wants {shown[0]}, has {shown[1]}"


def offer_data(offer: Offer) -> dict[str, Any]:
    """One provider's advert."""
    shown = {name: value for name, value in data_of(offer).items() if name not in ("address", "certificate")}
    return shown | {"node": to_text("node", offer.address.node)}


def offers_text(offers: tuple[Offer, ...]) -> str:
    """One row for each kind of work of each provider."""
    if not offers:
        return "No offers. Providers join with: fallow provide TICKET"
    rows = [
        (
            to_text("account", offer.account)[:SHORT],
            rate.kind,
            format_money(rate.price_ucr),
            str(rate.units_per_s),
            f"{offer.hardware.cpu_millis / 1000:g}",
            format_size(offer.hardware.ram_bytes),
            ", ".join(gpu.name for gpu in offer.hardware.gpus) or "-",
            format_money(offer.stake_ucr),
        )
        for offer in offers
        for rate in offer.rates
    ]
    return table(("PROVIDER", "KIND", "PRICE/1000", "UNITS/S", "CPUS", "RAM", "GPUS", "STAKE"), rows)


def wallet_text(wallet: Wallet) -> str:
    """All balances."""
    stake = f"{format_money(wallet.bonded_ucr)} behind leases, {format_money(wallet.unbonding_ucr)} on its way out"
    return "\n".join(
        (
            f"account    {to_text('account', wallet.account)}",
            f"available  {format_money(wallet.available_ucr)}",
            f"escrowed   {format_money(wallet.escrowed_ucr)} in running jobs",
            f"staked     {format_money(wallet.staked_ucr)} ({stake})",
            f"earned     {format_money(wallet.earned_ucr)} so far",
            f"slashed    {format_money(wallet.slashed_ucr)} so far",
        )
    )
