"""The constants of the exact elementary functions; each is the binary64 number written here.

Series are Taylor's, with each coefficient rounded once, except `ERFCX`, a Chebyshev interpolant. Coefficients stand
highest power first. Source: docs/spec/exact-arithmetic.md, section 6.
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

ERF = (
    float.fromhex("0x1.fcc5720624c1cp-27"),
    float.fromhex("-0x1.5f742ec43e71ap-23"),
    float.fromhex("0x1.b9e6c9dc651a3p-20"),
    float.fromhex("-0x1.f4d25c3e0c2ebp-17"),
    float.fromhex("0x1.f9a326f9b89b7p-14"),
    float.fromhex("-0x1.c02db40040b86p-11"),
    float.fromhex("0x1.565bcd0e6a53fp-8"),
    float.fromhex("-0x1.b82ce31288b51p-6"),
    float.fromhex("0x1.ce2f21a042be2p-4"),
    float.fromhex("-0x1.812746b0379e7p-2"),
    float.fromhex("0x1.20dd750429b6dp+0"),
)
"""erf(x) / x in x^2: 2 / sqrt(pi) * (-1)^n / (n! (2 n + 1)), n = 10 down to 0"""
ERFCX_CENTRE = 3.75
ERFCX = (
    float.fromhex("0x1.38cf6cbfb5e30p-26"),
    float.fromhex("0x1.244b99ea9fb27p-27"),
    float.fromhex("-0x1.d346b6e1176ccp-23"),
    float.fromhex("-0x1.db252f5fcc52ep-26"),
    float.fromhex("0x1.c924d0c129d20p-20"),
    float.fromhex("-0x1.0eb9b1a0f4a0cp-20"),
    float.fromhex("-0x1.7ec9cc7ce1183p-17"),
    float.fromhex("0x1.77fb2c16e9ae4p-16"),
    float.fromhex("0x1.b11ea9cb53c2cp-15"),
    float.fromhex("-0x1.3042f54c4b0fbp-12"),
    float.fromhex("0x1.33fc8c69f49ddp-12"),
    float.fromhex("0x1.cc3a4e35d032fp-10"),
    float.fromhex("-0x1.3f603e3d0cde6p-7"),
    float.fromhex("0x1.d0b002c407c62p-6"),
    float.fromhex("-0x1.e0d0fa60f7ef8p-5"),
    float.fromhex("0x1.7a14188f3f508p-4"),
    float.fromhex("-0x1.bda9309a7557bp-4"),
    float.fromhex("0x1.510169d05fb8ap-4"),
    float.fromhex("0x1.d5f294817b41bp-9"),
    float.fromhex("-0x1.1f367683f83b0p-3"),
    float.fromhex("0x1.3ccda0b5d5dc2p+0"),
)
"""(1 + 2 x) e^(x^2) erfc(x) in t = (x - 3.75) / (x + 3.75), degree 20: the interpolant at the 21 Chebyshev points of
[-1, 1]"""
SQRT_HALF = float.fromhex("0x1.6a09e667f3bcdp-1")
ONE_OVER_SQRT_TWO_PI = float.fromhex("0x1.9884533d43651p-2")
SQRT_TWO_OVER_PI = float.fromhex("0x1.9884533d43651p-1")
GELU_CUBIC = 0.044715
