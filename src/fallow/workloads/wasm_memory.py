"""The memory and the fuel of a program, as the calls that it makes see them. Every call is paid in fuel, for itself and
for each byte that it moves, before it is done, so that a program cannot make the host work for nothing."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator

import wasmtime

from fallow.workloads.wasm_files import FAULT, ILSEQ, INVAL, NAMETOOLONG, Errno

CALL_FUEL = 10_000
"""What a call takes on the host is about as long as this many operations of a program."""
BYTE_FUEL = 1
PIECE_BYTES = 1 << 20
"""What is copied at a time: a copy of all that a program points to would be memory that nobody counted."""
MAX_VECTORS, MAX_PATH_BYTES = 1_024, 4_096


class FuelOut(Exception):
    """A call cost more than was left."""


class Memory:
    """What calls are made of. `memory` is the program's, once there is one."""

    def __init__(self, store: wasmtime.Store) -> None:
        self._store, self._left = store, 0
        self.memory: wasmtime.Memory | None = None

    def _paid(self, act: Callable[..., None]) -> Callable[..., int | None]:
        def call(*args: int) -> int:
            self._left = self._store.get_fuel()
            try:
                self._pay(CALL_FUEL)
                act(*args)
            except Errno as error:
                return error.number
            finally:
                self._store.set_fuel(self._left)
            return 0

        return call

    def _pay(self, fuel: int) -> None:
        if fuel > self._left:
            self._left = 0
            raise FuelOut
        self._left -= fuel

    def _view(self, at: int, size: int) -> memoryview:
        """A part of the program's memory. Raises FAULT for what it does not have."""
        if self.memory is None:
            raise Errno(FAULT)
        at &= 0xFFFFFFFF
        if at + size > self.memory.data_len(self._store):
            raise Errno(FAULT)
        if not size:
            return memoryview(bytearray())
        start = ctypes.addressof(self.memory.data_ptr(self._store).contents) + at
        return memoryview((ctypes.c_ubyte * size).from_address(start)).cast("B")

    def _get(self, at: int, size: int) -> bytes:
        self._pay(size * BYTE_FUEL)
        return bytes(self._view(at, size))

    def _put(self, at: int, data: bytes) -> None:
        self._pay(len(data) * BYTE_FUEL)
        self._view(at, len(data))[:] = data

    def _put32(self, at: int, value: int) -> None:
        self._view(at, 4)[:] = (value & 0xFFFFFFFF).to_bytes(4, "little")

    def _put64(self, at: int, value: int) -> None:
        self._view(at, 8)[:] = (value & (2**64 - 1)).to_bytes(8, "little")

    def _path(self, at: int, size: int) -> str:
        if size > MAX_PATH_BYTES:
            raise Errno(NAMETOOLONG)
        try:
            path = self._get(at, size).decode("utf-8")
        except UnicodeDecodeError:
            raise Errno(ILSEQ) from None
        if "\0" in path:
            raise Errno(INVAL)
        return path

    def _pieces(self, at: int, count: int) -> Iterator[tuple[int, int]]:
        """The places and sizes that a list of vectors names, the large ones piece by piece."""
        count &= 0xFFFFFFFF
        if count > MAX_VECTORS:
            raise Errno(INVAL)
        for start, size in struct.iter_unpack("<II", self._get(at, 8 * count)):
            for done in range(0, size, PIECE_BYTES):
                yield start + done, min(size - done, PIECE_BYTES)


def unsigned(value: int) -> int:
    """A 64-bit argument as programs mean it."""
    return value & (2**64 - 1)
