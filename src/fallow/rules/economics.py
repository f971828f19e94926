"""What a check is worth: how likely it is to catch a cheat, and what a cheat must have to lose.

All of it is exact arithmetic with fractions. The page `docs/explanation/economics.md` prints what these functions give,
and the simulator's tests hold the network to it.

A committed round is a chain of links (`kinds/train/trace.py`); whatever a cheat does differently breaks at least one
link, and a link is either right or wrong: an auditor computes hashes and compares."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, comb
from typing import NamedTuple


def catches(links: int, broken: int, drawn: int, rate: Fraction = Fraction(1)) -> Fraction:
    """The probability that the check of one claim finds a broken link: `drawn` distinct ones of `links` are done again,
    `broken` of them are false, and a claim is checked with probability `rate`. Exact (hypergeometric)."""
    drawn = min(drawn, links)
    return rate * (1 - Fraction(comb(links - broken, drawn), comb(links, drawn)))


def catches_in(rounds: int, once: Fraction) -> Fraction:
    """The probability of being caught at least once in `rounds` claims, each with probability `once`."""
    return 1 - (1 - once) ** rounds


def least_stake_ucr(gain_ucr: int, caught: Fraction, pay_ucr: int) -> int:
    """The least stake for which a lie does not pay: gain <= probability of being caught x (stake + the pay of the claim
    that is lost with it). Raises ZeroDivisionError where nothing is ever caught: no stake is enough."""
    return max(0, ceil(Fraction(gain_ucr) / caught) - pay_ucr)


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


SKIPPED = Fraction(1, 10)
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


def percent(value: Fraction) -> str:
    """With one decimal, rounded half to even; never 100 % for less."""
    tenths = round(value * 1000)
    if tenths >= 1000 and value < 1:
        return "> 99.9 %"
    return f"{tenths // 10}.{tenths % 10} %"


if __name__ == "__main__":
    import sys

    sys.stdout.write(table() + "\n")
