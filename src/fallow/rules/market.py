"""Who fits, who is chosen, what it will cost, and how a budget is spread over leases. Pure arithmetic in integers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fallow.kinds.kind import Kind
from fallow.kinds.registry import KINDS, kind_named
from fallow.units import GIB, Ucr, cost_ucr
from fallow.wire.local import JobSpec
from fallow.wire.messages import EXACT, Offer, Shortfall

CPU_MILLIS = 1_000


class Needs(NamedTuple):
    """What an order asks of a provider. `numerics` is empty where results need not be comparable bit for bit."""

    kind: str
    bank: bytes
    numerics: str = ""
    cpu_millis: int = CPU_MILLIS
    ram_bytes: int = GIB
    disk_bytes: int = 0
    gpus: int = 0
    gpu_ram_bytes: int = 0
    max_price_ucr: int = 0
    min_stake_ucr: int = 0


def needs_of(spec: JobSpec, bank: bytes, numerics: str = "") -> Needs:
    """What a job asks of each of its providers. A `max_price_ucr` of 0 in the job means: no limit but the budget. Exact
    work is asked of whoever computes exactly, whatever `numerics` says. Raises UsageError E2001 for an unknown kind."""
    kind = kind_of(spec)
    return Needs(
        kind=kind.name,
        bank=bank,
        numerics=EXACT if kind.exact(spec.work) else numerics,
        ram_bytes=kind.ram_bytes(spec.work),
        disk_bytes=kind.disk_bytes(spec.work),
        max_price_ucr=spec.max_price_ucr,
    )


def kind_of(spec: JobSpec) -> Kind:
    """The kind of work that a job's leases are for. Raises UsageError E2001 for an unknown one."""
    return kind_named(spec.work.workload)


def in_links(spec: JobSpec) -> bool:
    """Whether claims of the job are chains of links, a few of which can be done again."""
    kind = KINDS.get(spec.work.workload)
    return kind is not None and kind.chain(spec.work) is not None


def fit(needs: Needs, offer: Offer, now_ms: int) -> tuple[Shortfall, ...]:
    """Everything that an offer lacks, with the figures; empty when it fits. Never stops at the first, so that a person
    sees all of it at once."""
    hardware = offer.hardware
    rate = next((rate for rate in offer.rates if rate.kind == needs.kind), None)
    found: list[Shortfall] = []
    if rate is None:
        found.append(Shortfall("kind", 0, 0, f"does not offer {needs.kind}"[:200]))
    elif needs.max_price_ucr and rate.price_ucr > needs.max_price_ucr:
        found.append(Shortfall("price_ucr", needs.max_price_ucr, rate.price_ucr, "asks more than the limit"))
    if offer.bank != needs.bank:
        found.append(Shortfall("bank", 0, 0, "settles at another bank"))
    if needs.numerics == EXACT and hardware.exact != EXACT:
        why = hardware.exact or "it has not been tried"
        found.append(Shortfall("exact", 0, 0, f"does not reproduce exact arithmetic: {why}"[:200]))
    elif needs.numerics not in ("", EXACT, hardware.numerics):
        note = f"computes as {hardware.numerics}, this job as {needs.numerics}"
        found.append(Shortfall("numerics", 0, 0, note[:200]))
    if now_ms >= offer.issued_ms + offer.ttl_s * 1_000:
        found.append(Shortfall("offer", 0, 0, "has expired"))
    cards = sum(1 for gpu in hardware.gpus if gpu.ram_bytes >= needs.gpu_ram_bytes)
    amounts = (
        ("cpu_millis", needs.cpu_millis, hardware.cpu_millis),
        ("ram_bytes", needs.ram_bytes, hardware.ram_bytes),
        ("disk_bytes", needs.disk_bytes, hardware.disk_bytes),
        ("gpus", needs.gpus, cards if needs.gpus else 0),
        ("stake_ucr", needs.min_stake_ucr, offer.stake_ucr),
    )
    found.extend(Shortfall(name, wanted, have) for name, wanted, have in amounts if have < wanted)
    return tuple(found)


