"""Audits that somebody tries to dodge or to buy. Each test says what is tried, what the attacker gained, and what it
cost it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from tests.rules.steward.crowd import (
    Crowd,
    Provider,
    batch_spec,
    exact_spec,
    honest_crowd,
    lane_spec,
    lie,
    of_round,
    train_spec,
)

from fallow.rules.steward import events as t
from fallow.rules.steward.machine import view
from fallow.rules.steward.state import Fate
from fallow.wire.local import JobSpec
from fallow.wire.tasks import Part, TaskOutput, TaskSpec

Answer = Callable[[TaskSpec, TaskOutput], TaskOutput | None]


def settle(crowd: Crowd, times: int = 5) -> None:
    crowd.run()
    for _ in range(times):
        crowd.pass_time(6_000)


def with_update(output: TaskOutput, update: Part) -> TaskOutput:
    parts = tuple(update if part.name == "update" else part for part in output.parts)
    return TaskOutput(output.value, parts)


def copied_update(providers: list[Provider], copier: Provider) -> list[int]:
    """The copier shows the update that another shard of its round gave, as soon as it has seen one; -> the units of
    what it did itself."""
    seen: dict[int, Part] = {}
    worked: list[int] = []

    def honest(spec: TaskSpec, output: TaskOutput) -> TaskOutput:
        seen.update({len(seen): part for part in output.parts if part.name == "update"})
        return output

    def copy(spec: TaskSpec, output: TaskOutput) -> TaskOutput:
        if any(part.name == "update" for part in output.parts) and seen:
            return with_update(output, seen[len(seen) - 1])
        worked.append(spec.units)
        return output

    for provider in providers:
        provider.answer = copy if provider is copier else honest
    return worked


@pytest.mark.parametrize("spec", [train_spec(3, 4, verify="none"), train_spec(3, 4), exact_spec(3, 4)])
def test_a_copied_update_is_refused_at_once_and_the_job_goes_on(spec: JobSpec) -> None:
    """Tried: hand in the update that another shard has just shown, instead of training. Gained: 0. Cost: each copy is
    refused and held against the copier, which gets no more work after a few; the job finishes with all its rounds."""
    providers = honest_crowd(4)
    copier = providers[-1]
    copier.speed = 1_000  # it is preferred wherever it can be
    worked = copied_update(providers, copier)
    crowd = Crowd(providers)
    job = crowd.submit(spec)
    settle(crowd, 200)
    assert crowd.outcome(job).code == ""
    shown = view(crowd.state, job)
    assert shown is not None
    assert [one.updates for one in shown.rounds] == [3, 3, 3, 3, 0]
    runs = [
        run for slot in crowd.state.jobs[job].slots if of_round(slot) for run in slot.runs if run.output is not None
    ]
    final = [
        (part.blob, run.task) for run in runs if run.fate is Fate.FINAL and run.output for part in run.output.parts
    ]
    assert all(blob != other or task == its for blob, task in final for other, its in final)
    assert crowd.paid_to(copier) <= sum(worked)
    told = [note for note in crowd.of(t.Note) if note.node == copier.address.node and "copy" in note.text]
    assert told


def choosy(refused: int, answered: int) -> tuple[Callable[[TaskSpec], str], Answer]:
    """Refuses some tasks, then lies about some, and so on."""
    count = [0]

    def refuses(spec: TaskSpec) -> str:
        count[0] += 1
        return "E1704" if (count[0] - 1) % (refused + answered) < refused else ""

    return refuses, lie()


@pytest.mark.parametrize("refused", [1, 2, 4, 49])
def test_who_refuses_most_tasks_and_lies_about_the_rest_is_caught(refused: int) -> None:
    """Tried: refuse tasks, so that few answers are there to be checked, and lie in these. Gained: 0 for every lie, once
    the account is off probation too. Cost: after four refusals that outnumber its answers the seat is lost, everything
    that it claimed and nobody checked is checked, and the account is charged and banned."""
    providers = honest_crowd(4)
    cheat = providers[0]
    cheat.speed = 1_000
    crowd = Crowd(providers)
    crowd.submit(batch_spec(60, 3), "honest at first")
    settle(crowd, 100)
    assert crowd.state.standings[cheat.account].passed >= 1
    before = crowd.paid_to(cheat)
    cheat.refuses, cheat.answer = choosy(refused, 1)
    job = crowd.submit(batch_spec(60, 3), "and now")
    settle(crowd, 200)
    assert crowd.outcome(job).code == ""
    assert crowd.paid_to(cheat) == before
    results = [output.value for output in crowd.outcome(job).outputs if output is not None]
    lies = {run.output.value for slot in crowd.state.jobs[job].slots for run in slot.runs
            if run.account == cheat.account and run.output is not None}  # fmt: skip
    assert not lies & set(results)
    seat = next(seat for seat in crowd.state.jobs[job].seats if seat.account == cheat.account)
    assert seat.suspect or crowd.state.standings[cheat.account].banned


def test_a_lanes_sample_is_drawn_from_what_is_paid_for() -> None:
    """Tried: on a lane refuse 49 of 50 tasks and lie about one, so that the sample meets refusals. Gained: 0. Cost: the
    sample is of the paid answers alone; batches that are mostly refusals cost the seat."""
    crowd = Crowd(honest_crowd(4))
    job = crowd.submit(lane_spec())
    crowd.run()
    seat = crowd.state.jobs[job].seats[0]
    for number in range(3):
        claim = crowd.lane_claim(seat.lease, number + 1, 1 + 50 * number, 50, 1)
        crowd.lane_bad.add(seat.lease)
        crowd.tell(msgspec.structs.replace(claim, paid=1, refused=49))
    crowd.run()
    first = crowd.of(t.AuditLane)[0]
    assert first.indexes == (0,)
    assert crowd.state.standings[seat.account].banned
    assert crowd.paid_to(crowd.by_node(seat.node)) == 0


def test_a_lane_that_refuses_three_batches_is_given_up_and_all_of_it_checked() -> None:
    """Tried: as above, by an account that is off probation, whose lies no sample meets. Gained: 0. Cost: the seat; its
    unchecked batches are checked in full."""
    crowd = Crowd(honest_crowd(4))
    job = crowd.submit(lane_spec(verify="audit:rate=0"))
    crowd.run()
    seat = crowd.state.jobs[job].seats[0]
    crowd.tell(crowd.lane_claim(seat.lease, 1, 1, 50, 50))
    crowd.run()
    asked = len(crowd.of(t.AuditLane))
    for number in range(1, 4):
        claim = crowd.lane_claim(seat.lease, number + 1, 1 + 50 * number, 50, 5)
        crowd.tell(msgspec.structs.replace(claim, paid=5, refused=45))
        crowd.run()
    assert seat.suspect
    crowd.pass_time(6_000)
    assert [one.indexes for one in crowd.of(t.AuditLane)[asked:]] == [tuple(range(5))] * 3


def test_shards_that_honestly_give_the_same_are_believed_after_a_check() -> None:
    """No attack: data so small that two shards train on the same text give one update. Two accounts say so of the same
    shard, and then it is checked, not refused."""
    same = Part("update", b"u" * 32, 100)
    providers = honest_crowd(6)
    for provider in providers:
        provider.answer = lambda spec, output: with_update(output, same)
    crowd = Crowd(providers)
    job = crowd.submit(train_spec(2, 1))
    settle(crowd, 200)
    assert crowd.outcome(job).code == ""
    assert not crowd.notes("caught")


# whom the buyer asks --------------------------------------------------------------------------------------------------


def colluders(honest: int = 6, cheats: int = 2, price: int = 1_000) -> list[Provider]:
    """Some who tell one lie, and bid a tenth less than all others."""
    crooks = [Provider(f"crook{n}", price=price * 9 // 10, answer=lie("one lie")) for n in range(cheats)]
    return [*crooks, *honest_crowd(honest, price=price)]


def wrong_finals(crowd: Crowd, job: bytes) -> int:
    """Answers of theirs that became final."""
    crooks = {provider.account for provider in crowd.providers if provider.name.startswith("crook")}
    runs = (run for slot in crowd.state.jobs[job].slots for run in slot.runs)
    return sum(run.fate is Fate.FINAL and run.account in crooks for run in runs)


def honest_losses(crowd: Crowd) -> list[str]:
    """Honest providers that were slashed or banned."""
    accounts = {crowd.leases[lease][1].name for lease in crowd.slashed}
    banned = {p.name for p in crowd.providers if crowd.state.standing(p.account).banned}
    return sorted(name for name in accounts | banned if not name.startswith("crook"))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("spec", ["batch", "train", "exact"])
def test_two_colluders_who_bid_less_confirm_nothing_and_convict_nobody(spec: str, workers: int) -> None:
    """Tried: bid a tenth less than six others, so that both are hired, confirm each other's wrong answers and outvote
    the third. Gained: 0 of the answers that became final before (all of them). Cost: stake and account of both; no
    honest provider lost anything. The first auditor is drawn from outside the job's leases, whatever it asks."""
    crowd = Crowd(colluders())
    make = {"batch": batch_spec, "train": train_spec, "exact": exact_spec}[spec]
    job = crowd.submit(make(60, workers) if spec == "batch" else make(workers, 6))
    settle(crowd, 200)
    assert crowd.outcome(job).code == ""
    assert wrong_finals(crowd, job) == 0
    assert honest_losses(crowd) == []
    crooks = [provider for provider in crowd.providers if provider.name.startswith("crook")]
    assert sum(map(crowd.paid_to, crooks)) == 0
    assert any(crowd.state.standing(crook.account).banned for crook in crooks)


