"""Buyers who have work done and do not pay for it. Each test says what is tried, what the attacker gained, and what it
cost it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.node.lanes.lane_stage import JOB, SERVE, Player, generate, lane_stage
from tests.rules.provider.provider_play import ANNA, EVE, EVE_NODE, Play, kinds, order, spec
from tests.rules.steward.crowd import Crowd, Provider, batch_spec, honest_crowd, lane_spec, lie

from fallow.kinds.generate.tasks import GenerateValue
from fallow.rules.provider import events as t
from fallow.rules.provider.money import allowance_units, unpaid_ucr
from fallow.rules.steward import events as s
from fallow.rules.steward.checks import standing
from fallow.sdk.lanes import AsyncLane
from fallow.wire.codec import encode
from fallow.wire.messages import LaneResult, LaneTask, Message

TIGHT = t.ProviderPolicy(credit_ucr=40, debt_ucr=40)


def work_unpaid(play: Play, lease: bytes, tasks: int = 30) -> int:
    """Have as many tasks done as the provider does without pay; -> what it is owed."""
    for number in range(tasks):
        play.assign(lease, spec(number))
    for number in range(tasks):
        play.finish(lease, spec(number))
    return unpaid_ucr(play.state.leases[lease])


@pytest.mark.parametrize("cap_ucr", [1_000, 1_000_000, 1_000_000_000])
def test_work_ahead_of_pay_is_bounded_by_the_providers_own_figure(cap_ucr: int) -> None:
    """Tried: sign for a large cap and pay nothing, since half of a cap was worked for on trust. Gained: the provider's
    credit and no more, whatever the cap. Cost: the account gets no more work here."""
    play = Play(policy=TIGHT)
    lease = play.open(cap_ucr=cap_ucr)
    assert work_unpaid(play, lease) == 40


def test_a_task_dearer_than_the_credit_is_the_most_that_is_lost() -> None:
    """Tried: one task that costs more than the credit, then another. Gained: that one task."""
    play = Play(policy=TIGHT)
    lease = play.open()
    for number in (1, 2):
        play.assign(lease, spec(number, units=500))
    assert kinds(play.finish(lease, spec(1, units=500))) == ["SignClaim"]
    assert unpaid_ucr(play.state.leases[lease]) == 500
    assert kinds(play.pay(lease, 500)) == ["ReplyOk", "StartTask"]


def test_a_lane_answers_no_more_than_the_credit_ahead_of_pay() -> None:
    """Tried: the same on a lane. Gained: the credit."""
    play = Play(policy=TIGHT)
    lease = play.open()
    assert allowance_units(play.state, lease) == 40
    play.put(t.LaneAnswered, lease, 1, 4, 38, b"r" * 32)
    assert allowance_units(play.state, lease) == 2
    play.put(t.LaneAnswered, lease, 5, 1, 2, b"r" * 32)
    assert allowance_units(play.state, lease) == 0


def close(play: Play, lease: bytes, paid_ucr: int, slashed_ucr: int = 0) -> list:
    """The requester lets the lease end; the bank says what it paid."""
    effects = play.put(t.LedgerClosed, lease)
    if t.CheckEscrow(lease) in effects:
        play.put(t.LedgerClosed, lease, paid_ucr, slashed_ucr)
    return effects


def test_an_account_that_left_work_unpaid_gets_no_more_quotes() -> None:
    """Tried: have a credit's worth of work done, close, begin anew. Gained: one credit's worth. Cost: the account is of
    no use with this provider any more; others' orders are quoted as before, and a restart forgets nothing."""
    play = Play(policy=TIGHT)
    for nonce in (1, 2):
        lease = play.open(nonce)
        work_unpaid(play, lease)
        close(play, lease, 0)
    assert play.state.debts == {ANNA: 80}
    (row,) = play.quote(order(3)).shortfalls
    assert (row.resource, row.have) == ("debt_ucr", 80)
    assert "E1207" in row.note
    assert isinstance(play.quote(order(3, requester=EVE, node=EVE_NODE)), t.ReplyQuote)
    assert play.replayed()[0] == play.state


def test_the_banks_last_word_decides_what_was_left_unpaid_and_is_asked_for_until_it_comes() -> None:
    """Who paid at the bank itself owes nothing; nor does the buyer of a lie for which we were slashed."""
    play = Play(policy=TIGHT)
    for nonce, said in ((1, (40, 0)), (2, (0, 10))):
        lease = play.open(nonce)
        work_unpaid(play, lease)
        assert t.CheckEscrow(lease) in play.put(t.LedgerClosed, lease)
        assert play.outstanding() == [t.CheckEscrow(lease)]
        play.put(t.LedgerClosed, lease, *said)
        assert play.outstanding() == []
        play.put(t.LedgerClosed, lease, 0)
        assert play.state.debts == {}
    lease = play.open(3)
    play.assign(lease, spec(1))
    play.finish(lease, spec(1))
    play.pay(lease, 10)
    assert play.put(t.LedgerClosed, lease)[-1:] != [t.CheckEscrow(lease)]


