"""int8 updates: what a worker publishes after its inner steps.

A tensor is cut into blocks of 4,096 values; each block is stored as int8 multiples of its own fp32 scale (the largest
magnitude in it / 127, rounded half to even). One byte a parameter, and as good as fp32 in the outer step (measured by
DiLoCo's followers and again by us). The file is safetensors: `<name>` int8 in the tensor's shape and `<name>#scale`
fp32, laid out by `numerics.layout`.

Defends against: files of the wrong size or shape, headers made to exhaust memory, scales that are not finite or so
large that the exact sum could overflow or one worker could outshout all others beyond any bound. Does not defend
against: a well-formed update that is wrong. That is what replay is for.

Source: blockwise absmax quantisation as in Dettmers et al., 8-bit Optimizers via Block-wise Quantization, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fallow.numerics import layout
from fallow.numerics.layout import Array, Layout, TensorShape

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.int8]

BLOCK = 4096
TOP = 127
MAX_MAGNITUDE = 1024.0
"""No entry of an update may be larger: a fine-tune moves parameters by far less, and the exact sum needs the bound."""


@dataclass(frozen=True)
class Packed:
    """A compressed tensor: `codes` int8 in the tensor's shape, `scales` fp32, one per block of the flattened tensor."""

    codes: Bytes
    scales: Floats


def pack(values: Floats) -> Packed:
    """Compress a tensor. Deterministic: elementwise IEEE operations only. Raises ValueError for values that are not
    finite or beyond MAX_MAGNITUDE, as they are when training has blown up."""
    if not np.isfinite(values).all() or (values.size and float(np.abs(values).max()) > MAX_MAGNITUDE):
        raise ValueError("the update is not finite, or too large")
    blocks = -(-values.size // BLOCK)
    padded = np.zeros(blocks * BLOCK, dtype=np.float32)
    padded[: values.size] = values.reshape(-1)
    table = padded.reshape(blocks, BLOCK)
    scales = (np.abs(table).max(axis=1) / np.float32(TOP)).astype(np.float32)
    divisors = np.where(scales > 0, scales, np.float32(1)).astype(np.float32)[:, None]
    codes = np.clip(np.rint(table / divisors), -TOP, TOP).astype(np.int8)
    return Packed(codes.reshape(-1)[: values.size].reshape(values.shape), scales)


def unpack(packed: Packed) -> Floats:
    """The values that `packed` stands for, rounded to fp32."""
    return products(packed).astype(np.float32).reshape(packed.codes.shape)


def products(packed: Packed) -> npt.NDArray[np.float64]:
    """Each code times its scale, flat, without any rounding: 7 and 24 bits fit fp64's 53."""
    spread = np.repeat(packed.scales.astype(np.float64), BLOCK)[: packed.codes.size]
    return packed.codes.reshape(-1).astype(np.float64) * spread


def update_layout(shapes: Mapping[str, TensorShape]) -> Layout:
    """The file of an update to tensors of these shapes."""
    tensors: dict[str, tuple[str, TensorShape]] = {}
    for name, shape in shapes.items():
        tensors[name] = ("I8", shape)
        tensors[f"{name}#scale"] = ("F32", (-(-math.prod(shape) // BLOCK),))
    return layout.layout(tensors, "update 1")


def write_update(path: Path, update: Mapping[str, Packed]) -> None:
    """Write the file of an update; equal updates give equal bytes."""
    tensors: dict[str, Array] = {name: packed.codes for name, packed in update.items()}
    tensors |= {f"{name}#scale": packed.scales for name, packed in update.items()}
    layout.write(path, update_layout({name: packed.codes.shape for name, packed in update.items()}), tensors)


def read_update(path: Path, shapes: Mapping[str, TensorShape]) -> dict[str, Packed] | None:
    """The update in a peer's file, or None when it is not a well-formed update to tensors of these shapes."""
    tensors = layout.read(path, update_layout(shapes))
    if tensors is None:
        return None
    update: dict[str, Packed] = {}
    for name in shapes:
        scales = tensors[f"{name}#scale"].astype(np.float32)
        # Attack: an infinite, huge or negative scale that drags the mean anywhere. NaN fails the comparison too.
        if not bool(((scales >= 0) & (scales <= MAX_MAGNITUDE / TOP * 1.000001)).all()):
            return None
        update[name] = Packed(tensors[name].astype(np.int8, copy=False), scales)
    return update
