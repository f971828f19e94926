"""Independent tasks."""

from __future__ import annotations

from tests.rules.steward.crowd import Crowd, batch_spec, honest_crowd

from fallow.rules.steward.shapes.registry import shape_of
from fallow.rules.steward.shapes.tasks import task_of
from fallow.wire.local import BatchJob, JobSpec


def test_all_tasks_begin_at_once_and_all_are_results() -> None:
    crowd = Crowd(honest_crowd(2))
    spec = batch_spec(5, verify="none")
    shape = shape_of(spec.work)
    job = crowd.state.jobs[crowd.submit(spec)]
    assert list(shape.outputs(job)) == list(range(5))
    assert shape.progress(job) == (0, 5)
    assert not shape.complete(job)
    crowd.run()
    assert shape.progress(job) == (5, 5)
    assert shape.complete(job)
    assert job.form is None
    assert not job.moved
    assert shape.volume(spec)[:3] == (5, 50, 10)


def test_a_batch_without_tasks_is_refused() -> None:
    spec = JobSpec(BatchJob("echo", (), (), 1), 1, 0, 1)
    assert shape_of(spec.work).refuse(spec) == "a batch without tasks"


def test_batch_tasks() -> None:
    work = batch_spec(3).work
    assert isinstance(work, BatchJob)
    first, second = task_of(work, 0), task_of(work, 1)
    assert (first.params, first.seed, second.seed, first.units, first.kind) == (b"0", 0, 1, 10, "echo")
