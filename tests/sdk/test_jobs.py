from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sdk.fake_node import JOB, NOTES, RECEIPT, FakeNode, job_view, running

from fallow.errors import FallowError
from fallow.sdk import jobs
from fallow.sdk.client import AsyncFallow
from fallow.sdk.jobs import AsyncJob
from fallow.wire import local


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    with running(tmp_path / "home") as fake:
        yield fake


@pytest.fixture
def job(node: FakeNode, tmp_path: Path) -> AsyncJob:
    return AsyncJob(AsyncFallow(tmp_path / "home"), JOB)


async def test_watching_gives_every_note_in_order(job: AsyncJob) -> None:
    assert [note async for note in job.watch()] == list(NOTES)
    assert [note async for note in job.watch(2)] == list(NOTES[2:])


async def test_watching_goes_on_after_the_node_broke_off_without_repeating_a_note(
    node: FakeNode, job: AsyncJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "RECONNECT_EVERY_S", 0)
    node.watch_breaks = 1
    assert [note async for note in job.watch()] == list(NOTES)
    assert [request.after for request in node.requests(local.WatchJob)] == [0, 2]


async def test_watching_gives_up_when_the_node_stays_away(
    node: FakeNode, job: AsyncJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "RECONNECT_EVERY_S", 0)
    monkeypatch.setattr(jobs, "RECONNECT_TRIES", 0)
    node.watch_breaks = 1
    with pytest.raises(FallowError) as caught:
        _ = [note async for note in job.watch()]
    assert caught.value.code == "E1801"


async def test_an_unknown_job_is_not_waited_for(node: FakeNode, job: AsyncJob) -> None:
    del node.jobs[JOB]
    with pytest.raises(FallowError) as caught:
        await job.wait()
    assert caught.value.code == "E2002"


async def test_waiting_gives_the_final_view(job: AsyncJob) -> None:
    assert (await job.wait()).phase == "done"


@pytest.mark.parametrize(
    ("phase", "failure_code", "code"),
    [("failed", "E1404", "E1404"), ("failed", "", "E1403"), ("cancelled", "", "E1402")],
)
async def test_a_job_that_did_not_end_well_raises_and_says_what_was_paid(
    node: FakeNode, job: AsyncJob, phase: str, failure_code: str, code: str
) -> None:
    node.jobs[JOB] = job_view(phase=phase, failure_code=failure_code, failure="because", spent_ucr=1_500_000)
    with pytest.raises(FallowError) as caught:
        await job.wait()
    assert caught.value.code == code
    assert "1.50 cr" in caught.value.money


async def test_results_receipts_and_saving(job: AsyncJob, tmp_path: Path) -> None:
    await job.save(tmp_path / "out")
    assert (tmp_path / "out" / "adapter_config.json").exists()
    assert await job.receipts() == (RECEIPT,)


async def test_a_job_without_a_folder_cannot_be_saved(node: FakeNode, job: AsyncJob, tmp_path: Path) -> None:
    node.tree = b""
    with pytest.raises(FallowError) as caught:
        await job.save(tmp_path / "out")
    assert caught.value.code == "E1403"
    assert not (tmp_path / "out").exists()


async def test_cancel(node: FakeNode, job: AsyncJob) -> None:
    await job.cancel()
    assert (await job.view()).phase == "cancelled"
    assert node.requests(local.CancelJob) == [local.CancelJob(JOB)]
