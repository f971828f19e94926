"""On what terms a job meets the market: which offers fit, of which class of machine, at what cost. One answer for the
estimate before a job, for its orders, and for whoever asks why. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fallow.rules import market
from fallow.rules.steward.check import Check
from fallow.rules.steward.shape import shape_of
from fallow.wire.local import JobSpec
from fallow.wire.messages import Offer, Shortfall


class JobTerms(NamedTuple):
    """`lacks` has for each offer what it lacks, `fitting` are those that lack nothing. `numerics` is the class of
    machines that the orders name, "" where results need not be compared bit for bit. `low_ucr` and `high_ucr` are the
    least and the most that those who fit ask for 1,000 units, 0 when none does. `executions_ppm` is how often each unit
    is paid, checks included, in parts per million."""

    numerics: str
    lacks: tuple[tuple[Shortfall, ...], ...]
    fitting: tuple[Offer, ...]
    volume: market.Volume
    low_ucr: int
    high_ucr: int
    executions_ppm: int


def same_everywhere(spec: JobSpec) -> bool:
    """Whether any account may check any other of the job's, whatever their machines are."""
    kind = market.kind_of(spec)
    return kind.same_everywhere or kind.exact(spec.work)


def wanted_seats(spec: JobSpec, check: Check) -> int:
    """How many leases a job wants at a time: those of its form, and at least as many as its check needs."""
    return max(shape_of(spec.work).seats(spec), check.least_seats())


def terms_of(
    spec: JobSpec, check: Check, bank: bytes, offers: Sequence[Offer], now_ms: int, numerics: str = ""
) -> JobTerms:
    """How the job stands to the offers. Where claims are checked bit for bit, the job keeps to the class of machine
    that most accounts have, once there are two that can check each other; `numerics` is the one that it keeps to
    already. Raises UsageError E2001 for an unknown kind."""
    lacks = _lacks(spec, bank, offers, now_ms, numerics)
    if check.compares and not numerics and not same_everywhere(spec):
        fitting = [offer for offer, rows in zip(offers, lacks, strict=True) if not rows]
        name = market.common_numerics(fitting, spec.prefer, spec.work.workload)
        if len({offer.account for offer in fitting if offer.hardware.numerics == name}) > 1:
            numerics, lacks = name, _lacks(spec, bank, offers, now_ms, name)
    fitting = [offer for offer, rows in zip(offers, lacks, strict=True) if not rows]
    bids = (market.bid_of(offer, spec.work.workload) for offer in fitting)
    prices = [bid.price_ucr for bid in bids if bid is not None]
    accounts = min(len({offer.account for offer in fitting}), wanted_seats(spec, check))
    volume = shape_of(spec.work).volume(spec)
    return JobTerms(
        numerics, lacks, tuple(fitting), volume, min(prices, default=0), max(prices, default=0),
        check.executions_ppm(spec, max(1, accounts)),
    )  # fmt: skip


def _lacks(
    spec: JobSpec, bank: bytes, offers: Sequence[Offer], now_ms: int, numerics: str
) -> tuple[tuple[Shortfall, ...], ...]:
    needs = market.needs_of(spec, bank, numerics)
    return tuple(market.fit(needs, offer, now_ms) for offer in offers)
