"""Task specs."""

from __future__ import annotations

import msgspec
from tests.rules.steward.crowd import Crowd, honest_crowd, honest_output, train_spec, word

from fallow.kinds.registry import kind_named
from fallow.kinds.train.tasks import TrainFinish, TrainValue
from fallow.rules.steward import events as t
from fallow.rules.steward.shapes.round_tasks import train_work
from fallow.rules.steward.specs import part_named, well_formed
from fallow.rules.steward.state import Job, Run, Slot
from fallow.units import GIB
from fallow.wire import codec
from fallow.wire.local import JobSpec, ModelSize
from fallow.wire.tasks import Part, TaskOutput


def training() -> tuple[Crowd, Job]:
    crowd = Crowd(honest_crowd(3), hold={t.Assign})
    job = crowd.submit(train_spec())
    crowd.run()
    return crowd, crowd.state.jobs[job]


def run(slot: Slot, output: TaskOutput | None) -> Run:
    return Run(0, b"a" * 20, slot.task, slot.spec, 0, output=output)


def test_what_a_training_claim_must_have() -> None:
    _, job = training()
    slot = job.slots[0]
    honest = honest_output(slot.spec)
    assert well_formed(job, slot, run(slot, honest))
    assert not well_formed(job, slot, run(slot, None))
    assert not well_formed(job, slot, run(slot, TaskOutput(honest.value, ())))
    assert not well_formed(job, slot, run(slot, TaskOutput(b"\xc1", honest.parts)))
    finish = codec.encode(TrainFinish(train_work(job).recipe, ()))
    slot.spec = msgspec.structs.replace(slot.spec, params=finish)
    assert well_formed(job, slot, run(slot, TaskOutput(codec.encode(TrainValue(word("s"), "", 1)), ())))
    assert not well_formed(job, slot, run(slot, TaskOutput(b"", ())))


def test_reading_outputs() -> None:
    part = Part("update", word("u"), 1)
    assert part_named(TaskOutput(b"", (part,)), "update") == part
    assert part_named(TaskOutput(b"", (part,)), "carry") is None


SIZE = ModelSize(8 * GIB, GIB, 10_000, 30, 1_024, 4_096, 50_000, 1_024, 16)


def sized(size: ModelSize) -> JobSpec:
    spec = train_spec(workers=2)
    return msgspec.structs.replace(spec, work=msgspec.structs.replace(spec.work, size=size))  # pyright: ignore[reportArgumentType]


def test_orders_tasks_and_leases_follow_the_models_size() -> None:
    crowd = Crowd(honest_crowd(3), hold={t.Assign})
    job = crowd.state.jobs[crowd.submit(sized(SIZE))]
    crowd.run()
    need = kind_named("train").ram_bytes(job.spec.work)
    assert need > 4 * GIB
    assert {effect.order.ram_bytes for effect in crowd.of(t.AskQuote)} == {need}
    assert {effect.spec.ram_bytes for effect in crowd.of(t.Assign)} == {need}
    longest_ms = 1_000 * max(effect.spec.timeout_s for effect in crowd.of(t.Assign))
    assert all(effect.order.ends_ms - crowd.now_ms >= 2 * longest_ms for effect in crowd.of(t.AskQuote))


def test_a_machine_that_cannot_hold_the_model_is_not_asked_and_why_is_said() -> None:
    crowd = Crowd(honest_crowd(2))
    job = crowd.submit(sized(msgspec.structs.replace(SIZE, parameters=100 * GIB)))
    crowd.run()
    crowd.pass_time(60_000)
    assert not crowd.of(t.AskQuote)
    assert crowd.outcome(job).code == "E1202"
    assert "ram_bytes" in crowd.outcome(job).what


def test_who_says_that_a_model_is_small_pays_nobody_and_gets_nothing() -> None:
    """Its tasks run out of the memory that was asked for, wherever they go."""
    crowd = Crowd(honest_crowd(3, fails="E1704"))
    job = crowd.submit(sized(msgspec.structs.replace(SIZE, parameters=1)))
    crowd.run()
    for _ in range(60):
        crowd.pass_time(60_000)
    assert crowd.outcome(job).code == "E1403"
    assert not crowd.of(t.KeepReceipt)
    assert all(crowd.paid_to(provider) == 0 for provider in crowd.providers)
