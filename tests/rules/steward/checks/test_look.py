"""What an audit remembers, and what of it the machine asks for."""

from __future__ import annotations

import msgspec
from tests.rules.steward.crowd import Crowd, batch_spec, exact_spec, honest_crowd

from fallow.rules.steward.checks.look import Closing, Look, look_at, seen_of
from fallow.rules.steward.slots import begun, drop_check, serves
from fallow.rules.steward.state import CheckState, Step, Turn
from fallow.rules.trust import Reason
from fallow.wire.codec import recall


def test_reading_leaves_no_trace_and_writing_does() -> None:
    crowd = Crowd(honest_crowd(2))
    slot = crowd.state.jobs[crowd.submit(batch_spec(1))].slots[0]
    assert (seen_of(slot), slot.check) == (Look(), None)
    look_at(slot).disputed = True
    assert seen_of(slot) is look_at(slot) is slot.check
    assert slot.check is not None
    assert slot.check.contested()


def test_a_lost_answer_is_forgotten_but_not_what_the_slot_is_for() -> None:
    look = Look(Reason.FORCED, 5, b"s", True, (b"a",), 3, 4, b"e", b"c")
    assert (look.begun(), look.serves(3), look.serves(4), look.serves(5)) == ((3,), True, True, False)
    look.forget()
    assert look == Look(since_ms=5, sample=3, expected=b"e", accused=b"c")
    look.drop()
    assert (look.begun(), look.serves(3)) == ((), False)


def test_a_check_that_is_dropped_has_its_slot_retired() -> None:
    crowd = Crowd(honest_crowd(4))
    job = crowd.state.jobs[crowd.submit(exact_spec(workers=3, rounds=1))]
    crowd.run(until=lambda: any(slot.of is not None for slot in job.slots))
    audit = next(slot for slot in job.slots if slot.of is not None)
    assert audit.of is not None
    about = job.slots[audit.of]
    assert begun(job, about) == [audit]
    assert serves(job, audit)
    drop_check(Turn(crowd.state), job, about)
    assert (audit.retired, serves(job, audit), begun(job, about)) == (True, False, [])
    assert about.step is Step.CHECKING
    assert about.key in job.queue.wanting


def test_it_lies_in_snapshots_as_what_it_is() -> None:
    class Holder(msgspec.Struct):
        check: CheckState | None = None

    for check in (Look(Reason.SAMPLED, called=(b"a",)), Closing(), None):
        assert recall(Holder, msgspec.msgpack.encode(Holder(check))) == Holder(check)


def test_a_check_that_remembers_nothing_is_waited_for_by_nobody() -> None:
    nothing = Closing()
    nothing.drop()
    nothing.forget()
    assert (nothing.begun(), nothing.serves(0), nothing.contested()) == ((), False, False)
