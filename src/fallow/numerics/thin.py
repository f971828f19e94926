"""Updates smaller than int8: four bits an entry, or only the largest entries of each block.

Both are elementwise IEEE operations and a choice without ties, so equal values give equal codes on every machine, and
both stand for exact products of a small integer and a binary32 scale, which `aggregate` sums as integers. What is lost
is `residual`, for the sender to add to its next update (error feedback).

Source: docs/spec/exact-arithmetic.md, section 22; Seide et al., 1-Bit Stochastic Gradient Descent (2014), for error
feedback; Lin et al., Deep Gradient Compression (2018), for the choice of the largest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fallow.numerics.compress import BLOCK, MAX_MAGNITUDE, Bytes, Floats, Packed, products
from fallow.numerics.layout import Shape

NIBBLE_BLOCK = 128
NIBBLE_TOP = 7
TOP = 127


@dataclass(frozen=True)
class Nibbles:
    """Four bits an entry: `codes` uint8, entry 2i in the low half of byte i, each a code in [-7, 7] plus 8; `scales`
    fp32, one per block of 128 entries of the flattened tensor."""

    shape: Shape
    codes: npt.NDArray[np.uint8]
    scales: Floats


@dataclass(frozen=True)
class Top:
    """The `kept` largest entries of each block of 4,096: `places` uint16 within the block, ascending, and `codes` int8,
    (blocks, kept) both; `scales` fp32 (blocks,)."""

    shape: Shape
    places: npt.NDArray[np.uint16]
    codes: Bytes
    scales: Floats


def pack_nibbles(values: Floats) -> Nibbles:
    """Compress to four bits an entry. Raises ValueError for values that are not finite or beyond MAX_MAGNITUDE."""
    table = _blocks(values, NIBBLE_BLOCK)
    scales, codes = _codes(table, NIBBLE_TOP)
    halves = (codes.reshape(-1)[: values.size] + 8).astype(np.uint8)
    padded = np.full(values.size + values.size % 2, 8, dtype=np.uint8)
    padded[: values.size] = halves
    return Nibbles(values.shape, padded[::2] | (padded[1::2] << np.uint8(4)), scales)


def pack_top(values: Floats, kept: int) -> Top:
    """Keep the `kept` entries of each block that are largest in magnitude, of equal ones the first. Raises ValueError
    as `pack_nibbles`, and for `kept` outside [1, 4096]."""
    if not 1 <= kept <= BLOCK:
        raise ValueError(f"{kept} entries of a block of {BLOCK} cannot be kept")
    table = _blocks(values, BLOCK)
    ranks = np.abs(table).view(np.uint32).astype(np.int64) << 12
    ranks += BLOCK - 1 - np.arange(BLOCK, dtype=np.int64)  # no two are equal: any way to select gives the same set
    chosen = np.sort(np.argpartition(-ranks, kept - 1, axis=1)[:, :kept], axis=1)
    scales, codes = _codes(np.take_along_axis(table, chosen, axis=1), TOP)
    return Top(values.shape, chosen.astype(np.uint16), codes, scales)


def exact_products(update: Packed | Nibbles | Top) -> npt.NDArray[np.float64]:
    """Each entry that `update` stands for, flat, without any rounding."""
    if isinstance(update, Packed):
        return products(update)
    size = int(np.prod(update.shape, dtype=np.int64))
    if isinstance(update, Nibbles):
        halves = np.stack((update.codes & 15, update.codes >> 4), axis=1).reshape(-1)[:size].astype(np.float64) - 8.0
        return halves * np.repeat(update.scales.astype(np.float64), NIBBLE_BLOCK)[:size]
    table = np.zeros((len(update.scales), BLOCK))
    found = update.codes.astype(np.float64) * update.scales.astype(np.float64)[:, None]
    np.put_along_axis(table, update.places.astype(np.int64), found, axis=1)
    return table.reshape(-1)[:size]


def residual(values: Floats, update: Packed | Nibbles | Top) -> Floats:
    """What `update` leaves out of `values`, fp32: each difference is rounded once."""
    return (values.astype(np.float64) - exact_products(update).reshape(values.shape)).astype(np.float32)


def _blocks(values: Floats, length: int) -> Floats:
    if not np.isfinite(values).all() or (values.size and float(np.abs(values).max()) > MAX_MAGNITUDE):
        raise ValueError("the update is not finite, or too large")
    count = -(-values.size // length)
    padded = np.zeros(count * length, dtype=np.float32)
    padded[: values.size] = values.reshape(-1)
    return padded.reshape(count, length)


def _codes(table: Floats, top: int) -> tuple[Floats, Bytes]:
    """Each row's scale, its largest magnitude over `top`, and its entries as multiples of that."""
    largest = np.abs(table).max(axis=1, initial=0.0)
    scales = (largest / np.float32(top)).astype(np.float32)
    divisors = np.where(scales > 0, scales, np.float32(1)).astype(np.float32)[:, None]
    return scales, np.clip(np.rint(table / divisors), -top, top).astype(np.int8)
