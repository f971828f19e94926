"""How a job of the steward's finds providers: search, ask, choose, sign, open. A seat is a provider's place in a
job."""

from __future__ import annotations

from blake3 import blake3

from fallow.kinds.registry import kind_named
from fallow.rules import market, placement, trust
from fallow.rules.steward import terms
from fallow.rules.steward.check import check_of
from fallow.rules.steward.events import (
    MAX_OFFERS_SEEN,
    AskQuote,
    FindOffers,
    FundEscrow,
    LedgerRefusedEscrow,
    OffersGathered,
    PeerDeclined,
    PeerQuoted,
    PeerSigned,
    PrepareLane,
    ProposeLease,
    StewardEffect,
    Watch,
)
from fallow.rules.steward.shape import shape_of
from fallow.rules.steward.state import NEVER_MS, Deal, Ending, Job, Mark, Phase, Seat, Stage, Turn
from fallow.units import MS_PER_S, cost_ucr, format_money
from fallow.wire.documents import Lease, Order
from fallow.wire.eip712 import hash_document
from fallow.wire.ledger import Refusal
from fallow.wire.messages import Offer
from fallow.wire.refusals import code_of, words

SPARE_QUOTES = 2
"""Quotes asked for beyond the seats that are free, so that there is something to choose from."""
SMALLEST_SHARE = 8
"""A lane's lease is at least this part of its seat's share of the budget, or what is left of it."""
REFUSED_MS = 60_000
"""How long the same job leaves a node alone at most, and one that does not fit it at once."""
CLEAN_UP_MS = 600_000
"""What a lease may outlast its job's deadline by, for checks and settling."""


def wanted_seats(job: Job) -> int:
    """How many leases the job wants at a time."""
    return terms.wanted_seats(job.spec, check_of(job))


def missing_seats(job: Job) -> int:
    """How many more leases the job wants; negative when it has more than it wants."""
    there = (seat for seat in job.present if not seat.outside and (seat.usable or seat.negotiating))
    return wanted_seats(job) - sum(1 for _ in there)


def missing_outsiders(job: Job) -> int:
    """How many more auditors from outside its leases the job wants: chosen for their price, those of the leases may be
    one owner's."""
    there = (seat for seat in job.present if seat.outside and (seat.usable or seat.negotiating))
    return check_of(job).outsiders(job) - sum(1 for _ in there)


def outsiders_due(turn: Turn, job: Job) -> bool:
    """Whether auditors from outside are to be looked for now."""
    return not job.market.dry and turn.now_ms >= job.market.outside_ms and missing_outsiders(job) > 0


def outsider_coming(turn: Turn, job: Job) -> bool:
    """Whether an auditor from outside may be there soon, so that a check waits for it."""
    return outsiders_due(turn, job) or any(job.seats[number].outside for number in job.market.talks)


def can_recruit(job: Job) -> bool:
    """Whether further providers may still turn up: some are being asked, or the last search found more than were
    asked."""
    return not job.market.dry and (job.market.searched_ms is None or not job.market.alone or bool(job.market.talks))


def recruit(turn: Turn, job: Job) -> None:
    """Search when seats are free, not more often than the timing says."""
    choose(turn, job)
    if job.market.searching or job.market.dry:
        return
    searched_ms = job.market.searched_ms
    early = searched_ms is not None and turn.now_ms < searched_ms + turn.state.timing.search_every
    if (early or missing_seats(job) <= 0) and not outsiders_due(turn, job):
        return
    job.market.searching = True
    turn.ask(find_offers(job))


def find_offers(job: Job) -> FindOffers:
    """The search for providers of a job."""
    needs = market.needs_of(job.spec, b"")
    return FindOffers(job.id, job.kind, needs.ram_bytes, needs.disk_bytes, needs.max_price_ucr)


