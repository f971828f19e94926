"""The constants of the exact elementary functions; each is the binary64 number written here.

Series are Taylor's, with each coefficient rounded once. Coefficients stand highest power first. Source:
docs/spec/exact-arithmetic.md, section 6.
"""

from __future__ import annotations

from math import factorial

EXP_LIMIT = 700.0
"""Arguments of e^x are clamped to this magnitude: far beyond what binary32 can hold, well inside binary64."""
LOG2_E = float.fromhex("0x1.71547652b82fep+0")
LN2_HIGH = float.fromhex("0x1.62e42fef00000p-1")
"""The first 33 bits of ln 2: times an integer below 2^20 it is exact."""
LN2_LOW = float.fromhex("0x1.473de6af278edp-34")
EXP = tuple(1.0 / factorial(n) for n in range(11, 1, -1))
"""(e^r - 1 - r) / r^2 = 1/2! + r/3! + ... + r^9/11!"""

SQRT_HALF_BITS = 0x3FE6A09E00000000
"""The bits of a number just below sqrt(1/2), where the interval of the logarithm's mantissa begins."""
LOG = tuple(2.0 / n for n in range(19, 1, -2))
"""(2 artanh(s) - 2 s) / s^3 in z = s^2: 2/3 + 2/5 z + ... + 2/19 z^8"""

SIN_LIMIT = 4194304.0
"""2^22. Sines of larger angles are not defined."""
TWO_OVER_PI = float.fromhex("0x1.45f306dc9c883p-1")
HALF_PI = float.fromhex("0x1.921fb54442d18p+0")
HALF_PI_PARTS = (
    float.fromhex("0x1.921fb54400000p+0"),
    float.fromhex("0x1.0b4611a400000p-34"),
    float.fromhex("0x1.13198a2e03707p-65"),
)
"""pi / 2 in three parts: the first two have at most 31 bits, so their products by an integer below 2^22 are exact."""
SIN = tuple((-1.0) ** n / factorial(2 * n + 1) for n in range(7, 0, -1))
"""(sin r - r) / r^3 in z = r^2: -1/3! + z/5! - ... - z^6/15!"""
COS = tuple((-1.0) ** n / factorial(2 * n) for n in range(8, 0, -1))
"""(cos r - 1) / r^2 in z = r^2: -1/2! + z/4! - ... + z^7/16!"""