class Bid(NamedTuple):
    """A price (per 1,000 units) and a measured speed that can be compared with others."""

    node: bytes
    account: bytes
    price_ucr: int
    units_per_s: int


def bid_of(offer: Offer, kind: str) -> Bid | None:
    """What an offer would come to for `kind`; None when it does not have it."""
    for rate in offer.rates:
        if rate.kind == kind:
            return Bid(offer.address.node, offer.account, rate.price_ucr, rate.units_per_s)
    return None


def rank(bids: Iterable[Bid], prefer: str) -> list[Bid]:
    """Best first: the cheapest ("price") or the fastest ("speed"); then the other of both; then by node, so that the
    order never depends on who answered first."""
    if prefer == "speed":
        return sorted(bids, key=lambda bid: (-bid.units_per_s, bid.price_ucr, bid.node))
    return sorted(bids, key=lambda bid: (bid.price_ucr, -bid.units_per_s, bid.node))


def common_numerics(offers: Sequence[Offer], prefer: str, kind: str) -> str:
    """The class of machine that a job which is to be checked should run on: the one with the most accounts, then the
    one with the best bid. Empty without offers."""
    accounts: dict[str, set[bytes]] = {}
    best: dict[str, int] = {}
    bids = {bid.node: bid for bid in (bid_of(offer, kind) for offer in offers) if bid is not None}
    places = {bid.node: index for index, bid in enumerate(rank(bids.values(), prefer))}
    for offer in offers:
        name, place = offer.hardware.numerics, places.get(offer.address.node, len(places))
        accounts.setdefault(name, set()).add(offer.account)
        best[name] = min(best.get(name, place), place)
    return min(accounts, key=lambda name: (-len(accounts[name]), best[name], name), default="")


class Volume(NamedTuple):
    """How much a job is, without checks. `open_ended` for jobs that run until cancelled: then `units` is one task.
    `forced` tasks are checked in any case, as the finish of a training is."""

    tasks: int
    units: int
    largest: int
    open_ended: bool = False
    forced: int = 0


def check_ppm(spec: JobSpec, links: int) -> int:
    """What one check of a claim costs, in parts per million of the claimed work; a whole execution where `links` is 0,
    or the work has none."""
    chain = kind_of(spec).chain(spec.work)
    if not links or chain is None:
        return 1_000_000
    return chain.check_ppm(spec.work, links)


def estimate_ucr(units: int, executions_ppm: int, price_ucr: int) -> Ucr:
    """What `units` of work cost when each is done `executions_ppm` / 1e6 times."""
    return cost_ucr(-(-units * executions_ppm // 1_000_000), price_ucr)


def cap_for(left_ucr: int, missing: int, price_ucr: int, fair_units: int, largest: int, smallest_ucr: int = 0) -> int:
    """The cap of one new lease, when `left_ucr` of the budget is not promised yet and `missing` leases (this one
    counted) are wanted. Twice the fair share of the work, so that a fast provider need not stop, but never so much
    that the other missing leases and one replacement would get less than their part. 0 when not even the `largest`
    task can be paid. Where less than two caps of `smallest_ucr` are left, one lease gets it all, and crumbs are not
    leased: else the last of a budget would be cut into ever smaller leases, each of which costs a negotiation and two
    trips to the bank."""
    least = cost_ucr(largest, price_ucr)
    if least > left_ucr or left_ucr < smallest_ucr // 4:
        return 0
    if left_ucr < 2 * smallest_ucr:
        return left_ucr
    share = max(left_ucr // (missing + 1), smallest_ucr)
    wanted = cost_ucr(2 * fair_units + 2 * largest, price_ucr)
    return max(least, min(share, wanted))


def room_units(cap_ucr: int, price_ucr: int, taken_units: int) -> int:
    """How many more units fit under a cap: the most for which `cost_ucr` of all of them stays within it."""
    return max(0, (cap_ucr * 1_000 // price_ucr if price_ucr else (1 << 62)) - taken_units)