# the buyer's side: who pays as the work is done must not starve -------------------------------------------------------


def most_unpaid(crowd: Crowd, provider: Provider) -> int:
    """What the provider's claims are worth beyond its vouchers, over its leases."""
    seats = (seat for job in crowd.state.jobs.values() for seat in job.seats if seat.account == provider.account)
    return max(
        (seat.units_claimed * seat.money.price_ucr // 1000 - seat.money.voucher_ucr for seat in seats), default=0
    )


def test_vouchers_keep_up_with_claims_at_few_more_checks() -> None:
    """No attack: a provider with the usual credit does a long job of small tasks. It is never behind by its credit, and
    the checks that this takes are few."""
    crowd = Crowd(honest_crowd(3, price=100_000))  # a task is 1,000 ucr
    behind: list[int] = []
    crowd.check = lambda c: behind.append(max(most_unpaid(c, p) for p in c.providers))
    job = crowd.submit(batch_spec(600, 3, budget=10**9))
    crowd.run()
    assert max(behind) < t.ProviderPolicy().credit_ucr
    for _ in range(5):
        crowd.pass_time(6_000)
    assert crowd.outcome(job).code == ""
    assert crowd.executions < 600 * 1.25


def test_where_nobody_can_check_what_is_claimed_is_paid_as_at_the_end_of_a_job() -> None:
    """Else a lone provider would wait for ever for a check that nobody can make."""
    crowd = Crowd(honest_crowd(1, price=100_000))
    job = crowd.submit(batch_spec(200, 1, budget=10**9))
    behind: list[int] = []
    crowd.check = lambda c: behind.append(most_unpaid(c, c.providers[0]))
    crowd.run()
    for _ in range(40):
        crowd.pass_time(10_000)
    assert crowd.outcome(job).code == ""
    assert max(behind) < t.ProviderPolicy().credit_ucr


def test_a_cheat_that_waits_for_pay_is_checked_for_it() -> None:
    """Tried: pass probation, then lie in all that no sample meets (here: none are sampled). Gained: 0 where before the
    last check of a job was the first. Cost: the stake, as soon as half a credit's worth waits for pay."""
    providers = honest_crowd(3, price=100_000)
    cheat = providers[0]
    done = [0]

    def later(spec, honest):
        done[0] += 1
        return honest if done[0] < 3 else lie()(spec, honest)

    cheat.answer = later
    crowd = Crowd(providers)
    job = crowd.submit(batch_spec(300, 3, budget=10**9, verify="audit:rate=0"))
    crowd.run(lambda: crowd.state.standings.get(cheat.account, standing.trust.Standing()).banned)
    claimed = [run for slot in crowd.state.jobs[job].slots for run in slot.runs if run.account == cheat.account]
    assert len(claimed) < 60
    for _ in range(20):
        crowd.pass_time(6_000)
    assert crowd.outcome(job).code == ""
    assert crowd.paid_to(cheat) <= 3 * 1_000


def test_batches_of_a_lane_are_paid_in_time_too() -> None:
    """No attack: lanes, where batches wait for the window."""
    crowd = Crowd(honest_crowd(2, price=1_000))
    job = crowd.submit(lane_spec(verify="audit:rate=0", budget=10**9))
    crowd.run()
    seat = crowd.state.jobs[job].seats[0]
    for number in range(40):
        crowd.tell(crowd.lane_claim(seat.lease, number + 1, 1 + 10 * number, 10, 5_000))
        crowd.run()
        assert seat.units_claimed - seat.money.voucher_ucr < t.ProviderPolicy().credit_ucr
    assert len(crowd.of(s.AuditLane)) <= 1 + 40 * 5_000 // standing.PAY_FROM_UCR


async def test_an_answer_is_paid_for_what_its_buyer_can_count(tmp_path: Path) -> None:
    """Tried: with an engine that nobody checks, say two letters and meter all the tokens that were allowed. Gained: at
    most a token for each byte that was asked and answered, and a few. Cost: none; it is signed for, and cut."""

    async def runs_the_meter(_player: Player, task: LaneTask) -> AsyncIterator[Message]:
        yield LaneResult(task.number, encode(GenerateValue("no", "stop", 7, 5_000)), 5_007)

    async with lane_stage(tmp_path) as stage:
        player = await stage.ready(await stage.player("rita", SERVE, runs_the_meter))
        params = generate(5_000)
        async with AsyncLane(stage.link, JOB) as lane:
            await lane.run(params)
        await stage.claim(player, player.root())
        event = await stage.told.wait(s.PeerClaimedBatch)
        assert player.root().units == 5_007
        assert event.units <= len(params) + 2 * 64 + len("no") + 16
