from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.sdk.fake_node import JOB, ME, NOTES, RECEIPT, FakeNode, running

from fallow import connect
from fallow.errors import FallowError
from fallow.sdk.blocking import Fallow, Job, Lane, Portal
from fallow.sdk.client import AsyncFallow
from fallow.sdk.jobs import AsyncJob
from fallow.sdk.lanes import Answer, AsyncLane


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    with running(tmp_path / "home") as fake:
        yield fake


@pytest.fixture
def net(node: FakeNode, tmp_path: Path) -> Iterator[Fallow]:
    with connect(tmp_path / "home") as fallow:
        yield fallow


@pytest.fixture
def portal() -> Iterator[Portal]:
    made = Portal()
    yield made
    made.close()


def public(kind: type[object]) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("sync", "twin", "beneath"),
    [
        (Fallow, AsyncFallow, {"call", "lane"}),  # raw messages; lanes are opened from a job
        (Job, AsyncJob, set[str]()),
        (Lane, AsyncLane, set[str]()),
    ],
)
def test_nothing_asynchronous_is_without_its_synchronous_twin(
    sync: type[object], twin: type[object], beneath: set[str]
) -> None:
    assert public(twin) - public(sync) == beneath
    assert public(sync) - public(twin) <= {"id", "close"}


def test_signatures_and_docstrings_are_those_of_the_twin() -> None:
    assert inspect.signature(Fallow.train) == inspect.signature(AsyncFallow.train)
    assert Fallow.train.__doc__ == AsyncFallow.train.__doc__


def test_calls_and_errors(net: Fallow) -> None:
    assert net.wallet().account == ME
    with pytest.raises(FallowError) as caught:
        net.job("nothing")
    assert caught.value.code == "E2002"


def test_a_job_is_an_object(net: Fallow, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("text")
    job = net.train(tmp_path, tmp_path / "data.txt", budget="1")
    assert isinstance(job, Job)
    assert job.wait().phase == "done"
    assert job.receipts() == (RECEIPT,)
    assert repr(job) == f"<Job {job.text}>"


def test_watching_is_a_plain_loop_that_may_be_left(net: Fallow) -> None:
    job = net.job(JOB)
    assert list(job.watch()) == list(NOTES)
    for note in job.watch():
        assert note == NOTES[0]
        break


def test_watching_raises_what_the_node_raised(node: FakeNode, net: Fallow) -> None:
    job = net.job(JOB)
    del node.jobs[JOB]
    with pytest.raises(FallowError) as caught:
        list(job.watch())
    assert caught.value.code == "E2002"


def test_lanes(net: Fallow) -> None:
    with net.job(JOB).lane() as lane:
        assert lane.run(b"one") == Answer(b"one", 1)
        assert [answer.value for answer in lane.map([b"a", b"b"])] == [b"a", b"b"]
        assert list(lane.stream(b"x")) == [b"x", b"x", b"x", Answer(b"x", 1, RECEIPT)]


def test_without_a_node_a_lane_raises_and_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with (
        pytest.raises(FallowError) as caught,
        connect(tmp_path) as net,
        Job(net.portal, AsyncJob(net.inner, JOB)).lane(),
    ):
        pass
    assert caught.value.code == "E2004"
    assert threading.active_count() == before


def test_closing_twice_is_harmless() -> None:
    portal = Portal()
    portal.close()
    portal.close()


def test_closing_ends_what_still_runs() -> None:
    portal = Portal()
    endings: list[str] = []

    async def forever() -> AsyncGenerator[int, None]:
        try:
            while True:
                yield 1
        finally:
            endings.append("closed")

    items = portal.iterate(forever())
    assert next(items) == 1
    portal.close()
    assert endings == ["closed"]


def test_a_context_is_entered_and_left_by_one_task(portal: Portal) -> None:
    seen: list[object] = []

    @asynccontextmanager
    async def manager() -> AsyncGenerator[str]:
        import asyncio

        seen.append(asyncio.current_task())
        yield "inside"
        seen.append(asyncio.current_task())

    with portal.hold(manager()) as value:
        assert value == "inside"
    assert seen[0] is seen[1]
