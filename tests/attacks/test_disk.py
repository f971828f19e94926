"""Disks: a requester's inputs on a provider, a provider's outputs at the buyer."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.node.provider.test_work import rig
from tests.rules.steward.crowd import Crowd, Provider, batch_spec, honest_crowd, train_spec, word

from fallow.kinds.kind import GRAIN_BYTES
from fallow.kinds.train.kind import UNMEASURED_BYTES
from fallow.node.provider.work import FREE_PART
from fallow.rules.provider.events import WorkerFailedTask, WorkerFinished
from fallow.rules.steward import events as t
from fallow.units import MIB, BlobId
from fallow.wire.local import JobSpec
from fallow.wire.tasks import Part, TaskOutput

SOLD = 64 * MIB
FREE = SOLD // FREE_PART


async def test_an_order_without_disk_does_not_pin_a_store(tmp_path: Path) -> None:
    """A requester orders no disk space, and gives tasks with inputs of 3 MiB each, five times as much as it may have.
    Gained: a part of what is sold, for inputs of the task at hand; those of former tasks are given up."""
    async with rig(tmp_path, disk_bytes=SOLD) as r:
        blobs, given = r.work._b.services.blobs, list[BlobId]()
        for number in range(5 * FREE // (3 * MIB)):
            blob = r.source.blobs.put(bytes([number]) * (3 * MIB))
            given.append(BlobId(blob))
            assert isinstance(await r.do(f"work {number}", Part("data", blob, 3 * MIB)), WorkerFinished)
        held = sum(size for size in r.work._taken.values())
        assert held <= FREE + 3 * MIB
        on_disk = sum(path.stat().st_size for path in (r.work.folder / "in").rglob("*") if path.is_file())
        assert on_disk <= FREE + 3 * MIB
        assert blobs.has(given[-1])


@pytest.mark.parametrize("declared", [0, 5, 1 << 40])
async def test_what_a_task_declares_of_its_inputs_does_not_count(tmp_path: Path, declared: int) -> None:
    """Four inputs that each fit, and together do not, whatever sizes the task gives for them. Gained: 0; E1604."""
    async with rig(tmp_path, disk_bytes=SOLD) as r:
        size = FREE // 4 + 1
        parts = [Part(f"d{n}", r.source.blobs.put(bytes([n]) * size), declared) for n in range(4)]
        failed = await r.do("work", *parts)
        assert isinstance(failed, WorkerFailedTask)
        assert failed.code == "E1604"
        assert isinstance(await r.do("work", *parts[:3]), WorkerFinished)


async def test_wishes_are_bounded_by_what_was_ordered(tmp_path: Path) -> None:
    """A requester has 40 blobs fetched ahead that no task uses. Gained: what its order covers."""
    async with rig(tmp_path, disk_bytes=SOLD) as r:
        parts = [Part("x", r.source.blobs.put(bytes([n]) * MIB), MIB) for n in range(40)]
        r.work.prefetch(tuple(parts), (r.source.rpc.address(),))
        assert isinstance(await r.do("work"), WorkerFinished)
        assert sum(r.work._taken.values()) <= FREE


async def test_an_output_beyond_the_order_fails_its_task(tmp_path: Path) -> None:
    """A task that writes more than was ordered. Gained: 0; E1604 and the files are gone."""
    async with rig(tmp_path, disk_bytes=SOLD) as r:
        part = Part("data", r.source.blobs.put(bytes(MIB)), MIB)
        failed = await r.do(f"round {FREE + 1}", part)
        assert isinstance(failed, WorkerFailedTask)
        assert failed.code == "E1604"
        assert not list(r.work.folder.glob("out-*"))


@pytest.mark.parametrize(
    ("spec", "most_bytes"), [(batch_spec(4, workers=3), GRAIN_BYTES), (train_spec(workers=3), UNMEASURED_BYTES)]
)
def test_a_false_output_does_not_fill_the_buyers_store(spec: JobSpec, most_bytes: int) -> None:
    """A provider claims an output with a file larger than any answer of that kind. Gained: 0 bytes of the buyer's disk
    and 0 credits; the claim is malformed, others do the work."""
    huge = Part("update", word("huge"), most_bytes + 1)
    glutton = Provider("glutton", answer=lambda _spec, honest: TaskOutput(honest.value, (huge, *honest.parts)), price=1)
    crowd = Crowd([glutton, *honest_crowd(3)])
    job = crowd.submit(spec)
    crowd.run()
    for _ in range(3):
        crowd.pass_time(6_000)
    assert crowd.outcome(job).code == ""
    assert crowd.paid_to(glutton) == 0
    assert all(effect.part.blob != huge.blob for effect in crowd.of(t.KeepBlob))
