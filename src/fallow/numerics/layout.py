"""Safetensors files whose header is known beforehand.

Whoever reads a file of a peer already knows which tensors must be in it: their names, types and shapes follow from the
model and the recipe. So the header is computed, not parsed: a file is accepted only if its size and its header are,
byte for byte, what this module would have written. A hostile header (huge, overlapping, nested, negative) is never
looked into, and nothing is allocated before the size is right. The files stay ordinary safetensors for everyone else.

Source: the safetensors format (u64 little-endian header length, JSON header, tensor bytes).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
TensorShape = tuple[int, ...]

_TYPES: dict[str, str] = {"F32": "<f4", "I8": "|i1", "I64": "<i8"}
_ALIGN_BYTES = 8


@dataclass(frozen=True)
class TensorSpan:
    """A tensor's place in a file: safetensors type name, shape, and its bytes [start, end) after the header."""

    name: str
    kind: str
    shape: TensorShape
    start: int
    end: int


@dataclass(frozen=True)
class Layout:
    """A whole file: `head` holds its first bytes, `size_bytes` its exact length."""

    head: bytes
    slots: tuple[TensorSpan, ...]
    size_bytes: int


def layout(tensors: Mapping[str, tuple[str, TensorShape]], note: str) -> Layout:
    """The one way to lay out `tensors` (name -> type, shape): wider types first, then by name. `note` goes into the
    header's metadata and tells a kind of file (and its version) from another."""
    ordered = sorted(tensors.items(), key=lambda item: (-np.dtype(_TYPES[item[1][0]]).itemsize, item[0]))
    header: dict[str, object] = {"__metadata__": {"fallow": note}}
    slots: list[TensorSpan] = []
    at = 0
    for name, (kind, shape) in ordered:
        end = at + math.prod(shape) * np.dtype(_TYPES[kind]).itemsize
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, end]}
        slots.append(TensorSpan(name, kind, shape, at, end))
        at = end
    text = json.dumps(header, separators=(",", ":"), sort_keys=False).encode()
    text += b" " * (-len(text) % _ALIGN_BYTES)
    head = len(text).to_bytes(8, "little") + text
    return Layout(head, tuple(slots), len(head) + at)


def write(path: Path, plan: Layout, tensors: Mapping[str, Array]) -> None:
    """Write `tensors` as `plan` says. Equal tensors give equal bytes. Raises KeyError or ValueError when a tensor is
    missing or does not fit its slot (our mistake)."""
    with path.open("wb") as file:
        for part in parts(plan, tensors):
            file.write(part)


def parts(plan: Layout, tensors: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    """The bytes of a file, piece by piece. Raises as `write` does."""
    yield plan.head
    for slot in plan.slots:
        array = np.ascontiguousarray(tensors[slot.name], dtype=_TYPES[slot.kind])
        if array.shape != slot.shape:
            raise ValueError(f"{slot.name} is {array.shape}, not {slot.shape}")
        yield array.reshape(-1).view(np.uint8).data


def read(path: Path, plan: Layout) -> dict[str, Array] | None:
    """The tensors of a file laid out as `plan`, read-only and mapped, not loaded; None when the file is anything else.
    Their values are the caller's to check."""
    with path.open("rb") as file:
        size_bytes = file.seek(0, 2)
        file.seek(0)
        if size_bytes != plan.size_bytes or file.read(len(plan.head)) != plan.head:
            return None
    if size_bytes == len(plan.head):
        return {}
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=len(plan.head))
    return {slot.name: data[slot.start : slot.end].view(_TYPES[slot.kind]).reshape(slot.shape) for slot in plan.slots}
