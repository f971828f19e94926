"""One lease's work with real processes: inputs and outputs as files, and everything that can go wrong in between."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.node.provider.provider_net import Pool, open_pool

from fallow.adapters.runners.process import ProcessRunner
from fallow.errors import FallowError
from fallow.node.folders import import_path
from fallow.node.provider.feed import Feeds
from fallow.node.provider.kept import WorkerShelf
from fallow.node.provider.work import MAX_PREFETCHES, Bench, LeaseWork, checks_owner
from fallow.node.router import Router
from fallow.ports import WorkerLimits
from fallow.rules.provider.events import StartTask, WorkerFailedTask, WorkerFinished
from fallow.units import GIB, MIB, BlobId
from fallow.wire.claims import task_id
from fallow.wire.messages import LogLine
from fallow.wire.tasks import Part, TaskSpec

LEASE = b"l" * 32
WORKER = """
import os, socket, sys, time
from pathlib import Path
from fallow.wire.worker import *
link = socket.socket(fileno=int(sys.argv[-1]))
frames = WorkerFrames("worker")
link.sendall(worker_frame(WorkerReady()))
print("worker is up", flush=True)
while data := link.recv(1 << 20):
    for order in frames.feed(data):
        if isinstance(order, DropTask):
            if os.environ.get("DEAF"): continue
            link.sendall(worker_frame(WorkerFailed(order.task_id, "E1402", "cancelled", False)))
            continue
        act, out = order.task.params.decode(), Path(order.outdir)
        if act == "hang":
            continue
        if act == "die":
            os._exit(5)
        if act == "eat":
            held = [bytearray(1 << 20) for _ in range(600)]; time.sleep(30)
        files = {}
        for name, path in order.inputs.items():
            found = Path(path)
            data = found.read_bytes() if found.is_file() else b"|".join(p.read_bytes() for p in sorted(found.iterdir()))
            (out / name.replace("/", "_")).write_bytes(data.upper())
            files["out/" + name] = str(out / name.replace("/", "_"))
        if act.startswith("round"):
            files = {"update": str(out / "u"), "trace/theta/0000000": str(out / "t")}
            (out / "u").write_bytes(b"update" + act.encode())
            (out / "t").write_bytes(act.encode() + bytes(int(act.split()[-1])))
        if act == "steal":
            files["stolen"] = "/etc/passwd"
        if act == "mumble":
            files["unheard"] = "a\\0b"
        where = ",".join(sorted(order.inputs.values())).encode()
        link.sendall(worker_frame(WorkerDone(order.task_id, where, files, {"ms": 3})))
"""


class Rig:
    """A lease's work, its events, and another node that has blobs."""

    def __init__(self, pool: Pool, work: LeaseWork, source: Any, told: asyncio.Queue[Any]) -> None:
        self.pool, self.work, self.source, self.told = pool, work, source, told

    def start(self, act: str, *parts: Part, timeout_s: int = 30) -> bytes:
        spec = TaskSpec("echo", act.encode(), parts, seed=0, units=1, timeout_s=timeout_s, ram_bytes=0)
        self.work.start(StartTask(LEASE, task_id(spec), spec, (self.source.rpc.address(),)))
        return task_id(spec)

    async def event(self) -> Any:
        async with asyncio.timeout(30):
            return await self.told.get()

    async def do(self, act: str, *parts: Part, timeout_s: int = 30) -> Any:
        self.start(act, *parts, timeout_s=timeout_s)
        return await self.event()


@asynccontextmanager
async def rig(tmp_path: Path, ram_bytes: int = 0, disk_bytes: int = GIB) -> AsyncGenerator[Rig]:
    async with open_pool(tmp_path) as pool:
        services = await pool.services("pat", Router())
        source = await pool.services("anna", Router())
        told: asyncio.Queue[Any] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            folder = tmp_path / "pat" / "work"
            folder.mkdir()
            services.runner = ProcessRunner((sys.executable, "-c", WORKER))
            bench = Bench(services, group, told.put, Feeds(services), folder, 1, disk_bytes, WorkerShelf())
            work = LeaseWork(bench, LEASE, WorkerLimits(ram_bytes=ram_bytes))
            yield Rig(pool, work, source, told)
            await work.stop()
            assert work.pid is None
            assert not work.folder.exists()


