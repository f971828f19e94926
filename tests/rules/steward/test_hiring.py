"""How jobs find providers."""

from __future__ import annotations

import msgspec
import pytest
from tests.rules.steward.crowd import BANK, Crowd, Provider, batch_spec, honest_crowd, lane_spec, train_spec, word

from fallow.rules.placement import IN_USE, TOO_SMALL
from fallow.rules.steward import events as t
from fallow.rules.steward import hiring
from fallow.rules.steward.machine import view
from fallow.rules.steward.state import Mark, Stage
from fallow.wire.documents import Quote
from fallow.wire.eip712 import hash_document
from fallow.wire.ledger import Refusal
from fallow.wire.messages import Shortfall


def ended(crowd: Crowd, job: bytes) -> str:
    found = [effect for effect in crowd.of(t.JobEnded) if effect.job == job]
    return found[0].code if found else ""


def test_from_order_to_open_escrow() -> None:
    crowd = Crowd(honest_crowd(1))
    job = crowd.submit(batch_spec(verify="none", workers=1))
    ask = crowd.tell(crowd.queue.pop())[0]
    assert isinstance(ask, t.AskQuote)
    assert (ask.order.kind, ask.order.job, ask.order.bank) == ("echo", job, BANK)
    (propose,) = crowd.tell(crowd.queue.pop())
    assert isinstance(propose, t.ProposeLease)
    assert propose.terms.order == hash_document(ask.order, BANK)
    assert 0 < propose.terms.cap_ucr <= 10_000_000
    (open_escrow,) = crowd.tell(crowd.queue.pop())
    assert isinstance(open_escrow, t.FundEscrow)
    assert open_escrow == t.FundEscrow(
        hash_document(propose.terms, BANK),
        open_escrow.ours,
        open_escrow.theirs,
        crowd.providers[0].offer(0).certificate,
    )
    kinds = [type(effect).__name__ for effect in crowd.tell(crowd.queue.pop())]
    assert kinds == ["Watch", "Note", "Note", "Assign", "Assign", "Assign", "Assign"]


def test_audited_jobs_want_enough_accounts_for_a_dispute() -> None:
    crowd = Crowd(honest_crowd(6))
    crowd.submit(batch_spec(workers=1))
    crowd.run(until=lambda: len(crowd.escrow) == 3)
    assert len({provider.account for _, provider in crowd.leases.values()}) == 3


def test_the_best_quotes_win_and_the_others_are_let_go() -> None:
    providers = [Provider(f"p{n}", price=1000 + n) for n in range(6)]
    crowd = Crowd(providers)
    job = crowd.submit(batch_spec(verify="none", workers=2))
    crowd.run(until=lambda: len(crowd.escrow) == 2)
    assert {provider.name for _, provider in crowd.leases.values()} == {"p0", "p1"}
    stages = [seat.stage for seat in crowd.state.jobs[job].seats]
    assert stages.count(Stage.DROPPED) == hiring.SPARE_QUOTES


def test_speed_is_preferred_when_asked_for() -> None:
    crowd = Crowd([Provider(f"p{n}", price=1000 + n, speed=n) for n in range(4)])
    crowd.submit(msgspec.structs.replace(batch_spec(verify="none", workers=1), prefer="speed"))
    crowd.run(until=lambda: len(crowd.escrow) == 1)
    assert next(iter(crowd.leases.values()))[1].name == "p3"


def test_one_node_of_each_account_before_any_second() -> None:
    twins = [Provider(f"a{n}", account_name="a", price=1) for n in range(4)]
    crowd = Crowd([*twins, Provider("b"), Provider("c")])
    crowd.submit(batch_spec(workers=3))
    crowd.run(until=lambda: len(crowd.escrow) == 3)
    assert len({provider.account for _, provider in crowd.leases.values()}) == 3


def test_only_like_machines_are_taken_when_results_are_compared() -> None:
    crowd = Crowd([Provider("odd", numerics="arm", price=1), *honest_crowd(3)])
    job = crowd.submit(train_spec())
    crowd.run()
    assert crowd.state.jobs[job].market.numerics == "x86"
    assert "odd" not in {provider.name for _, provider in crowd.leases.values()}
    assert ended(crowd, job) == ""


