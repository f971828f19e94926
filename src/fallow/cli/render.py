"""How jobs, offers and wallets look: for programs as plain dictionaries with stable keys (ids as text, money as whole
ucr), for people as a few lines of text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fallow.cli.output import table
from fallow.units import format_money, format_size, to_text
from fallow.wire.local import Candidate, Estimate, JobNote, JobView, LeaseView, RoundView, Wallet
from fallow.wire.messages import Offer

SHORT = 12


def short(kind: str, value: bytes) -> str:
    """The beginning of an id, long enough to be typed back."""
    return to_text(kind, value)[:SHORT]


def moment(at_ms: int) -> str:
    """A time as people read it, in their own zone."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S") if at_ms else "-"


# jobs -----------------------------------------------------------------------------------------------------------------


def lease_data(lease: LeaseView) -> dict[str, Any]:
    """One lease of a job."""
    return {
        "id": to_text("lease", lease.lease),
        "account": to_text("account", lease.account),
        "node": to_text("node", lease.node),
        "state": lease.state,
        "price_ucr": lease.price_ucr,
        "tasks_claimed": lease.tasks_claimed,
        "units_claimed": lease.units_claimed,
        "units_final": lease.units_final,
        "paid_ucr": lease.paid_ucr,
        "slashed_ucr": lease.slashed_ucr,
    }


def round_data(found: RoundView) -> dict[str, Any]:
    """One training round."""
    return {
        "round": found.round,
        "updates": found.updates,
        "state": found.state.hex(),
        "agreed": found.agreed,
        "loss": found.loss,
        "bytes_sent": found.bytes_sent,
    }


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
        "leases": [lease_data(lease) for lease in view.leases],
        "rounds": [round_data(found) for found in view.rounds],
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


def note_data(note: JobNote) -> dict[str, Any]:
    """One line of a job's log."""
    return {
        "number": note.number,
        "at_ms": note.at_ms,
        "kind": note.kind,
        "text": note.text,
        "node": to_text("node", note.node) if note.node else "",
        "done": note.done,
        "total": note.total,
    }


def note_text(note: JobNote) -> str:
    """The same for people."""
    who = f" [{short('node', note.node)}]" if note.node else ""
    count = f" {note.done}/{note.total}" if note.total else ""
    return f"{moment(note.at_ms)[11:]} {note.kind:<8}{who}{count} {note.text}".rstrip()


# market and money -----------------------------------------------------------------------------------------------------


def candidate_data(candidate: Candidate) -> dict[str, Any]:
    """A provider and what keeps it from a job."""
    return {
        "account": to_text("account", candidate.account),
        "node": to_text("node", candidate.node),
        "price_ucr": candidate.price_ucr,
        "units_per_s": candidate.units_per_s,
        "fits": not candidate.shortfalls.shortfalls,
        "shortfalls": [
            {"resource": s.resource, "wanted": s.wanted, "have": s.have, "note": s.note}
            for s in candidate.shortfalls.shortfalls
        ],
    }


def estimate_data(estimate: Estimate) -> dict[str, Any]:
    """Who would take a job and what it would cost."""
    return {
        "units": estimate.units,
        "low_ucr": estimate.low_ucr,
        "high_ucr": estimate.high_ucr,
        "candidates": [candidate_data(candidate) for candidate in estimate.candidates],
    }


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
    hardware = offer.hardware
    return {
        "account": to_text("account", offer.account),
        "node": to_text("node", offer.address.node),
        "region": offer.region,
        "stake_ucr": offer.stake_ucr,
        "issued_ms": offer.issued_ms,
        "ttl_s": offer.ttl_s,
        "hardware": {
            "cpu": hardware.cpu,
            "cpu_millis": hardware.cpu_millis,
            "ram_bytes": hardware.ram_bytes,
            "disk_bytes": hardware.disk_bytes,
            "numerics": hardware.numerics,
            "gpus": [{"card": g.card, "name": g.name, "ram_bytes": g.ram_bytes} for g in hardware.gpus],
        },
        "rates": [{"kind": r.kind, "price_ucr": r.price_ucr, "units_per_s": r.units_per_s} for r in offer.rates],
    }


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


def wallet_data(wallet: Wallet) -> dict[str, Any]:
    """All balances."""
    return {
        "account": to_text("account", wallet.account),
        "bank": to_text("account", wallet.bank),
        "available_ucr": wallet.available_ucr,
        "escrowed_ucr": wallet.escrowed_ucr,
        "staked_ucr": wallet.staked_ucr,
        "bonded_ucr": wallet.bonded_ucr,
        "unbonding_ucr": wallet.unbonding_ucr,
        "earned_ucr": wallet.earned_ucr,
        "slashed_ucr": wallet.slashed_ucr,
    }


def wallet_text(wallet: Wallet) -> str:
    """The same for people."""
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
