"""The table of docs/explanation/economics.md: how likely checks are to catch a cheat, and what they cost. A test holds
the page to it.

    python benchmarks/check_odds.py
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import NamedTuple

from fallow.kinds.chain import SKIPPED, catches, percent


def catches_in(rounds: int, once: Fraction) -> Fraction:
    """The probability of being caught at least once in `rounds` claims, each with probability `once`."""
    return 1 - (1 - once) ** rounds


class Scheme(NamedTuple):
    """How a round is cut and checked: `units` links a step, `drawn` of all the round's links are done again."""

    steps: int
    units: int
    drawn: int

    @property
    def links(self) -> int:
        return self.steps * self.units

    @property
    def cost(self) -> Fraction:
        """What a check costs, in rounds: the links that are done again."""
        return Fraction(min(self.drawn, self.links), self.links)

    def catches_skipping(self, part: Fraction) -> Fraction:
        """Against a worker that leaves out `part` of its steps, at least one, and claims that it took them. Each of
        them breaks all its links: there are no gradients to sum."""
        skipped = max(1, ceil(self.steps * part))
        return catches(self.links, skipped * self.units, self.drawn)

    def catches_flip(self) -> Fraction:
        """Against a worker that alters one element of one gradient: exactly one link of the round is false."""
        return catches(self.links, 1, self.drawn)


SCHEMES = tuple(Scheme(100, 2, drawn) for drawn in (1, 2, 4, 8, 16))
FLIPS = (1, 10, 50, 200)


def table() -> str:
    """The table of the economics page: rounds of 100 steps with two micro-batches each."""
    rows = [
        "| links drawn | cost of a check, in rounds | skips 10 % of the steps: caught in one round | in ten | "
        + " | ".join(f"flips one element: in {rounds}" for rounds in FLIPS)
        + " |",
        "|---|---|---|---|" + "---|" * len(FLIPS),
    ]
    for scheme in SCHEMES:
        skip, flip = scheme.catches_skipping(SKIPPED), scheme.catches_flip()
        cells = [percent(scheme.cost), percent(skip), percent(catches_in(10, skip))]
        cells += [percent(catches_in(rounds, flip)) for rounds in FLIPS]
        rows.append(f"| {scheme.drawn} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