def offers_seen(turn: Turn, job: Job, event: OffersGathered) -> None:
    """Ask the best offers that fit for quotes; remember why there are none."""
    if not job.market.searching:
        return
    job.market.searching = False
    job.market.searched_ms = turn.now_ms
    job.market.refused = {node: until for node, until in job.market.refused.items() if until > turn.now_ms}
    found = _terms(turn, job, event.offers[:MAX_OFFERS_SEEN])
    if not found.fitting:
        job.market.alone, job.market.outside_ms = True, turn.now_ms + REFUSED_MS
        return
    if _too_dear(turn, job, found):
        return
    taken = {seat.node for seat in job.present if seat.mark is not Mark.FULL}
    fresh = [
        offer
        for offer in found.fitting
        if offer.address.node not in taken
        and offer.address.node not in job.market.refused
        and offer.address.node not in turn.state.roll.since
        and not turn.state.standing(offer.account).banned
    ]
    missing = missing_seats(job)
    asked = _best(job, fresh)[: missing + SPARE_QUOTES] if missing > 0 else []
    for offer in asked:
        _ask(turn, job, offer)
    outsiders = _outsiders(turn, job, fresh)
    for offer in outsiders:
        _ask(turn, job, offer, outside=True)
    job.market.alone = len(asked) + len(outsiders) == len(fresh)
    if missing == wanted_seats(job) and not asked:
        for seat in job.usable:  # they came to check, and nobody else is left to work
            seat.outside = False


def _outsiders(turn: Turn, job: Job, fresh: list[Offer]) -> list[Offer]:
    """Whom to ask for checks alone: of accounts without a lease in the job, in the order in which the bank has drawn
    them, whatever they ask. Where nobody is left, not for a while."""
    missing = missing_outsiders(job) if turn.now_ms >= job.market.outside_ms else 0
    if missing <= 0:
        return []
    inside = {seat.account for seat in job.present}
    by_account = {offer.account: offer for offer in fresh if offer.account not in inside}
    order = trust.auditor_order(job.market.seed, by_account, job.market.drawn)
    if not order:
        job.market.outside_ms = turn.now_ms + REFUSED_MS
    return [by_account[account] for account in order[:missing]]


def _terms(turn: Turn, job: Job, offers: tuple[Offer, ...]) -> terms.JobTerms:
    found = terms.terms_of(job.spec, check_of(job), turn.state.identity.bank, offers, turn.now_ms, job.market.numerics)
    misfits = [shortfalls for shortfalls in found.lacks if shortfalls]
    names = [{shortfall.resource for shortfall in shortfalls} for shortfalls in misfits]
    job.market.shortfalls, job.market.numerics = min(misfits, key=len, default=()), found.numerics
    if found.fitting:
        job.market.last_code = "E1202"
    elif {"price_ucr"} in names:
        job.market.last_code = "E1203"
    else:
        job.market.last_code = "E1201" if all("kind" in found for found in names) else "E1202"
    return found


def _too_dear(turn: Turn, job: Job, found: terms.JobTerms) -> bool:
    """End a job that has not begun when even the cheapest offer costs more than the budget."""
    if any(seat.lease for seat in job.seats):
        return False
    needed, budget = cost_ucr(found.volume.units, found.low_ucr), job.spec.budget_ucr
    if needed > budget:
        what = f"the work costs at least {format_money(needed)}, the budget is {format_money(budget)}"
        job.ending = Ending("E1401", what)
        return True
    checked = market.estimate_ucr(found.volume.units, found.executions_ppm, found.low_ucr)
    if checked > budget and not found.volume.open_ended:
        text = f"With checks the work costs about {format_money(checked)}: the budget may run out before it is done."
        turn.warn_once(job, "tight", text)
    return False


def _best(job: Job, offers: list[Offer]) -> list[Offer]:
    by_node = {offer.address.node: offer for offer in offers}
    bids = [bid for bid in (market.bid_of(offer, job.kind) for offer in by_node.values()) if bid is not None]
    return [by_node[bid.node] for bid in _ranked(job, bids, {seat.account for seat in job.present})]


def _ranked(job: Job, bids: list[market.Bid], seen: set[bytes]) -> list[market.Bid]:
    """By rank, but one node of every account, those `seen` counted, before any account's second: only distinct accounts
    can check each other."""
    first: list[market.Bid] = []
    later: list[market.Bid] = []
    for bid in market.rank(bids, job.spec.prefer):
        (later if bid.account in seen else first).append(bid)
        seen.add(bid.account)
    return first + later


