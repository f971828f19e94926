"""WASI preview 1 for one run of a program. All it is told follows from its task: the clock runs on fuel, a nanosecond
for each, random numbers come from the task's seed, files are those of `wasm_files.py`. There is no network, no other
process, no thread."""

from __future__ import annotations

import struct
from typing import NamedTuple

import wasmtime
from blake3 import blake3

from fallow.kinds.wasm.calls import SIGNATURES
from fallow.kinds.wasm.module import SYSTEM
from fallow.workloads.wasm_files import INVAL, NOTSUP, Errno, File, Folder, Room
from fallow.workloads.wasm_memory import BYTE_FUEL, PIECE_BYTES
from fallow.workloads.wasm_open import EPOCH_NS, Files

MAX_EVENTS = 1_024
_LATEST = 1 << 63


class Exited(Exception):
    """The program ended by itself."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Start(NamedTuple):
    """What a program is started with."""

    fuel: int
    args: list[bytes]
    environment: list[bytes]
    seed: bytes


class System(Files):
    """The calls of one run."""

    def __init__(self, store: wasmtime.Store, start: Start, root: Folder, stdin: File, room: Room) -> None:
        super().__init__(store, root, stdin, room)
        self._start = start
        self._random, self._drawn, self._slept_ns = blake3(start.seed), 0, 0

    def define(self, linker: wasmtime.Linker) -> None:
        """Make all calls known to `linker`."""
        for name, signature in SIGNATURES.items():
            takes, gives = signature.split(":")
            kind = wasmtime.FuncType([_TYPES[one] for one in takes], [_TYPES[one] for one in gives])
            linker.define_func(SYSTEM, name, kind, self._paid(getattr(self, f"_{name}", _unsupported)))

    # what it is started with --------------------------------------------------------------------------------------

    def _args_sizes_get(self, count: int, size: int) -> None:
        self._tell_sizes(self._start.args, count, size)

    def _args_get(self, pointers: int, at: int) -> None:
        self._tell(self._start.args, pointers, at)

    def _environ_sizes_get(self, count: int, size: int) -> None:
        self._tell_sizes(self._start.environment, count, size)

    def _environ_get(self, pointers: int, at: int) -> None:
        self._tell(self._start.environment, pointers, at)

    def _tell_sizes(self, words: list[bytes], count: int, size: int) -> None:
        self._put32(count, len(words))
        self._put32(size, sum(len(word) + 1 for word in words))

    def _tell(self, words: list[bytes], pointers: int, at: int) -> None:
        for place, word in enumerate(words):
            self._put32(pointers + 4 * place, at)
            self._put(at, word + b"\0")
            at += len(word) + 1

    # time and chance ----------------------------------------------------------------------------------------------

    def _now_ns(self) -> int:
        return self._start.fuel - self._left + self._slept_ns

    def _clock_res_get(self, clock: int, at: int) -> None:
        self._known(clock)
        self._put64(at, 1)

    def _clock_time_get(self, clock: int, _precision: int, at: int) -> None:
        self._put64(at, self._now_ns() + (0 if self._known(clock) else EPOCH_NS))

    @staticmethod
    def _known(clock: int) -> int:
        if not 0 <= clock <= 3:
            raise Errno(INVAL)
        return clock

    def _random_get(self, at: int, size: int) -> None:
        size &= 0xFFFFFFFF
        self._pay(size * BYTE_FUEL)
        self._view(at, size)
        for done in range(0, size, PIECE_BYTES):
            piece = min(size - done, PIECE_BYTES)
            self._view(at + done, piece)[:] = self._random.digest(piece, seek=self._drawn)
            self._drawn += piece

    def _sched_yield(self) -> None:
        return

    def _poll_oneoff(self, wanted: int, events: int, count: int, told: int) -> None:
        """Files are always ready; who sleeps wakes at once, and finds that time has passed."""
        count &= 0xFFFFFFFF
        if not 0 < count <= MAX_EVENTS:
            raise Errno(INVAL)
        raw = self._get(wanted, 48 * count)
        asked = [struct.unpack_from("<QB7xI4xQQH", raw, 48 * place) for place in range(count)]
        ready = [(user, tag) for user, tag, *_ in asked if tag != 0]
        if not ready:
            now = self._now_ns()
            ends = [(self._until(clock, ns, flags, now), user) for user, _, clock, ns, _, flags in asked]
            first = min(end for end, _ in ends)
            self._slept_ns += max(first - now, 0)
            ready = [(user, 0) for end, user in ends if end <= first]
        for place, (user, tag) in enumerate(ready):
            self._put(events + 32 * place, struct.pack("<QHB5xQH6x", user, 0, tag, 0, 0))
        self._put32(told, len(ready))

    def _until(self, clock: int, ns: int, flags: int, now: int) -> int:
        if not flags & 1:
            return min(now + ns, _LATEST)
        return min(ns - (0 if self._known(clock) else EPOCH_NS), _LATEST)

    # the end ------------------------------------------------------------------------------------------------------

    def _proc_exit(self, status: int) -> None:
        raise Exited(status & 0xFFFFFFFF)


def _unsupported(*_args: int) -> None:
    raise Errno(NOTSUP)


_TYPES = {"i": wasmtime.ValType.i32(), "I": wasmtime.ValType.i64()}
