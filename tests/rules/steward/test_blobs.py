"""What claims consist of is kept once, and asked of whoever says to have it."""

from __future__ import annotations

from tests.rules.steward.test_claims import claimed

from fallow.rules.steward import events as t
from fallow.rules.steward.blobs import keep, keep_parts, learn_holders, sources_of
from fallow.rules.steward.state import Turn
from fallow.wire.tasks import Part, TaskOutput

PARTS = [Part("update", b"u" * 32, 5), Part("carry", b"c" * 32, 7)]


def test_what_is_not_here_is_asked_for_once() -> None:
    crowd, job, _, _ = claimed()
    turn = Turn(crowd.state)
    assert not keep(turn, job, PARTS, ())
    assert not keep(turn, job, PARTS, ())
    assert [effect.part for effect in turn.effects if isinstance(effect, t.KeepBlob)] == PARTS
    for part in PARTS:
        crowd.tell(t.BlobKept(crowd.now_ms, job.id, part.blob))
    assert keep(turn, job, PARTS, ())


def test_a_state_that_is_large_and_seldom_used_stays_where_it_is() -> None:
    crowd, job, seat, _ = claimed()
    slot, turn = job.slots[0], Turn(crowd.state)
    run = slot.runs[0]
    run.output = TaskOutput(b"", tuple(PARTS))
    assert not keep_parts(turn, job, slot, run)
    (asked,) = [effect for effect in turn.effects if isinstance(effect, t.KeepBlob)]
    assert (asked.part, asked.sources) == (PARTS[0], (seat.peer,))
    assert sources_of(slot, b"another answer") == ()
    learn_holders(job, run)
    assert job.blobs.holders[PARTS[1].blob] == (seat.peer,)