def _ask(turn: Turn, job: Job, offer: Offer, *, outside: bool = False) -> None:
    identity, now_ms, number = turn.state.identity, turn.now_ms, len(job.seats)
    volume = shape_of(job.spec.work).volume(job.spec)
    bid = market.bid_of(offer, job.kind)
    assert bid is not None, "only offers of the kind are asked"
    needs = market.needs_of(job.spec, identity.bank, job.market.numerics)
    affordable = job.spec.budget_ucr * 1_000 // max(1, volume.largest)
    latest = job.created_ms + job.spec.timeout_s * MS_PER_S + CLEAN_UP_MS
    usual_ms = turn.state.timing.lease_length
    term_ms = kind_named(job.kind).lease_ms(job.spec.work, volume.largest, usual_ms)
    order = Order(
        requester=identity.account,
        node=identity.node,
        job=job.id,
        kind=needs.kind,
        numerics=needs.numerics,
        cpu_millis=needs.cpu_millis,
        ram_bytes=needs.ram_bytes,
        disk_bytes=needs.disk_bytes,
        gpus=needs.gpus,
        gpu_ram_bytes=needs.gpu_ram_bytes,
        units=2 * (_fair_units(job) + volume.largest),
        max_price_ucr=min(needs.max_price_ucr or affordable, affordable),
        min_stake_ucr=needs.min_stake_ucr,
        verify=job.spec.verify,
        ends_ms=min(now_ms + term_ms, latest),
        bank=identity.bank,
        nonce=blake3(b"order" + job.id + number.to_bytes(8, "big")).digest(),
    )
    deadline = now_ms + turn.state.timing.quote_within
    deal = Deal(order, hash_document(order, identity.bank), deadline)
    seat = Seat(number, offer, deal, bid.units_per_s, outside=outside)
    job.seats.append(seat)
    job.live[number] = job.market.talks[number] = None
    turn.ask(AskQuote(job.id, number, seat.peer, order))


