"""Millions of spoilt inputs at every door that takes strangers' bytes: what cannot be read is refused by a code, at
once, and nothing else happens.

    python -m tests.attacks.fuzz_wire --inputs 10000000 --seed 1 --out benchmarks/results/wire_fuzz.jsonl

Honest bytes of every struct of the wire are cut, joined, repeated and changed bit by bit, with care for what msgpack
reads as sizes. An input counts as unexpected when a door raises something that it does not promise, or takes longer
than SLOW_S for it, alone and again. Memory is watched as a whole.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from tests.wire.making import declared, structs, union

from fallow.data.json_input import parse_json
from fallow.errors import FallowError
from fallow.node.config import read_address, read_ticket
from fallow.wire.codec import decode, encode
from fallow.wire.documents import AnyDocument, Document, Signed
from fallow.wire.eip712 import recover
from fallow.wire.frames import FrameKind, FrameReader, encode_call, encode_frame
from fallow.wire.messages import Message
from fallow.wire.receipts import read_receipt
from fallow.wire.trees import decode_tree
from fallow.wire.worker import WorkerFrames, WorkerMessage, worker_frame

SAMPLES = 6
SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
SLOW_S = 0.25
EDGES = bytes.fromhex("00017f808f909fa0bfc0c1c4c6cbcfd3d9dbdcdddfff")
"""Bytes that begin something in msgpack: numbers, texts, arrays, maps, and their longest sizes."""
BANK = bytes(20)


class Door(NamedTuple):
    """Something that reads strangers' bytes; what it may raise; and which inputs it gets, of all that are made."""

    act: Callable[[bytes], object]
    may: tuple[type[Exception], ...]
    every: int = 1


def _frames(data: bytes) -> None:
    reader = FrameReader()
    for at in range(0, len(data), 97):
        reader.feed(data[at : at + 97])
        list(reader)


def _signed(data: bytes) -> None:
    recover(Signed(data[65:], data[:65]), BANK)


def doors() -> dict[str, Door]:
    """All of them, by name."""
    everything = union([kind for kind in declared() if issubclass(kind, Message)])
    return {
        "message": Door(lambda data: decode(everything, data), (FallowError,)),
        "document": Door(lambda data: decode(AnyDocument, data), (FallowError,)),
        "frames": Door(_frames, (FallowError,), 4),
        "worker": Door(lambda data: WorkerFrames("worker").feed(data), (ValueError,), 2),
        "provider": Door(lambda data: WorkerFrames("provider").feed(data), (ValueError,), 2),
        "receipt": Door(read_receipt, (FallowError,), 2),
        "tree": Door(decode_tree, (FallowError,), 2),
        "signed": Door(_signed, (FallowError,), 50),
        "json": Door(parse_json, (ValueError,), 4),
        "ticket": Door(lambda data: read_ticket(data.decode("latin-1")), (FallowError,), 8),
        "address": Door(lambda data: read_address(data.decode("latin-1")), (FallowError,), 8),
    }


@dataclass
class Report:
    """What came of a run."""

    inputs: int = 0
    calls: int = 0
    taken: Counter[str] = field(default_factory=Counter[str])
    refused: Counter[str] = field(default_factory=Counter[str])
    unexpected: list[str] = field(default_factory=list[str])
    slowest_s: float = 0.0


def _some(kind: type[msgspec.Struct]) -> list[Any]:
    """A few honest values, always the same."""
    made: list[Any] = []

    @settings(max_examples=SAMPLES, phases=[Phase.generate], database=None, suppress_health_check=SLOW_IS_FINE)
    @seeded(1)
    @given(structs(kind))
    def gather(value: Any) -> None:
        made.append(value)

    gather()
    return made