def test_an_honest_account_is_not_outvoted_by_those_who_were_hired_for_their_price() -> None:
    """Tried: hired colluders check an honest worker beside them and agree on another answer. Gained: 0. Cost: in doubt
    the task is done again, and nobody is charged for what the hired ones say alone."""
    crowd = Crowd([*colluders(honest=2)])
    job = crowd.submit(batch_spec(20, 3, verify="audit:rate=1"))
    settle(crowd, 200)
    assert wrong_finals(crowd, job) == 0
    assert honest_losses(crowd) == []


def test_auditors_come_in_the_order_of_the_banks_draw_not_of_their_price() -> None:
    """Tried: ask the least of all who are left, to be hired as auditor. Gained: 0: another is hired, whom the bank drew
    first."""
    providers = [*honest_crowd(3, price=500), Provider("crook", price=600), *[Provider(f"q{n}") for n in range(4)]]
    drawn = providers[6].account
    crowd = Crowd(providers, hold={t.Draw})
    job = crowd.submit(batch_spec(6, 3))
    crowd.run()
    for draw in crowd.of(t.Draw):
        crowd.tell(t.AuditorsDrawn(crowd.now_ms, draw.claim_hash, b"s" * 32, (providers[0].account, drawn)))
    crowd.run()
    outside = [seat for seat in crowd.state.jobs[job].seats if seat.outside]
    assert outside[0].account == drawn
    slots = [slot for slot in crowd.state.jobs[job].slots if len(slot.runs) > 1]
    assert slots
    assert all(slot.runs[1].account == drawn for slot in slots)
    assert not any(slot.runs[0].account == drawn for slot in crowd.state.jobs[job].slots if slot.runs)


