"""Sections 3.1 to 3.4 and 3.6 of docs/spec/exact-arithmetic.md in plain Python: integers, fractions, struct, no more.

Written from the specification, not from the implementation; it re-derives every vector. Numbers travel as the bits of
binary32 (an int), so that nothing is lost on the way.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from math import inf, isfinite, nan

TOP = 8127
NAN_BITS = 0x7FC00000
POISON = -(2**63)


def from_bits(bits: int) -> float:
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def to_bits(value: float) -> int:
    """Of a float that is a binary32 already; every NaN alike."""
    return NAN_BITS if value != value else struct.unpack("<I", struct.pack("<f", value))[0]


def nearest(value: Fraction) -> int:
    """rint: to the nearest integer, ties to even."""
    return round(value)


def binary32(value: Fraction, negative_zero: bool = False) -> float:
    """The correctly rounded binary32, subnormals kept, overflow to infinity."""
    if value == 0:
        return -0.0 if negative_zero else 0.0
    exponent = _exponent(abs(value))
    unit = Fraction(2) ** (max(exponent, -126) - 23)
    rounded = nearest(value / unit) * unit
    if abs(rounded) >= Fraction(2) ** 128:
        return inf if value > 0 else -inf
    if rounded == 0:
        return -0.0 if value < 0 else 0.0
    return float(rounded)


def _exponent(magnitude: Fraction) -> int:
    """E with 2^E <= magnitude < 2^(E+1)."""
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    return exponent if Fraction(2) ** exponent <= magnitude else exponent - 1


def times(a: float, b: float) -> float:
    """The binary32 product of two binary32."""
    if not (isfinite(a) and isfinite(b)):
        return a * b  # infinities and NaN: no rounding in it
    signs = struct.pack("<f", a)[3] ^ struct.pack("<f", b)[3]
    return binary32(Fraction(a) * Fraction(b), negative_zero=bool(signs & 0x80))


def grid(vector: list[float], fold: list[float] | None = None) -> tuple[list[int], float]:
    """3.1, after 3.3's fold: the integers, and the step (NaN when not finite)."""
    if fold is not None:
        vector = [times(value, factor) for value, factor in zip(vector, fold, strict=True)]
    if not all(isfinite(value) for value in vector):
        return [0] * len(vector), nan
    largest = max((abs(Fraction(value)) for value in vector), default=Fraction(0))
    if largest == 0:
        return [0] * len(vector), 0.0
    exponent = max(_exponent(largest), -100)
    s = 12 - exponent if largest <= TOP * Fraction(2) ** (exponent - 12) else 11 - exponent
    return [nearest(Fraction(value) * Fraction(2) ** s) for value in vector], float(Fraction(2) ** -s)


def plus(a: float, b: float) -> float:
    """The binary32 sum of two binary32."""
    if not (isfinite(a) and isfinite(b)):
        return a + b
    return binary32(Fraction(a) + Fraction(b))


def grids(vector: list[float], fold: list[float]) -> list[tuple[list[int], float]]:
    """3.6: the grid of the folded vector, and that of what it leaves over."""
    q, step = grid(vector, fold)
    folded = [times(value, factor) for value, factor in zip(vector, fold, strict=True)]
    values = [times(float(number), step) for number in q]
    return [(q, step), grid([plus(value, -on) for value, on in zip(folded, values, strict=True)])]


def entry(left: list[int], right: list[int], *steps: float) -> float:
    """3.2: one entry of a product."""
    if any(step != step for step in steps):
        return nan
    exact = Fraction(sum(a * b for a, b in zip(left, right, strict=True)))
    for step in steps:
        exact *= Fraction(step)
    return binary32(exact)


def gradient_entry(left: list[int], right: list[int], step: float) -> int:
    """3.4: one entry of one sequence's weight gradient."""
    if step != step:
        return POISON
    exact = Fraction(sum(a * b for a, b in zip(left, right, strict=True))) * Fraction(step)
    limit = Fraction(2) ** 13
    return nearest(min(max(exact, -limit), limit) * 2**40)


def gradient_sum(entries: list[int]) -> int:
    return POISON if POISON in entries else sum(entries)
