"""Sections 4 to 14 of docs/spec/exact-arithmetic.md in plain Python: floats are binary64, integers are exact, `struct`
rounds to binary32. Written from the specification, not from the implementation; it re-derives every vector."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from math import copysign, factorial, frexp, inf, isnan, ldexp, nan, pi, sqrt

Row = list[float]
POISON = -(2**63)
WORD = 2**32 - 1
h = float.fromhex

EXP = [1 / factorial(n) for n in range(11, 1, -1)]
LOG = [2 / n for n in range(19, 1, -2)]
SIN = [(-1) ** n / factorial(2 * n + 1) for n in range(7, 0, -1)]
COS = [(-1) ** n / factorial(2 * n) for n in range(8, -1, -1)]
LN2_HIGH, LN2_LOW = h("0x1.62e42fef00000p-1"), h("0x1.473de6af278edp-34")
HALF_PI = h("0x1.921fb54400000p+0"), h("0x1.0b4611a400000p-34"), h("0x1.13198a2e03707p-65")


def f32(x: float) -> float:
    if isnan(x):
        return nan
    try:
        return struct.unpack("<f", struct.pack("<f", x))[0]
    except OverflowError:
        return copysign(inf, x)


def over(a: float, b: float) -> float:
    """The IEEE quotient, where Python would rather raise."""
    if b == 0:
        return nan if a == 0 or isnan(a) else copysign(inf, a) * copysign(1.0, b)
    return a / b


def root(x: float) -> float:
    return nan if x < 0 or isnan(x) else sqrt(x)


def clamp(x: float, low: float, high: float) -> float:
    return low if x < low else min(x, high)


def rint(x: float) -> float:
    return x if isnan(x) or abs(x) >= 2.0**52 else float(round(x))


def horner(z: float, cs: Sequence[float]) -> float:
    p = z * cs[0] + cs[1]
    for c in cs[2:]:
        p = p * z + c
    return p


def exp64(x: float) -> float:
    x = clamp(x, -700.0, 700.0)
    k = rint(x * h("0x1.71547652b82fep+0"))
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    return ((horner(r, EXP) * r) * r + r + 1) * (nan if isnan(k) else ldexp(1.0, int(k)))


def log64(x: float) -> float:
    if not x > 0 or x == inf:
        return -inf if x == 0 else inf if x == inf else nan
    m, k = frexp(x)
    if m < struct.unpack("<d", struct.pack("<Q", 0x3FE6A09E00000000))[0]:
        m, k = m * 2, k - 1
    s = (m - 1) / (m + 1)
    z = s * s
    small = (horner(z, LOG) * z) * s + (s + s)
    return (k * LN2_LOW + small) + k * LN2_HIGH


def sincos64(x: float) -> tuple[float, float]:
    a = abs(x)
    if not a <= 2.0**22:
        return nan, nan
    k = rint(a * h("0x1.45f306dc9c883p-1"))
    r = ((a - k * HALF_PI[0]) - k * HALF_PI[1]) - k * HALF_PI[2]
    z = r * r
    s, c = (horner(z, SIN) * z) * r + r, horner(z, COS)
    sine, cosine = ((s, c), (c, -s), (-s, -c), (-c, s))[int(k) % 4]
    return sine * copysign(1.0, x), cosine


def gridsum(terms: Row, p: int = 36) -> float:
    if any(isnan(t) for t in terms) or any(abs(t) >= 2.0**900 for t in terms):
        return nan
    top = max((abs(t) for t in terms), default=0.0)
    if top < 2.0**-900:
        return 0.0
    exponent = frexp(top)[1] - 1
    return ldexp(float(sum(int(rint(ldexp(t, p - 1 - exponent))) for t in terms)), exponent + 1 - p)


def mean(terms: Row) -> float:
    return gridsum(terms) / len(terms)


def token_terms(terms: Row, length: int) -> int:
    if any(isnan(t) for t in terms):
        return POISON
    bound = 2.0 ** (22 - (length - 1).bit_length())
    total = sum(round(Fraction(clamp(t, -bound, bound)) * 2**40) for t in terms)
    return max(-(2**53), min(2**53, total))


def weights(x: Row, scale: float = 1.0) -> tuple[Row, float, float]:
    """e, S and m of section 7."""
    z = [value * scale for value in x]
    m = nan if any(isnan(value) for value in z) else max(z)
    e = [f32(exp64(value - m)) for value in z]
    return e, nan if any(isnan(value) for value in e) else float(sum(round(value * 2**32) for value in e)), m


def softmax(x: Row, start: int, stop: int, scale: float) -> Row:
    if start >= stop:
        return [0.0] * len(x)
    e, total, _ = weights(x[start:stop], scale)
    r = 1 / (total * 2**-32)
    return [0.0] * start + [f32(value * r) for value in e] + [0.0] * (len(x) - stop)


def softmax_backward(p: Row, dp: Row, scale: float) -> Row:
    c = gridsum([0.0 if a == 0 else a * b for a, b in zip(p, dp, strict=True)])
    return [0.0 if a == 0 else f32((a * (b - c)) * scale) for a, b in zip(p, dp, strict=True)]


def silu64(x: float) -> float:
    return clamp(x, -700.0, inf) / (exp64(-x) + 1)


def silu_slope(x: float) -> float:
    s = 1 / (exp64(-x) + 1)
    return s * (clamp(x, -700.0, 700.0) * (1 - s) + 1)


def rms_norm(x: Row, w: Row, eps: float) -> tuple[Row, float]:
    r = over(1.0, root(mean([v * v for v in x]) + eps))
    return [f32((v * r) * u) for v, u in zip(x, w, strict=True)], r


def rms_norm_backward(dy: Row, x: Row, w: Row, r: float) -> Row:
    g = [a * b for a, b in zip(dy, w, strict=True)]
    a = ((gridsum([u * v for u, v in zip(g, x, strict=True)]) * r) * r) / len(x)
    return [f32((u - v * a) * r) for u, v in zip(g, x, strict=True)]


def frequencies(size: int, base: float, kind: str, setting: dict[str, float]) -> Row:
    found: Row = []
    for i in range(size // 2):
        v = exp64(-((float(2 * i) / float(size)) * log64(base)))
        if kind == "default":
            found.append(f32(v))
            continue
        slow = v / setting["factor"]
        if kind == "linear":
            found.append(f32(slow))
            continue
        low, high = setting["low_freq_factor"], setting["high_freq_factor"]
        waves = (setting["original_max_position_embeddings"] * v) / (2 * pi)
        keep = (waves - low) / (high - low)
        found.append(f32(slow if waves < low else v if waves > high else (1 - keep) * slow + keep * v))
    return found


def rotate(x: Row, cos: Row, sin: Row) -> Row:
    half = len(cos)
    first = [f32(f32(x[i] * cos[i]) - f32(x[half + i] * sin[i])) for i in range(half)]
    return first + [f32(f32(x[half + i] * cos[i]) + f32(x[i] * sin[i])) for i in range(half)]


def cross_entropy(x: Row, target: int) -> tuple[float, Row]:
    if target == -100:
        return 0.0, [0.0] * len(x)
    e, total, m = weights(x)
    r = 1 / (total * 2**-32)
    slope = [f32(value * r - 1) if j == target else f32(value * r) for j, value in enumerate(e)]
    return f32(log64(total * 2**-32) - (x[target] - m)), slope


def total_loss(losses: Row) -> int:
    if any(isnan(loss) for loss in losses):
        return POISON
    return sum(round(clamp(loss, -1024.0, 1024.0) * 2**32) for loss in losses)


def philox(counter: Sequence[int], seed: int) -> list[int]:
    a, b, c, d = counter
    low, high = seed & WORD, seed >> 32 & WORD
    for _ in range(10):
        left, right = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = right >> 32 ^ b ^ low, right & WORD, left >> 32 ^ d ^ high, left & WORD
        low, high = (low + 0x9E3779B9) & WORD, (high + 0xBB67AE85) & WORD
    return [a, b, c, d]


def word(seed: int, stream: int, position: int, index: int) -> int:
    return philox((index >> 2 & WORD, position, stream, index >> 34), seed)[index % 4]


def gumbel64(seed: int, stream: int, position: int, index: int) -> float:
    return -log64(-log64((2 * word(seed, stream, position, index) + 1) * 2.0**-33))


def order(x: Row) -> list[int]:
    cleared = [-inf if isnan(v) else v for v in x]
    return sorted(range(len(x)), key=lambda i: (-cleared[i], i))


def top_p(x: Row, p: float) -> list[bool]:
    cleared = [-inf if isnan(v) else v for v in x]
    e, total, _ = weights(cleared)
    kept, before = [False] * len(x), 0
    for rank, i in enumerate(order(x)):
        kept[i] = rank == 0 or float(before) < total * p
        before += 0 if isnan(e[i]) else round(e[i] * 2**32)
    return kept


def sample(x: Row, temperature: float, name: tuple[int, int, int], k: int | None, p: float | None) -> int:
    if temperature == 0:
        return order(x)[0]
    x = [f32((-inf if isnan(v) else v) / temperature) for v in x]
    if k is not None:
        first = set(order(x)[:k])
        x = [v if i in first else -inf for i, v in enumerate(x)]
    if p is not None:
        x = [v if keep else -inf for v, keep in zip(x, top_p(x, p), strict=True)]
    return order([v + gumbel64(*name, i) for i, v in enumerate(x)])[0]
