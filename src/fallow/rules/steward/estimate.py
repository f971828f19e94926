"""What a job would cost and who would take it, before anything is spent, and who would take it now. `terms_of` decides,
as it does for the job's orders."""

from __future__ import annotations

from collections.abc import Sequence

from fallow.rules import market
from fallow.rules.steward.checks.registry import CHECKS, Check, parse
from fallow.rules.steward.terms import terms_of
from fallow.wire.local import UNCHECKED, Candidate, Estimate, JobSpec
from fallow.wire.messages import Declined, Offer

MAX_CANDIDATES = 1_000


def estimate(spec: JobSpec, bank: bytes, offers: Sequence[Offer], now_ms: int, numerics: str = "") -> Estimate:
    """Every offer with what it lacks for this job, the cheapest first among those that fit, and the cost with checks at
    the cheapest and dearest of them (0 when none fits, or when the job runs until cancelled). `numerics` is the class
    of machines that a job under way keeps to. An unknown check counts as none. Raises UsageError E2001 for an unknown
    kind."""
    kind, offers = market.kind_of(spec), offers[:MAX_CANDIDATES]
    check = parse(spec.verify, in_links=market.in_links(spec))
    check = check if isinstance(check, Check) else CHECKS[UNCHECKED]
    found = terms_of(spec, check, bank, offers, now_ms, numerics)
    candidates: list[Candidate] = []
    for offer, rows in zip(offers, found.lacks, strict=True):
        bid = market.bid_of(offer, kind.name)
        price, speed = (bid.price_ucr, bid.units_per_s) if bid is not None else (0, 0)
        candidates.append(Candidate(offer.account, offer.address.node, price, speed, Declined(rows[:32])))
    candidates.sort(key=lambda one: (bool(one.shortfalls.shortfalls), one.price_ucr, one.node))
    units = 0 if found.volume.open_ended else found.volume.units
    return Estimate(
        units,
        market.estimate_ucr(units, found.executions_ppm, found.low_ucr),
        market.estimate_ucr(units, found.executions_ppm, found.high_ucr),
        tuple(candidates),
    )
