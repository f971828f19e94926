"""Every form that the wire knows has a shape."""

from __future__ import annotations

from fallow.rules.steward.shapes.registry import SHAPES, shape_of
from fallow.wire import local
from fallow.wire.local import BatchJob, JobSpec, LaneJob, ServeJob, TrainJob, Work
from fallow.wire.tasks import Part, Recipe

SAMPLES: dict[type[Work], Work] = {
    TrainJob: TrainJob(b"m" * 32, b"d" * 32, Recipe("lora", rounds=2), 100),
    BatchJob: BatchJob("echo", (b"1", b"2"), (Part("x", b"i" * 32, 1),), 5),
    ServeJob: ServeJob("name", b"m" * 32, b"", 2, 100),
    LaneJob: LaneJob("echo", 3),
}
INPUTS: dict[type[Work], list[bytes]] = {
    TrainJob: [b"m" * 32, b"d" * 32], BatchJob: [b"i" * 32], ServeJob: [b"m" * 32], LaneJob: [],
}  # fmt: skip


def test_no_form_is_missing() -> None:
    ours = {form for form in Work.__subclasses__() if form.__module__ == local.__name__}
    assert ours == set(SAMPLES) <= set(SHAPES)
    names = [shape.name for shape in SHAPES.values()]
    assert len(set(names)) == len(names)


def test_each_answers_for_a_job_as_it_is_wanted() -> None:
    for form, work in SAMPLES.items():
        shape, spec = shape_of(work), JobSpec(work, 1_000, 0, 2)
        assert shape.refuse(spec) == ""
        assert list(shape.inputs(work)) == INPUTS[form]
        volume = shape.volume(spec)
        assert volume.open_ended == shape.on_lanes
        assert 0 < volume.largest <= volume.units
        assert shape.seats(spec) == (3 if form is LaneJob else 2)


def test_volumes() -> None:
    volumes = {form: shape_of(work).volume(JobSpec(work, 1, 0, 2)) for form, work in SAMPLES.items()}
    assert volumes[BatchJob] == (2, 10, 5, False, 0)
    recipe = Recipe("lora", rounds=2)
    step = recipe.inner_steps * recipe.batch_sequences * recipe.sequence_tokens
    finish = recipe.holdout_sequences * recipe.sequence_tokens
    units = 2 * (2 * step + finish) + finish
    assert volumes[TrainJob] == (2 * 2 + 1, units, step + finish, False, 1)
    assert volumes[ServeJob] == (1, 100, 100, True, 0)
    assert volumes[LaneJob] == (1, 1, 1, True, 0)
    generate = LaneJob("generate", 1)
    assert shape_of(generate).volume(JobSpec(generate, 1, 0, 1)).units == 2_048
