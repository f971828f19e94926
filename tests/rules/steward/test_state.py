"""The state is a value."""

from __future__ import annotations

import msgspec
from tests.rules.steward.crowd import Crowd, batch_spec, honest_crowd, lane_spec, train_spec, word

from fallow.rules.steward.state import Hiring, Job, Stage, State, Turn
from fallow.rules.trust import Standing
from fallow.wire.codec import recall


def test_a_state_survives_being_written_down() -> None:
    """A snapshot beside the log may replace its older part."""
    crowd = Crowd(honest_crowd(3))
    crowd.submit(train_spec(), "train")
    crowd.submit(lane_spec(), "lane")
    crowd.run(until=lambda: len(crowd.history) > 40)
    copy = recall(State, msgspec.msgpack.encode(crowd.state))
    assert copy == crowd.state


def test_strangers_have_an_empty_standing() -> None:
    assert State().standing(b"x") == Standing()
    assert State().seat_of(b"x") is None


def test_commitments_follow_a_seats_stage() -> None:
    crowd = Crowd(honest_crowd(1))
    job_id = crowd.submit(batch_spec(1, 1, verify="none"))
    seen: dict[Stage, int] = {}
    while crowd.queue:
        crowd.tell(crowd.queue.pop(0))
        for seat in crowd.state.jobs[job_id].seats:
            seen[seat.stage] = seat.committed_ucr
    cap = crowd.state.jobs[job_id].seats[0].leased.cap_ucr
    assert seen == {
        Stage.ASKING: 0,
        Stage.PROPOSED: cap,
        Stage.OPENING: cap,
        Stage.OPEN: cap,
        Stage.CLOSING: cap,
        Stage.CLOSED: 10,
    }
    job = crowd.state.jobs[job_id]
    assert job.left_ucr() == job.spec.budget_ucr - 10
    assert job.over


def test_notes_are_numbered_bounded_and_warnings_come_once() -> None:
    state = State()
    turn = Turn(state)
    job = Job(word("j"), batch_spec(), 0, "echo", 4, Hiring(0))
    turn.warn_once(job, "a", "x" * 9_000)
    turn.warn_once(job, "a", "again")
    (note,) = turn.effects
    assert (job.told.notes, len(note.text)) == (1, 1_000)  # pyright: ignore[reportAttributeAccessIssue]