def _fair_units(job: Job) -> int:
    wanted = wanted_seats(job)
    executions = check_of(job).executions_ppm(job.spec, wanted)
    return -(-shape_of(job.spec.work).volume(job.spec).units * executions // 1_000_000) // wanted + 1


def quoted(turn: Turn, job: Job, event: PeerQuoted) -> None:
    """Take the quote if it is for this order, from this provider, and not above the limit."""
    seat = job.seats[event.seat]
    if seat.stage is not Stage.ASKING:
        return
    quote, order = event.quote, seat.deal.order
    honest = (quote.order, quote.provider, quote.node) == (seat.deal.order_hash, seat.account, seat.node)
    if not honest or quote.price_ucr > order.max_price_ucr or quote.stake_ucr < order.min_stake_ucr:
        drop(turn, job, seat, passing=False)
        return
    turn.state.roll.see(seat.node)
    seat.stage, seat.deal.quote, seat.money.price_ucr = Stage.QUOTED, quote, quote.price_ucr


def declined(turn: Turn, job: Job, event: PeerDeclined) -> None:
    """The provider said no, or nothing in time; what it lacks is remembered for people who ask why."""
    seat = job.seats[event.seat]
    if seat.stage in (Stage.ASKING, Stage.PROPOSED):
        job.market.shortfalls = event.shortfalls or job.market.shortfalls
        drop(turn, job, seat, passing=placement.will_pass(event.shortfalls))


def drop(turn: Turn, job: Job, seat: Seat, *, passing: bool) -> None:
    """End a negotiation and leave the node alone for a while."""
    _let_go(job, seat)
    leave_alone(turn, job, seat.node, passing=passing)


def leave_alone(turn: Turn, job: Job, node: bytes, *, passing: bool) -> None:
    """Do not ask the node again for a while. One that only had no room just now (`passing`) is asked again at the next
    search, then after twice as long, and so on; while the job has no lease at all, so soon that it is asked again
    before patience ends."""
    wait_ms = REFUSED_MS
    if passing:
        timing, before = turn.state.timing, job.market.refusals.get(node, 0)
        job.market.refusals[node] = before + 1
        soonest = min(timing.search_every << min(before, 16), REFUSED_MS)
        wait_ms = min(soonest, timing.patience // 3) if job.phase is Phase.STARTING else soonest
    job.market.refused[node] = turn.now_ms + wait_ms


def _let_go(job: Job, seat: Seat) -> None:
    """The seat is neither live nor negotiating any more."""
    seat.stage = Stage.DROPPED
    job.live.pop(seat.number, None)
    job.market.talks.pop(seat.number, None)


def break_off(job: Job) -> None:
    """End all negotiations whose lease is not signed yet."""
    for seat in job.present:
        if seat.negotiating and seat.stage is not Stage.OPENING:
            _let_go(job, seat)


def choose(turn: Turn, job: Job) -> None:
    """When all quotes are in: propose to the best, let the others go (their reservations expire)."""
    if not job.market.talks:
        return
    seats = [job.seats[n] for n in job.market.talks]
    for seat in seats:
        if seat.outside and seat.stage is Stage.QUOTED:
            _propose_outsider(turn, job, seat)
    rivals = {seat.node: seat for seat in seats if seat.stage is Stage.QUOTED and not seat.outside}
    if not rivals or any(seat.stage is Stage.ASKING for seat in seats):
        return
    free = missing_seats(job) + len(rivals)
    bids = [market.Bid(s.node, s.account, s.money.price_ucr, s.units_per_s) for s in rivals.values()]
    accounts: set[bytes] = {seat.account for seat in job.present if seat.node not in rivals}
    for place, bid in enumerate(_ranked(job, bids, accounts)):
        seat = rivals[bid.node]
        cap = _cap_ucr(job, seat, free - place) if place < free else 0
        if place < free and (cap > 0 or seat.money.price_ucr == 0):
            _propose(turn, job, seat, cap)
            continue
        if place < free:
            job.market.dry = True
            _release_outsiders(job)
        _let_go(job, seat)


def _propose_outsider(turn: Turn, job: Job, seat: Seat) -> None:
    """It gets no more of what is left than half, or the work would lack it."""
    cap = min(_cap_ucr(job, seat, 1), job.left_ucr() // 2)
    if cost_ucr(shape_of(job.spec.work).volume(job.spec).largest, seat.money.price_ucr) <= cap:
        _propose(turn, job, seat, cap)
        return
    job.market.outside_ms = NEVER_MS
    _let_go(job, seat)


def _release_outsiders(job: Job) -> None:
    """The work needs the money that is set aside for them."""
    job.market.outside_ms = NEVER_MS
    for seat in job.usable:
        if seat.outside:
            seat.mark = Mark.FULL


def _cap_ucr(job: Job, seat: Seat, missing: int) -> int:
    volume = shape_of(job.spec.work).volume(job.spec)
    fair = job.spec.budget_ucr if volume.open_ended else _fair_units(job)
    smallest = job.spec.budget_ucr // (SMALLEST_SHARE * wanted_seats(job)) if volume.open_ended else 0
    return market.cap_for(job.left_ucr(), missing, seat.money.price_ucr, fair, volume.largest, smallest)


def _propose(turn: Turn, job: Job, seat: Seat, cap: int) -> None:
    assert seat.deal.quote is not None, "only quoted seats are proposed to"
    identity, order = turn.state.identity, seat.deal.order
    seat.terms = Lease(
        order=seat.deal.order_hash,
        quote=hash_document(seat.deal.quote, identity.bank),
        requester=identity.account,
        provider=seat.account,
        requester_node=identity.node,
        provider_node=seat.node,
        kind=order.kind,
        price_ucr=seat.money.price_ucr,
        cap_ucr=cap,
        stake_ucr=seat.deal.quote.stake_ucr,
        starts_ms=turn.now_ms,
        ends_ms=max(order.ends_ms, turn.now_ms + 1),
        bank=identity.bank,
    )
    seat.stage, seat.deal.deadline_ms = Stage.PROPOSED, turn.now_ms + turn.state.timing.quote_within
    turn.ask(ProposeLease(job.id, seat.number, seat.peer, seat.terms))


def signed(turn: Turn, job: Job, event: PeerSigned) -> None:
    """Both have signed the very terms that were proposed: the money is locked next."""
    seat = job.seats[event.seat]
    if seat.stage is not Stage.PROPOSED or event.terms != seat.terms or event.lease in turn.state.leases:
        return
    seat.stage, seat.lease, seat.ours, seat.theirs = Stage.OPENING, event.lease, event.ours, event.theirs
    turn.state.leases[event.lease] = (job.id, seat.number)
    turn.state.accounts.setdefault(seat.account, {})[job.id, seat.number] = None
    turn.ask(open_effect(seat))


def open_effect(seat: Seat) -> FundEscrow:
    """Lock the money of a signed lease."""
    assert seat.ours is not None, "both have signed"
    assert seat.theirs is not None, "both have signed"
    return FundEscrow(seat.lease, seat.ours, seat.theirs, seat.offer.certificate)


def opened(turn: Turn, job: Job, seat: Seat) -> None:
    """The money is locked: work may begin."""
    if seat.stage is not Stage.OPENING:
        return
    seat.stage = Stage.OPEN
    job.market.refusals.pop(seat.node, None)
    job.market.talks.pop(seat.number, None)
    job.market.due_ms = min(job.market.due_ms, last_call_ms(seat))
    turn.state.lapse_ms = min(turn.state.lapse_ms, decide_by_ms(seat))
    turn.effects.extend(standing_effects(job, seat))
    if turn.state.standing(seat.account).banned:
        seat.mark = Mark.BANNED
    cap = format_money(seat.leased.cap_ucr)
    turn.note(
        job, "lease", f"Leased at {format_money(seat.money.price_ucr)} per 1,000 units, at most {cap}.", seat.node
    )
    if job.phase is Phase.STARTING:
        job.phase = Phase.RUNNING
        turn.note(job, "phase", "The job is running.")


def standing_effects(job: Job, seat: Seat) -> list[StewardEffect]:
    """What an open lease needs all the time."""
    effects: list[StewardEffect] = [Watch(seat.lease, seat.peer, seat.sequence)]
    if shape_of(job.spec.work).on_lanes and not seat.lane.ready and seat.usable:
        effects.append(PrepareLane(seat.lease, seat.peer, job.spec.work))
    return effects


def escrow_refused(turn: Turn, job: Job, seat: Seat, event: LedgerRefusedEscrow) -> None:
    """Our own purse is empty: the job ends. Otherwise it is the provider's stake: look for another."""
    if seat.stage is not Stage.OPENING:
        return
    drop(turn, job, seat, passing=False)
    said = f"The bank refused a lease: {words(event.reason, event.detail)}."
    turn.note(job, "warning", said, seat.node)
    if event.reason is Refusal.BALANCE_TOO_SMALL and job.ending is None:
        job.ending = Ending(code_of(event.reason), said)


def overdue(turn: Turn, job: Job) -> None:
    """Negotiations that nobody answered in time, and leases that are about to end."""
    for number in list(job.market.talks):
        seat = job.seats[number]
        if seat.stage is not Stage.OPENING and turn.now_ms >= seat.deal.deadline_ms:
            drop(turn, job, seat, passing=True)
    if turn.now_ms < job.market.due_ms:
        return
    usable = job.usable
    for seat in usable:
        if turn.now_ms >= last_call_ms(seat):
            seat.mark = Mark.FULL
    job.market.due_ms = min((last_call_ms(seat) for seat in usable if seat.usable), default=NEVER_MS)


def last_call_ms(seat: Seat) -> int:
    """From when on a lease gets no more work: after nine tenths of its term, so that its claims can still be
    settled."""
    return seat.leased.ends_ms - (seat.leased.ends_ms - seat.leased.starts_ms) // 10


def decide_by_ms(seat: Seat) -> int:
    """When all claims under a lease must be decided: a twentieth of its term before its end, so that the last voucher
    is at the bank before anybody can close the escrow."""
    return seat.leased.ends_ms - (seat.leased.ends_ms - seat.leased.starts_ms) // 20


def give_up(turn: Turn, job: Job) -> None:
    """End a job that could not begin: nothing was leased for as long as patience lasts, while we were there to ask."""
    if job.phase is not Phase.STARTING or any(job.seats[n].stage is Stage.OPENING for n in job.market.talks):
        return
    if turn.now_ms >= job.market.patient_ms + turn.state.timing.patience and job.market.searched_ms is not None:
        lacking = ", ".join(f"{s.resource} {s.have} of {s.wanted} {s.note}".strip() for s in job.market.shortfalls[:4])
        job.ending = Ending(job.market.last_code, f"no provider took the job{': ' + lacking if lacking else ''}")