def test_a_directory_that_shows_nobody_stops_no_check() -> None:
    """Tried: hide all offers from a buyer once it has hired, so that its checks wait for an auditor from outside for
    ever. Gained: 0. Its own leases check each other, and nobody is looked for all the time."""
    crowd = Crowd(honest_crowd(6))
    job = crowd.submit(batch_spec(30, 3))
    crowd.run(lambda: len(crowd.leases) >= 3)
    crowd.hold.add(t.FindOffers)
    searches = len(crowd.of(t.FindOffers))
    for _ in range(50):
        crowd.pass_time(1_000)
        if len(crowd.of(t.FindOffers)) > searches:
            searches = len(crowd.of(t.FindOffers))
            crowd.tell(t.OffersGathered(crowd.now_ms, job, ()))
            crowd.run()
    assert crowd.outcome(job).code == ""
    assert searches <= 4


def test_auditors_from_outside_cost_the_job_no_more_than_its_budget_allows() -> None:
    """No attack: with a budget that is just enough, work comes before auditors from outside."""
    crowd = Crowd(honest_crowd(8))
    job = crowd.submit(batch_spec(30, 3, budget=420))
    settle(crowd, 200)
    assert crowd.outcome(job).code == ""
    assert sum(crowd.vouchers.values()) <= 420


def test_who_came_to_check_does_the_work_when_nobody_else_is_left() -> None:
    """Tried: be all that a job hired, and be banned, so that the job waits for ever beside an honest auditor that was
    drawn from outside, and gets no work. Gained: 0; the auditor takes it. Cost: three accounts."""
    crooks = [Provider(f"crook{n}", price=900, answer=lie("one lie")) for n in range(3)]
    crowd = Crowd([*crooks, *honest_crowd(1)], machine=lambda spec, honest: honest)
    job = crowd.submit(batch_spec(20, 3, verify="audit:rate=1"))
    settle(crowd, 60)
    assert crowd.outcome(job).code == ""
    assert wrong_finals(crowd, job) == 0
    assert honest_losses(crowd) == []
    assert all(crowd.state.standing(crook.account).banned for crook in crooks)