@pytest.mark.parametrize(
    ("providers", "code"),
    [
        ([], "E1201"),
        ([Provider("p", kinds=("train",))], "E1201"),
        ([Provider("p", numerics="x", kinds=("echo",), declines=True)], "E1202"),
        ([Provider("p", price=5_000)], "E1203"),
    ],
)
def test_nobody_takes_the_job(providers: list[Provider], code: str) -> None:
    crowd = Crowd(providers)
    spec = msgspec.structs.replace(batch_spec(), max_price_ucr=2_000)
    job = crowd.submit(spec)
    crowd.run()
    assert not crowd.of(t.JobEnded)
    for _ in range(8):
        crowd.pass_time(6_000)
    assert ended(crowd, job) == code
    shown = view(crowd.state, job)
    assert shown is not None
    assert (shown.phase, shown.spent_ucr, shown.locked_ucr, shown.failure_code) == ("failed", 0, 0, code)


def test_a_budget_below_the_cheapest_offer_fails_at_once() -> None:
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(batch_spec(tasks=100, budget=500))
    crowd.run()
    assert ended(crowd, job) == "E1401"
    assert crowd.escrow == {}


def test_a_tight_budget_is_warned_about() -> None:
    crowd = Crowd(honest_crowd(3))
    crowd.submit(batch_spec(tasks=100, budget=1_010))
    crowd.run()
    assert any("may run out" in text for text in crowd.notes("warning"))


def test_an_empty_purse_ends_the_job_and_a_poor_provider_does_not() -> None:
    crowd = Crowd(honest_crowd(3), refuse_escrow=Refusal.BALANCE_TOO_SMALL)
    job = crowd.submit(batch_spec())
    crowd.run()
    assert ended(crowd, job) == "E1301"
    crowd = Crowd(honest_crowd(3), refuse_escrow=Refusal.STAKE_TOO_SMALL, timing=t.Timing(patience=100_000))
    job = crowd.submit(batch_spec())
    crowd.run()
    assert not crowd.of(t.JobEnded)
    crowd.refuse_escrow = None
    crowd.pass_time(61_000)
    assert ended(crowd, job) == ""
    assert crowd.of(t.JobEnded)


def test_patience_does_not_run_out_while_the_steward_is_away() -> None:
    crowd = Crowd(honest_crowd(1), timing=t.Timing(patience=30_000), away={"p0"})
    job = crowd.submit(batch_spec(workers=1, verify="none"))
    crowd.run()
    crowd.now_ms += 40_000
    crowd.restart()
    crowd.run()
    assert not crowd.of(t.JobEnded)
    crowd.pass_time(20_000)
    crowd.away.clear()
    crowd.pass_time(5_000)
    assert ended(crowd, job) == ""
    crowd = Crowd(honest_crowd(1), timing=t.Timing(patience=30_000), away={"p0"})
    job = crowd.submit(batch_spec(workers=1, verify="none"))
    crowd.run()
    crowd.restart()
    crowd.run()
    crowd.pass_time(31_000)
    assert ended(crowd, job) == "E1201"


@pytest.mark.parametrize("wrong", ["price", "order", "node"])
def test_a_quote_that_is_not_what_was_asked_for_is_dropped(wrong: str) -> None:
    crowd = Crowd(honest_crowd(1))
    job = crowd.submit(batch_spec(workers=1, verify="none"))
    crowd.tell(crowd.queue.pop())
    quoted = crowd.queue.pop()
    assert isinstance(quoted, t.PeerQuoted)
    quote = quoted.quote
    changes: dict[str, object] = {"price_ucr": 1 << 50} if wrong == "price" else {wrong: word("else")}
    bad: Quote = msgspec.structs.replace(quote, **changes)
    crowd.tell(msgspec.structs.replace(quoted, quote=bad))
    assert crowd.state.jobs[job].seats[0].stage is Stage.DROPPED


def test_a_lease_on_other_terms_is_not_opened() -> None:
    crowd = Crowd(honest_crowd(1))
    crowd.submit(batch_spec(workers=1, verify="none"))
    crowd.tell(crowd.queue.pop())
    crowd.tell(crowd.queue.pop())
    signed = crowd.queue.pop()
    assert isinstance(signed, t.PeerSigned)
    greedy = msgspec.structs.replace(signed.terms, cap_ucr=signed.terms.cap_ucr + 1)
    assert crowd.tell(msgspec.structs.replace(signed, terms=greedy)) == []


