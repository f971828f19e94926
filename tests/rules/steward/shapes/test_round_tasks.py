"""What follows from a training's log."""

from __future__ import annotations

import msgspec
from tests.rules.steward.crowd import Crowd, honest_crowd, honest_output, train_spec

from fallow.rules.steward import events as t
from fallow.rules.steward.shapes.round_tasks import round_spec, told, train_log
from fallow.rules.steward.state import Job, Run
from fallow.wire.tasks import TaskOutput


def training() -> Job:
    crowd = Crowd(honest_crowd(3), hold={t.Assign})
    job = crowd.submit(train_spec())
    crowd.run()
    return crowd.state.jobs[job]


def test_the_first_round_needs_model_and_data_only() -> None:
    job = training()
    spec = round_spec(job, train_log(job).current, 1)
    assert [part.name for part in spec.inputs] == ["model", "data"]
    assert (spec.units, round_spec(job, train_log(job).current, 0).units) == (40, 50)


def test_what_an_answer_tells_of_its_round() -> None:
    job = training()
    slot = job.slots[0]
    run = Run(0, b"a" * 20, slot.task, slot.spec, 0)
    assert told(job, run) is None
    assert told(job, msgspec.structs.replace(run, output=TaskOutput(b"", ()))) is None
    assert told(job, msgspec.structs.replace(run, output=honest_output(slot.spec))) is not None
