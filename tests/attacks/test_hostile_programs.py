"""Programs of strangers in a real worker, in each kind of box that this machine can build: what they try, that it gets
them nothing, and that the worker goes on serving."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.attacks.test_hostile_worker import LAYERS
from tests.wasm_programs import EXIT_3, FOREVER, HELLO, WRITE_FILE, wasm, wat
from tests.workloads.test_wasm import KIND

from fallow.adapters.runners import boxing
from fallow.adapters.runners.process import ProcessRunner, ProcessWorker
from fallow.kinds.guest import GuestRun
from fallow.kinds.wasm.kind import GUEST, needed_bytes, read_task
from fallow.kinds.wasm.tasks import WasmValue
from fallow.ports import READ, WORK, WorkerLimits
from fallow.units import GIB, MIB
from fallow.wire.claims import task_id
from fallow.wire.codec import decode
from fallow.wire.tasks import Part, TaskSpec
from fallow.wire.worker import FromWorker, RunTask, WorkerDone, WorkerFailed, WorkerReady

MEMORY = wat(
    """(local $n i32)
    (loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
    (memory.fill (i32.const 4096) (i32.const 1) (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4096)))
    (call $proc_exit (memory.size))""",
    calls="proc_exit",
)
"""Takes all the memory that it gets, and writes to all of it."""
DEEP = wat("(call $deep)", more="(func $deep (call $deep) (call $deep))")


class Provider:
    """The other end of a worker's socket."""

    def __init__(self, home: Path, worker: ProcessWorker, heard: asyncio.Queue[FromWorker]) -> None:
        self.home, self.worker, self.heard = home, worker, heard

    async def run(self, text: str, **settings: int) -> WasmValue | WorkerFailed:
        """One run of a program, and how it ended."""
        path = self.home / READ / hashlib.sha256(text.encode()).hexdigest()[:16]
        path.write_bytes(wasm(text))
        chosen = {one.name: one.default for one in KIND.settings} | {"fuel": 2_000} | settings
        params = GUEST.params(GuestRun(""), chosen)
        blob = hashlib.sha256(text.encode()).digest()
        ram = needed_bytes(read_task(params).limits)
        task = TaskSpec("wasm", params, (Part("module", blob, 1),), 0, KIND.units(params), 60, ram)
        out = self.home / WORK / f"out-{blob.hex()[:8]}"
        out.mkdir()
        self.worker.send(RunTask(task_id(task), task, {"module": str(path)}, str(out), 1))
        async with asyncio.timeout(60):
            while True:
                match await self.heard.get():
                    case WorkerDone(_, value):
                        return decode(WasmValue, value)
                    case WorkerFailed() as failed:
                        return failed
                    case _:
                        pass


@asynccontextmanager
async def provider(home: Path) -> AsyncGenerator[Provider]:
    heard: asyncio.Queue[FromWorker] = asyncio.Queue()
    home.mkdir()

    def take(messages: list[FromWorker]) -> None:
        for message in messages:
            heard.put_nowait(message)

    limits = WorkerLimits(GIB, 1, 0, disk_bytes=GIB)
    async with ProcessRunner().open(home, limits, take, lambda _line: None) as worker:
        async with asyncio.timeout(60):
            assert isinstance(await heard.get(), WorkerReady)
        yield Provider(home, worker, heard)
        assert not worker.ended.is_set()


@pytest.mark.parametrize("layers", LAYERS)
async def test_whatever_a_program_does_its_worker_goes_on(
    layers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boxing, "strength", lambda: (layers, ""))
    async with provider(tmp_path / "home") as here:
        endless = await here.run(FOREVER)
        assert isinstance(endless, WasmValue)
        assert endless.trap == "out of fuel"
        greedy = await here.run(MEMORY, memory=256)
        assert isinstance(greedy, WasmValue)
        assert greedy.status >= 240 * MIB // 65_536
        deep = await here.run(DEEP)
        assert isinstance(deep, WorkerFailed)
        assert (deep.code, deep.retryable) == ("E1723", False)
        invalid = await here.run(wat("i32.add"))
        assert isinstance(invalid, WorkerFailed)
        assert (invalid.code, invalid.retryable) == ("E1721", False)
        for text, status in ((HELLO, 0), (WRITE_FILE, 0), (EXIT_3, 3)):
            ended = await here.run(text)
            assert isinstance(ended, WasmValue)
            assert (ended.status, ended.trap) == (status, None)