def test_silent_negotiations_end_and_others_are_asked() -> None:
    mute = Provider("mute", price=1)
    crowd = Crowd([mute, *honest_crowd(3)], away={"mute"})
    crowd.away = set()
    job = crowd.submit(batch_spec(workers=1, verify="none"))
    crowd.tell(crowd.queue.pop())
    crowd.queue = [e for e in crowd.queue if not (isinstance(e, t.PeerQuoted) and e.quote.provider == mute.account)]
    crowd.run()
    assert not crowd.escrow
    crowd.pass_time(25_000)
    assert ended(crowd, job) == ""
    assert len(crowd.escrow) == 1


def test_a_lease_that_nears_its_end_is_replaced() -> None:
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(lane_spec())
    crowd.run()
    first = set(crowd.leases)
    crowd.pass_time(3_300_000)
    crowd.pass_time(6_000)
    seats = crowd.state.jobs[job].seats
    assert {seat.mark for seat in seats if seat.lease in first} == {Mark.FULL}
    assert all(crowd.escrow[lease] == "closed" for lease in first)
    assert sum(seat.usable for seat in seats) == 3


def test_a_lease_of_a_banned_account_gets_no_work() -> None:
    crowd = Crowd(honest_crowd(1))
    crowd.submit(batch_spec(workers=1, verify="none"))
    crowd.run(until=lambda: bool(crowd.escrow))
    crowd.state.standings[crowd.providers[0].account] = crowd.state.standing(b"")._replace(banned=True)
    crowd.run()
    assert not crowd.of(t.Assign)


def test_without_money_for_one_more_task_nobody_is_leased() -> None:
    """A quote may be dearer than the offer was; when nothing is left for it the job says so."""
    crowd = Crowd([Provider("p", price=1_000)])
    job = crowd.submit(batch_spec(tasks=1, budget=10, verify="none"))
    crowd.run()
    assert ended(crowd, job) == ""
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(batch_spec(tasks=3, budget=31, workers=3, verify="none"))
    crowd.run()
    for _ in range(10):
        crowd.pass_time(6_000)
    assert ended(crowd, job) == ""
    assert sum(crowd.vouchers.values()) == 30


FULL = Shortfall("ram_bytes", 8, 2, IN_USE)
UNFIT = Shortfall("ram_bytes", 8, 2, TOO_SMALL)


@pytest.mark.parametrize("lacks", [(), (FULL,), (FULL, Shortfall("owner is active", 0, 0))])
def test_who_has_no_room_just_now_is_asked_again_before_patience_ends(lacks: tuple[Shortfall, ...]) -> None:
    crowd = Crowd([Provider("p", declines=True, lacks=lacks)])
    job = crowd.submit(batch_spec(workers=1, verify="none"))
    crowd.run()
    for _ in range(18):
        crowd.pass_time(1_000)
    assert 2 <= len(crowd.of(t.AskQuote)) <= 4
    crowd.providers[0].declines = False
    for _ in range(11):
        crowd.pass_time(1_000)
    assert crowd.escrow
    assert not ended(crowd, job) or crowd.outcome(job).code == ""


def test_waiting_for_room_grows_longer_once_the_job_runs() -> None:
    crowd = Crowd([*honest_crowd(1), Provider("full", declines=True, lacks=(FULL,))])
    crowd.submit(lane_spec(replicas=2, verify="none"))
    crowd.run()
    for _ in range(400):
        crowd.pass_time(1_000)
    asked = [effect for effect in crowd.of(t.AskQuote) if crowd.by_node(effect.peer.node).name == "full"]
    assert 6 <= len(asked) <= 12


def test_who_does_not_fit_is_left_alone_for_a_minute() -> None:
    crowd = Crowd([*honest_crowd(1), Provider("small", declines=True, lacks=(FULL, UNFIT))])
    crowd.submit(lane_spec(replicas=2, verify="none"))
    crowd.run()
    for _ in range(59):
        crowd.pass_time(1_000)
    small = [effect for effect in crowd.of(t.AskQuote) if crowd.by_node(effect.peer.node).name == "small"]
    assert len(small) == 1