async def test_inputs_are_fetched_and_outputs_become_blobs(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        folder = tmp_path / "tree"
        folder.mkdir()
        (folder / "a").write_bytes(b"one")
        (folder / "b").write_bytes(b"two")
        tree = import_path(r.source.blobs, folder).tree
        plain = r.source.blobs.put(b"plain")
        done = await r.do("work", Part("model", tree, 0), Part("update/1", plain, 5))
        assert isinstance(done, WorkerFinished)
        blobs = r.work._b.services.blobs
        found = {part.name: blobs.read(BlobId(part.blob), 0, 100) for part in done.output.parts}
        assert found == {"out/model": b"ONE|TWO", "out/update/1": b"PLAIN"}
        assert done.metrics == {"ms": 3}


async def test_the_same_input_keeps_its_path_so_that_workers_can_remember_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        part = Part("model", r.source.blobs.put(b"weights"), 7)
        first, second = await r.do("work", part), await r.do("work again", part)
        assert first.output.value == second.output.value
        assert first.task != second.task


async def test_a_disk_that_fails_while_a_task_is_stopped_tells_nobody(tmp_path: Path, monkeypatch: Any) -> None:
    """A node that shuts down on a failing disk must end: the machine that would be told is gone by then."""
    async with rig(tmp_path) as r:
        r.start("hang")
        async with asyncio.timeout(30):
            while r.work._answer is None:
                await asyncio.sleep(0.01)

        def fails(_parts: object) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(r.work, "_forget_states", fails)
        (running,) = r.work._tasks.values()
        r.work.stop_task(next(iter(r.work._tasks)))
        async with asyncio.timeout(30):
            await asyncio.wait({running})
        assert r.told.empty()


async def test_a_missing_input_may_be_found_elsewhere(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        failed = await r.do("work", Part("model", b"\x07" * 32, 5))
        assert (failed.code, failed.retryable, failed.died) == ("E1602", True, False)


async def test_an_input_larger_than_was_leased_is_refused(tmp_path: Path) -> None:
    async with rig(tmp_path, disk_bytes=1_000) as r:
        failed = await r.do("work", Part("model", r.source.blobs.put(bytes(1_001)), 1_001))
        assert isinstance(failed, WorkerFailedTask)
        assert failed.code == "E1604"


async def test_a_worker_that_dies_takes_its_task_and_the_next_one_gets_a_new_worker(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        failed = await r.do("die")
        assert (failed.code, failed.died) == ("E1704", True)
        assert "exited with status 5" in failed.what
        assert isinstance(await r.do("work"), WorkerFinished)


async def test_a_worker_that_eats_too_much_fails_the_task_but_not_for_good(tmp_path: Path) -> None:
    async with rig(tmp_path, ram_bytes=256 * MIB) as r:
        failed = await r.do("eat")
        assert (failed.code, failed.retryable, failed.died) == ("E1704", True, False)
        assert "out of memory" in failed.what


async def test_a_task_that_takes_too_long_is_stopped_and_the_worker_kept(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        failed = await r.do("hang", timeout_s=1)
        assert (failed.code, failed.what) == ("E1704", "The worker died: time limit of 1 s.")
        pid = r.work.pid
        assert isinstance(await r.do("work"), WorkerFinished)
        assert r.work.pid == pid


async def test_a_stopped_task_says_nothing_and_the_next_one_runs(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        hanging = r.start("hang")
        r.start("work")
        r.work.stop_task(hanging)
        done = await r.event()
        assert isinstance(done, WorkerFinished)
        assert r.told.empty()


async def test_files_from_elsewhere_are_no_output(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        assert (await r.do("steal")).code == "E1704"
        assert (await r.do("mumble")).code == "E1704"


async def test_the_states_of_the_last_rounds_are_kept_and_older_ones_go_when_room_is_needed(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        blobs = r.work._b.services.blobs
        rounds = [await r.do(f"round {number} 1000") for number in range(6)]
        for number, done in enumerate(rounds):
            assert all(pinned(blobs, BlobId(part.blob)) for part in done.output.parts if part.name == "update")
            assert pinned(blobs, state_of(done)) == (number >= 2)
        again = LeaseWork(r.work._b, LEASE, WorkerLimits())  # the node was started anew, and knows of none of them
        r.work, before = again, r.work
        last = await r.do("round 7 1000")
        assert pinned(blobs, state_of(last))
        assert sum(pinned(blobs, state_of(done)) for done in rounds) == 3
        await again.stop()
        r.work = before


async def test_a_round_that_finds_no_room_fails_with_a_code_and_leaves_no_states(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        blobs: Any = r.work._b.services.blobs
        blobs._quota_bytes = 5 * MIB
        failed = await r.do(f"round {6 * MIB}")
        assert (failed.code, failed.retryable, failed.died) == ("E1603", True, False)
        assert blobs.used_bytes < MIB
        done = await r.do(f"round {4 * MIB}")
        assert isinstance(done, WorkerFinished)


async def test_states_that_were_checked_leave_the_disk(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        blobs = r.work._b.services.blobs
        state = Part("trace/theta/0000000", r.source.blobs.put(b"state"), 5)
        model = Part("model", r.source.blobs.put(b"weights"), 7)
        assert isinstance(await r.do("work", model, state), WorkerFinished)
        assert pinned(blobs, BlobId(model.blob))
        assert not pinned(blobs, BlobId(state.blob))
        assert [path.name for path in (r.work.folder / "in").iterdir()] == [model.blob.hex()[:32]]
        assert checks_owner(LEASE) != r.work.owner


def state_of(done: Any) -> BlobId:
    return next(BlobId(part.blob) for part in done.output.parts if part.name.startswith("trace/"))


def pinned(blobs: Any, blob: BlobId) -> bool:
    return blob not in {found for found, _ in blobs._index.collectable()}


async def test_starting_twice_is_starting_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        assert r.start("work") == r.start("work")
        assert isinstance(await r.event(), WorkerFinished)
        assert isinstance(await r.do("more"), WorkerFinished)
        assert r.told.empty()


async def test_what_the_worker_prints_is_shown(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        stream = r.work._b.feeds.follow(LEASE, 0)
        await anext(stream)
        await r.do("work")
        line = (await anext(stream)).body
        assert isinstance(line, LogLine)
        assert line.text == "worker is up"
        await stream.aclose()


async def test_what_was_fetched_ahead_needs_no_source_any_more(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        there, blobs = r.source.rpc.address(), r.work._b.services.blobs
        part = Part("update/1", r.source.blobs.put(b"early"), 5)
        larger = Part("update/2", r.source.blobs.put(b"more than was said"), 5)
        r.work.prefetch((part, larger, Part("update/3", b"\x07" * 32, 5)), (there,))
        await asyncio.wait(r.work._prefetches)
        assert (blobs.has(BlobId(part.blob)), blobs.has(BlobId(larger.blob))) == (True, False)
        shutil.rmtree(r.source.home / "blobs" / "blobs")
        assert isinstance(await r.do("work", part), WorkerFinished)


async def test_wishes_are_bounded_and_end_with_the_lease(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        part = Part("update/1", b"\x07" * 32, 5)
        r.work.prefetch((part,) * (MAX_PREFETCHES + 5), (r.source.rpc.address(),))
        assert len(r.work._prefetches) == MAX_PREFETCHES
        await r.work.stop()
        r.work.prefetch((part,), (r.source.rpc.address(),))
        assert all(task.cancelling() for task in r.work._prefetches)


async def test_whoever_comes_while_the_node_shuts_down_is_told_so(tmp_path: Path) -> None:
    async with open_pool(tmp_path) as pool:
        services, told = await pool.services("pat", Router()), list[FallowError]()

        async def late(work: LeaseWork) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                with pytest.raises(FallowError) as caught:
                    await work.worker()
                told.append(caught.value)
                spec = TaskSpec("echo", b"", (), seed=0, units=1, timeout_s=1, ram_bytes=0)
                with pytest.raises(FallowError) as caught:
                    work.start(StartTask(LEASE, task_id(spec), spec, ()))
                told.append(caught.value)

        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                bench = Bench(
                    services, group, asyncio.Queue[Any]().put, Feeds(services), tmp_path, 1, GIB, WorkerShelf()
                )
                group.create_task(late(LeaseWork(bench, LEASE, WorkerLimits())))
                await asyncio.sleep(0)
                raise ValueError
        assert [error.code for error in told] == ["E1801", "E1801"]
