"""Python's collector and iroh's threads: it never runs in them, and still runs."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fallow.adapters import iroh_garbage
from fallow.adapters.iroh_transport import IrohTransport

# Both sides leave streams behind that only the collector finds, and it never starts by itself but at the worst moment:
# when one of iroh's threads has something to say.
PROGRAM = """
import asyncio, gc, threading
from fallow.adapters.iroh_transport import IrohTransport

gc.set_threshold(1_000_000)
tell = asyncio.BaseEventLoop.call_soon_threadsafe

def unluckily(self, *args, **more):
    if gc.isenabled() and threading.current_thread() is not threading.main_thread():
        gc.collect()
    return tell(self, *args, **more)

asyncio.BaseEventLoop.call_soon_threadsafe = unluckily

class Knot:
    def __init__(self, stream):
        self.me, self.stream = self, stream

async def echo(stream):
    Knot(stream)
    while data := await stream.read(1 << 18):
        await stream.send(data)
    await stream.finish()

async def serve(transport, group):
    async for connection in transport.accepted():
        async for stream in connection.accepted():
            group.create_task(echo(stream))

async def put(stream):
    await stream.send(b"x" * 300_000)
    await stream.finish()

async def ask(connection):
    for _ in range(150):
        stream, size_bytes = await connection.open(), 0
        Knot(stream)
        async with asyncio.TaskGroup() as group:
            group.create_task(put(stream))
            while data := await stream.read(1 << 18):
                size_bytes += len(data)
        assert size_bytes == 300_000

async def main():
    here, there = await IrohTransport.bind(b"h" * 32), await IrohTransport.bind(b"t" * 32)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(serve(there, group))
        connection = await here.connect(there.address(), 5)
        async with asyncio.TaskGroup() as asking:
            for _ in range(4):
                asking.create_task(ask(connection))
        serving.cancel()
    await here.close()
    await there.close()

asyncio.run(main())
print("all answered", gc.isenabled())
"""


def test_garbage_is_never_found_in_irohs_threads() -> None:
    """A stream that is destroyed there waits for a lock that its own thread holds: the process stood still for good."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "all answered True\n", "")


class Knot:
    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The collector as Python starts it, and nobody who holds it."""
    monkeypatch.setattr(iroh_garbage, "_collector", iroh_garbage._Collector())
    thresholds = gc.get_threshold()
    assert gc.isenabled()
    gc.collect()
    yield
    gc.set_threshold(*thresholds)
    gc.enable()


@pytest.mark.usefixtures("usual")
async def test_the_collector_is_off_while_an_endpoint_is_open() -> None:
    first, second = await IrohTransport.bind(b"1" * 32), await IrohTransport.bind(b"2" * 32)
    assert not gc.isenabled()
    await first.close()
    await first.close()
    assert not gc.isenabled()
    await second.close()
    assert gc.isenabled()


@pytest.mark.usefixtures("usual")
def test_what_is_due_is_collected() -> None:
    iroh_garbage.hold()
    gc.set_threshold(2_000, 2, 2)
    iroh_garbage.sweep()
    kept = [Knot() for _ in range(400)]
    before = gc.get_stats()
    iroh_garbage.sweep()
    assert gc.get_stats() == before, "not due yet"
    for _ in range(3):
        kept += [Knot() for _ in range(2_500)]
        iroh_garbage.sweep()
    after = [one["collections"] - other["collections"] for one, other in zip(gc.get_stats(), before, strict=True)]
    assert after == [3, 0, 0]
    kept.clear()
    kept += [Knot() for _ in range(2_500)]
    iroh_garbage.sweep()
    found = [one["collected"] - other["collected"] for one, other in zip(gc.get_stats(), before, strict=True)]
    assert found[1] >= 7_000
    iroh_garbage.let_go()


@pytest.mark.usefixtures("usual")
def test_full_collections_take_a_hundredth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [1000.0]
    full: list[int] = []

    def collect(generation: int) -> int:
        full.append(generation)
        now_s[0] += 0.5
        return 0

    iroh_garbage.hold()
    monkeypatch.setattr(gc, "collect", collect)
    monkeypatch.setattr(gc, "get_count", lambda: (1_000, 11, 11))
    monkeypatch.setattr(iroh_garbage.time, "perf_counter", lambda: now_s[0])
    for _ in range(3):
        iroh_garbage.sweep()
        now_s[0] += 20
    now_s[0] += 20
    iroh_garbage.sweep()
    iroh_garbage.let_go()
    assert full == [2, 1, 1, 2]


@pytest.mark.usefixtures("usual")
def test_one_that_somebody_switched_off_stays_off() -> None:
    gc.disable()
    iroh_garbage.hold()
    kept = [Knot() for _ in range(10_000)]
    before = gc.get_stats()
    iroh_garbage.sweep()
    iroh_garbage.let_go()
    assert not gc.isenabled()
    assert gc.get_stats() == before
    assert kept


@pytest.mark.usefixtures("usual")
def test_what_was_there_before_is_left_alone_until_the_end() -> None:
    before = [Knot() for _ in range(100)]
    iroh_garbage.hold()
    assert gc.get_freeze_count() > 100
    before.clear()
    assert gc.collect() < 100
    iroh_garbage.let_go()
    assert gc.get_freeze_count() == 0
    assert gc.collect() >= 100
