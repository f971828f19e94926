"""What a job would cost and who would take it, before anything is spent. The same `fit` decides for the steward."""

from __future__ import annotations

from collections.abc import Sequence

from fallow.rules import market, trust
from fallow.wire.local import Candidate, Estimate, JobSpec
from fallow.wire.messages import Declined, Offer

MAX_CANDIDATES = 1_000


def estimate(spec: JobSpec, bank: bytes, offers: Sequence[Offer], now_ms: int) -> Estimate:
    """Every offer with what it lacks for this job, the cheapest first among those that fit, and the cost with checks at
    the cheapest and dearest of them (0 when none fits, or when the job runs until cancelled). Where results are checked
    bit for bit, machines of another class than the most common one do not fit, as in the job itself. Pure."""
    kind = market.kind_of(spec)
    policy = trust.parse_policy(spec.verify, exact=kind.chain(spec.work) is not None)
    checks = isinstance(policy, trust.Policy) and policy.checks
    anywhere = market.needs_of(spec, bank)
    fitting = [offer for offer in offers if not market.fit(anywhere, offer, now_ms)]
    numerics = market.common_numerics(fitting, spec.prefer, kind.name) if checks and not kind.exact(spec.work) else ""
    needs = market.needs_of(spec, bank, numerics)
    candidates: list[Candidate] = []
    for offer in offers[:MAX_CANDIDATES]:
        bid = market.bid_of(offer, kind.name)
        price, speed = (bid.price_ucr, bid.units_per_s) if bid is not None else (0, 0)
        lacks = Declined(market.fit(needs, offer, now_ms)[:32])
        candidates.append(Candidate(offer.account, offer.address.node, price, speed, lacks))
    candidates.sort(key=lambda one: (bool(one.shortfalls.shortfalls), one.price_ucr, one.node))
    volume = market.volume(spec)
    units = 0 if volume.open_ended else volume.units
    prices = [one.price_ucr for one in candidates if not one.shortfalls.shortfalls]
    executions = trust.RATE_ONE
    if isinstance(policy, trust.Policy):
        accounts = max(1, min(len(prices), spec.workers))
        check_ppm = market.check_ppm(spec, policy.links)
        executions = trust.expected_executions_ppm(policy, volume.tasks, accounts, volume.forced, check_ppm)
    low, high = min(prices, default=0), max(prices, default=0)
    return Estimate(
        units,
        market.estimate_ucr(units, executions, low),
        market.estimate_ucr(units, executions, high),
        tuple(candidates),
    )
