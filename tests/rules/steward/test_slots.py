"""Slots keep their counts."""

from __future__ import annotations

from tests.rules.steward.crowd import Crowd, batch_spec, honest_crowd, honest_output

from fallow.rules.steward import events as t
from fallow.rules.steward.slots import add_slot, end_run, reslot, respec, retire, run_of, set_step
from fallow.rules.steward.state import Fate, Job, Step, Turn
from fallow.wire.claims import task_id


def ready(hold: bool = True) -> tuple[Crowd, Job, Turn]:
    crowd = Crowd(honest_crowd(3), hold={t.Assign} if hold else set())
    job = crowd.submit(batch_spec(3, 3, verify="none"))
    crowd.run()
    return crowd, crowd.state.jobs[job], Turn(crowd.state)


def test_a_new_slot_waits_under_an_id_of_its_own() -> None:
    _, job, _ = ready()
    before = job.queue.unusable
    twin = add_slot(job, job.slots[0].spec)
    assert twin.task != job.slots[0].task
    assert twin.task == task_id(twin.spec)
    assert (job.queue.unusable, list(job.queue.waiting)) == (before + 1, [twin.key])
    old = twin.task
    respec(job, twin, twin.spec)
    assert twin.task not in (old, job.slots[0].task)


def test_steps_move_the_counts() -> None:
    _, job, _ = ready()
    slot = job.slots[0]
    for step, unusable, finals in (
        (Step.PROVISIONAL, 2, 0),
        (Step.FINAL, 2, 1),
        (Step.CHECKING, 3, 0),
        (Step.KEEPING, 3, 0),
        (Step.FINAL, 2, 1),
    ):
        set_step(job, slot, step)
        assert (job.queue.unusable, job.queue.finals) == (unusable, finals)
        assert (slot.key in job.queue.checking, slot.key in job.queue.keeping) == (
            step is Step.CHECKING,
            step is Step.KEEPING,
        )


def test_ended_runs_give_their_room_back_once() -> None:
    crowd, job, turn = ready()
    slot = job.slots[0]
    run = slot.runs[0]
    seat = job.seats[run.seat]
    held = seat.money.held_units
    end_run(turn, job, run, cancel=True)
    end_run(turn, job, run, cancel=True)
    assert (seat.money.held_units, len(turn.effects)) == (held - 10, 1)
    assert run.fate is Fate.ENDED
    assert run_of(slot, seat, run.task) is None
    assert crowd.state.claims == {}


def test_retiring_stops_what_runs_and_keeps_what_was_claimed() -> None:
    crowd, job, turn = ready()
    slot = job.slots[0]
    retire(turn, job, slot)
    retire(turn, job, slot)
    assert (slot.step, slot.retired, job.queue.unusable) == (Step.DROPPED, True, 2)
    assert isinstance(turn.effects[0], t.Cancel)
    reslot(turn, job, slot)
    assert slot.step is Step.DROPPED
    assign = next(effect for effect in crowd.of(t.Assign) if effect.task == job.slots[1].task)
    provider = crowd.leases[assign.lease][1]
    crowd.tell(crowd.claim(assign.lease, assign.task, honest_output(assign.spec), provider))
    retire(turn, job, job.slots[1])
    assert (job.queue.finals, job.slots[1].step) == (0, Step.FINAL)
    assert crowd.state.jobs[job.id].seats[job.slots[1].runs[0].seat].money.final_units == 10
