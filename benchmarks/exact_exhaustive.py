"""How far exact elementary functions lie from the truth, over every binary32 of a range: no sampling.

The truth is the C library's in x87 extended precision (64 bits), itself within a unit of its last place, so a distance
is known to about 2^-39 ulp. Needs a processor that has that format.

    python benchmarks/exact_exhaustive.py [--share N] [NAME...]

Without names: every number of exp and log, five to ten minutes of one core, written to
`benchmarks/results/exact_exhaustive.json`. With names, every 64th number of those functions (`--share 1`: every
one), printed only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from _record import OURS, Figure, Record
from fallow.numerics.exact import activations, functions

CHUNK = 1 << 21
BOUND = 0.50001
Extended = Any
"""An array of numpy's longdouble, which has no type of its own."""
FUNCTIONS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[Extended], Extended], float, float]] = {
    "exp": (functions.exp64, np.exp, -104.0, 88.73),
    "log": (functions.log64, np.log, 0.0, 3.5e38),
    "silu": (activations.silu64, lambda x: x / (1 + np.exp(-x)), -104.0, 30.0),
}
"""What it is, the truth, and a range outside of which the result is a constant, x itself, or the same by symmetry."""
FLAT = 2.0**-26
"""exp is constant to binary32 for smaller magnitudes."""


def bits_in(low: float, high: float, least: float) -> list[range]:
    """Ranges of the bits of all binary32 in [low, high] of magnitude at least `least`."""

    def bits(value: float) -> int:
        return int(np.float32(min(value, 3.4028234663852886e38)).view(np.uint32))

    start = bits(least) if least else 1
    found = [range(start, bits(high) + 1)] if high > 0 else []
    return found + ([range((1 << 31) + start, (1 << 31) + bits(-low) + 1)] if low < 0 else [])


def measure(name: str, share: int) -> tuple[float, int, int]:
    """The largest distance in ulps, how many results are not the nearest binary32, and how many were looked at."""
    function, truth, low, high = FUNCTIONS[name]
    worst, wrong, count = 0.0, 0, 0
    for span in bits_in(low, high, FLAT if name in ("exp", "silu") else 0.0):
        for first in range(span.start, span.stop, CHUNK * share):
            pattern = np.arange(first, min(first + CHUNK * share, span.stop), share, dtype=np.int64).astype(np.uint32)
            x = pattern.view(np.float32)
            y = function(torch.from_numpy(x).double()).float().numpy().astype(np.longdouble)
            exact = truth(x.astype(np.longdouble))
            inside = (np.abs(exact) < np.longdouble(2) ** 128 * (1 - np.longdouble(2) ** -25)) & (exact != 0)
            exponent = np.maximum(np.frexp(exact[inside])[1] - 1, -126) - 23
            distance = np.ldexp(np.abs(y[inside] - exact[inside]), -exponent)
            worst, wrong = max(worst, float(distance.max(initial=0))), wrong + int((distance > 0.5).sum())
            count += len(distance)
    return worst, wrong, count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=["exp", "log"])
    parser.add_argument("--share", type=int, default=0)
    arguments = parser.parse_args()
    if np.finfo(np.longdouble).nmant != 63:
        sys.exit("this processor has no extended precision to measure with")
    record = Record(
        "exact_exhaustive.py", f"every exact function is within {BOUND} ulp of the truth for every binary32"
    )
    for name in arguments.names:
        share = arguments.share or (1 if name in ("exp", "log") else 64)
        worst, wrong, count = measure(name, share)
        every = "every number" if share == 1 else f"every {share}th"
        record.add(
            Figure(OURS, f"{name}: largest distance, {every} of its range", "ulp", [worst], goal=BOUND, less=True)
        )
        record.add(Figure(OURS, f"{name}: not the nearest binary32, of {count:,}", "", [float(wrong)]))
    if arguments.names == ["exp", "log"] and not arguments.share:
        record.write()


if __name__ == "__main__":
    main()
