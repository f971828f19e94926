"""What of a job stays in the store: all while it runs, its results after it, nothing once nobody sees it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.node.steward.steward_net import batch, office

from fallow.adapters.blobs_disk import DiskBlobs
from fallow.errors import UnavailableError
from fallow.node.folders import import_path, with_files
from fallow.node.steward.blobs import IMPORTED, forget, job_owner, keep_results, take_inputs
from fallow.rules.steward.events import JobEnded
from fallow.units import MIB, BlobId
from fallow.wire import local
from fallow.wire.local import BatchJob, LaneJob, ServeJob, TrainJob
from fallow.wire.tasks import Part, Recipe, TaskOutput

JOB, OTHER = b"j" * 32, b"o" * 32


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[DiskBlobs]:
    found = DiskBlobs(tmp_path / "blobs", 16 * MIB)
    yield found
    found.close()


def fill(blobs: DiskBlobs, names: str) -> dict[str, BlobId]:
    """A blob of 4 MiB of each letter, pinned for the running job."""
    made = {name: blobs.put(name.encode() * (4 * MIB)) for name in names}
    for blob in made.values():
        blobs.pin(blob, job_owner(JOB))
    return made


def ended(*blobs: BlobId) -> JobEnded:
    parts = tuple(Part(f"adapter/{n}", blob, 4 * MIB) for n, blob in enumerate(blobs))
    return JobEnded(JOB, "", "", (None, TaskOutput(b"", parts)))


def test_results_alone_outlive_a_job(blobs: DiskBlobs) -> None:
    made = fill(blobs, "updates!"[:4])
    with pytest.raises(UnavailableError):
        blobs.put(b"there is no room while the job runs")
    for _ in range(2):
        keep_results(blobs, ended(made["u"], made["d"], BlobId(b"never here".ljust(32))))
    blobs.put(b"x" * (8 * MIB))
    assert {name: blobs.has(blob) for name, blob in made.items()} == {"u": True, "p": False, "d": True, "a": False}
    with pytest.raises(UnavailableError):
        blobs.put(b"y" * (12 * MIB))


def test_what_another_job_needs_stays(blobs: DiskBlobs) -> None:
    (blob,) = fill(blobs, "a").values()
    blobs.pin(blob, job_owner(OTHER))
    keep_results(blobs, ended())
    forget(blobs, [JOB])
    blobs.put(b"x" * (12 * MIB))
    assert blobs.has(blob)


def test_of_a_forgotten_job_nothing_stays(blobs: DiskBlobs) -> None:
    made = fill(blobs, "abcd")
    keep_results(blobs, ended(*made.values()))
    forget(blobs, [OTHER])
    with pytest.raises(UnavailableError):
        blobs.put(b"x")
    forget(blobs, [JOB])
    blobs.put(b"x" * (16 * MIB))


def test_what_the_owner_brought_is_the_jobs_from_then_on(blobs: DiskBlobs, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in "ab":
        (folder / name).write_bytes(name.encode() * (4 * MIB))
    tree = import_path(blobs, folder, IMPORTED).tree
    files = with_files(blobs, tree)[1:]
    assert len(files) == 2
    adapter = blobs.put(b"no tree")
    blobs.pin(adapter, IMPORTED)
    take_inputs(blobs, JOB, ServeJob("m", tree, adapter, 1, 0))
    blobs.unpin_all(IMPORTED)
    with pytest.raises(UnavailableError):
        blobs.put(b"x" * (12 * MIB))
    keep_results(blobs, ended())
    blobs.put(b"x" * (16 * MIB))
    assert not any(map(blobs.has, (tree, *files, adapter)))


def test_what_no_job_has_taken_stays_and_what_is_not_here_is_left_to_the_providers(blobs: DiskBlobs) -> None:
    kept = blobs.put(b"k" * (8 * MIB))
    blobs.pin(kept, IMPORTED)
    away = Part("data", b"elsewhere".ljust(32), 9)
    take_inputs(blobs, JOB, BatchJob("spin", (b"1",), (away,), 1))
    take_inputs(blobs, JOB, TrainJob(away.blob, away.blob, Recipe("lora"), 9))
    take_inputs(blobs, JOB, LaneJob("echo", 1))
    with pytest.raises(UnavailableError):
        blobs.put(b"x" * (12 * MIB))
    assert blobs.has(kept)


async def test_a_file_goes_with_its_job(tmp_path: Path) -> None:
    async with asyncio.timeout(40), office(tmp_path) as (desk, _):
        store = desk.services.blobs
        assert isinstance(store, DiskBlobs)
        (tmp_path / "data").write_bytes(b"0123456789")
        imported = await asyncio.to_thread(import_path, store, tmp_path / "data", IMPORTED)
        work = BatchJob("echo", (b"one",), (Part("data", imported.tree, imported.size_bytes),), 1_000)
        assert store._index.collectable() == []
        await desk.link.call(local.SubmitJob(JOB, local.JobSpec(work, 5_000_000, 0, 1, verify="none")))
        assert (await desk.settled(JOB)).phase == "done"
        assert len(store._index.collectable()) == 2


async def test_a_job_that_ends_makes_room(tmp_path: Path) -> None:
    async with asyncio.timeout(40), office(tmp_path) as (desk, _):
        store = desk.services.blobs
        assert isinstance(store, DiskBlobs)
        blob = store.put(b"the state of a round")
        store.pin(blob, job_owner(JOB))
        assert (blob, 20) not in store._index.collectable()
        await desk.steward.submit(JOB, batch(b"one", b"two"))
        assert (await desk.settled(JOB)).phase == "done"
        assert (blob, 20) in store._index.collectable()


async def test_what_no_job_has_taken_goes_when_the_node_starts_again(tmp_path: Path) -> None:
    async with asyncio.timeout(40), office(tmp_path) as (desk, _):
        store = desk.services.blobs
        assert isinstance(store, DiskBlobs)
        blob = store.put(b"a model that nobody trained")
        store.pin(blob, IMPORTED)
        await desk.kill()
        assert store._index.collectable() == []
        await desk.start()
        assert [found for found, _ in store._index.collectable()] == [blob]