def corpus(seed: int) -> list[bytes]:
    """Honest bytes of every struct, framed and bare, and texts that begin as tickets and JSON do."""
    found: list[bytes] = [b"fallow1" + b"ab" * 40, b'{"a": [1, 2.5e3, "x", null, true]}', b"[" * 70 + b"]" * 70]
    for number, kind in enumerate(declared()):
        for value in _some(kind):
            body = encode(value)
            found.append(body)
            if issubclass(kind, WorkerMessage):
                found.append(worker_frame(value))
            elif issubclass(kind, Message):
                found += [encode_call(number, value), encode_frame(FrameKind.REPLY, body)]
            elif issubclass(kind, Document):
                found.append(bytes(65) + body)
    random.Random(seed).shuffle(found)
    return found


def spoil(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """`data` with a few changes, sometimes with a part of `other`."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        at = draw.randrange(len(found) + 1)
        match draw.randrange(8):
            case 0 if found:
                found[at % len(found)] ^= 1 << draw.randrange(8)
            case 1 if found:
                found[at % len(found)] = draw.choice(EDGES)
            case 2:
                del found[at:]
            case 3:
                del found[at : at + draw.randrange(1, 9)]
            case 4:
                found[at:at] = bytes(draw.choices(EDGES, k=draw.randrange(1, 5)))
            case 5:
                found[at:at] = found[at : at + draw.randrange(1, 65)] * draw.randrange(1, 4)
            case 6:
                begin = draw.randrange(len(other) + 1)
                found[at : at + draw.randrange(33)] = other[begin : begin + draw.randrange(65)]
            case _:
                found[at : at + 8] = draw.randbytes(draw.choice((1, 2, 4, 8)))
        if len(found) > 1 << 16:
            del found[1 << 16 :]
    return bytes(found)


def run(inputs: int, seed: int, tell: Callable[[Report], None] = lambda _: None) -> Report:
    """So many inputs, each at every door that wants it."""
    draw, seeds, report, gates = random.Random(seed), corpus(seed), Report(), doors()
    for number in range(inputs):
        data = spoil(draw.choice(seeds), draw.choice(seeds), draw)
        for name, door in gates.items():
            if number % door.every == 0:
                _knock(report, name, door, data)
        report.inputs += 1
        if report.inputs % 100_000 == 0:
            tell(report)
    return report


def _knock(report: Report, name: str, door: Door, data: bytes) -> None:
    began = time.perf_counter()
    try:
        door.act(data)
    except door.may as error:
        code = error.code if isinstance(error, FallowError) else type(error).__name__
        report.refused[f"{name} {code}"] += 1
        if code == "E9001":
            report.unexpected.append(f"{name}: E9001 for {data[:200].hex()}")
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        report.unexpected.append(f"{name}: {type(error).__name__}: {str(error)[:100]} for {data[:200].hex()}")
    else:
        report.taken[name] += 1
    took = time.perf_counter() - began
    report.calls += 1
    if took > max(report.slowest_s, SLOW_S):
        took = _again(door, data)  # the machine may have been busy
        if took > SLOW_S:
            report.unexpected.append(f"{name}: {took:.2f} s for {data[:200].hex()}")
    report.slowest_s = max(report.slowest_s, took)


def _again(door: Door, data: bytes) -> float:
    began = time.process_time()
    with suppress(*door.may):
        door.act(data)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(prog="fuzz_wire")
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    def tell(report: Report) -> None:
        print(f"{report.inputs:,} inputs, {len(report.unexpected)} unexpected", flush=True)

    began = time.perf_counter()
    report = run(args.inputs, args.seed, tell)
    row = {
        "inputs": report.inputs, "calls": report.calls, "seed": args.seed,
        "seconds": round(time.perf_counter() - began),
        "taken": dict(report.taken), "refused": dict(sorted(report.refused.items())),
        "unexpected": report.unexpected[:50], "slowest_s": round(report.slowest_s, 4),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }  # fmt: skip
    print(json.dumps(row, indent=1))
    if args.out:
        with args.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
    raise SystemExit(1 if report.unexpected else 0)


if __name__ == "__main__":
    main()
