"""How long a person waits for a program of their own: from the submission of a job to its result, on a network of real
processes whose provider has run something for this account before. Beside it, in turns, plain wasmtime on the same
machine with its own WASI: in a process of its own, as `wasmtime run` is, and in a process that has compiled the program
already. Then what it costs that all is metered: a loop of 10^8 rounds, with fuel and without.

    python benchmarks/programs.py [--rounds N]

Prints one JSON line per figure and writes every round to `benchmarks/results/programs.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import wasmtime

from _record import OURS, Figure, Record
from fallow.cli.demo_net import Network
from fallow.sdk.client import AsyncFallow
from fallow.workloads import wasm_engine

CLAIM = "a warm job of a trivial WebAssembly program takes less than 150 ms from submission to result"
GOAL_MS = 150.0
WARM_UP = 3
HELLO = r"""(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 16) "hello\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 6))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""
LOOP = """(module (func (export "_start") (local i64)
  (loop
    (local.set 0 (i64.add (local.get 0) (i64.const 1)))
    (br_if 0 (i64.lt_u (local.get 0) (i64.const 100000000))))))"""
ALONE = """
import sys, wasmtime
engine = wasmtime.Engine(); store = wasmtime.Store(engine); linker = wasmtime.Linker(engine)
wasi = wasmtime.WasiConfig(); wasi.inherit_stdout(); store.set_wasi(wasi); linker.define_wasi()
module = wasmtime.Module.from_file(engine, sys.argv[1])
linker.instantiate(store, module).exports(store)["_start"](store)
"""


async def job_ms(client: AsyncFallow, program: Path) -> float:
    """One job: the time from its submission to its result. What follows, paying and closing the lease, is waited for,
    so that no job meets the one before."""
    spec = await client.price(await client.plan_program("wasm", program, budget="1", verify="none"))
    began = time.perf_counter()
    job = await client.submit(spec)
    async for note in job.watch():
        if note.kind == "progress" and 0 < note.total == note.done:
            break
    (output,) = (await job.results()).outputs
    took = time.perf_counter() - began
    assert b"hello" in output.value
    await job.settled()
    return took * 1e3


def process_ms(program: Path) -> float:
    """Wasmtime in a process of its own."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", ALONE, str(program)], capture_output=True, check=True)
    assert done.stdout == b"hello\n"
    return (time.perf_counter() - began) * 1e3


def call_ms(engine: wasmtime.Engine, module: wasmtime.Module, out: Path) -> float:
    """Wasmtime in this process, which has compiled the program."""
    began = time.perf_counter()
    store, linker, wasi = wasmtime.Store(engine), wasmtime.Linker(engine), wasmtime.WasiConfig()
    wasi.stdout_file = out
    store.set_wasi(wasi)
    linker.define_wasi()
    start = linker.instantiate(store, module).exports(store)["_start"]
    assert isinstance(start, wasmtime.Func)
    start(store)
    return (time.perf_counter() - began) * 1e3


def loop_ms(config: wasmtime.Config, fuel: int) -> float:
    """The loop, compiled before the clock starts."""
    engine = wasmtime.Engine(config)
    module, store = wasmtime.Module(engine, LOOP), wasmtime.Store(engine)
    if fuel:
        store.set_fuel(fuel)
        store.set_epoch_deadline(1)
    start = wasmtime.Instance(store, module, []).exports(store)["_start"]
    assert isinstance(start, wasmtime.Func)
    began = time.perf_counter()
    start(store)
    return (time.perf_counter() - began) * 1e3


async def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    program = folder / "hello.wasm"
    program.write_bytes(wasmtime.wat2wasm(HELLO))
    engine = wasmtime.Engine()
    module = wasmtime.Module.from_file(engine, program)
    found: dict[str, list[float]] = {name: [] for name in ("job", "process", "call", "metered", "plain")}
    with Network(folder / "net") as network:
        client = await network.found(1, cheats=0)
        for number in range(rounds + WARM_UP):
            row = {
                "job": await job_ms(client, program),
                "process": process_ms(program),
                "call": call_ms(engine, module, folder / "out"),
                "metered": loop_ms(wasm_engine.settings(), 10**10),
                "plain": loop_ms(wasmtime.Config(), 0),
            }
            for name, took in row.items() if number >= WARM_UP else ():
                found[name].append(took)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    record = Record(__file__, CLAIM)
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(measure(Path(name), rounds))
    ours, theirs = importlib.metadata.version(OURS), importlib.metadata.version("wasmtime")
    record.add(Figure(OURS, "warm job, submit to result, p50", "ms", found["job"], GOAL_MS, less=True, version=ours))
    record.add(Figure(OURS, "warm job, submit to result, p99", "ms", found["job"], version=ours, pick="p99"))
    record.add(Figure("wasmtime", "a process of its own", "ms", found["process"], version=theirs))
    record.add(Figure("wasmtime", "a call in a process that has compiled it", "ms", found["call"], version=theirs))
    shares = [metered / plain for metered, plain in zip(found["metered"], found["plain"], strict=True)]
    record.add(Figure(OURS, "a loop of 10^8 rounds, times plain wasmtime", "", shares, version=ours))
    record.write()


if __name__ == "__main__":
    main()
