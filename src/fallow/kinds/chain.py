"""What a kind answers whose claims are chains of links: a few are drawn after the claim and done again, each from a
state that was committed to (`rules/steward/checks/sample.py`, `fallow verify --replay`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from math import comb
from typing import NamedTuple

from fallow.wire.local import Work
from fallow.wire.tasks import DEFAULT_TRACE_BYTES, Part, TaskOutput, TaskSpec

PREFIX = "trace/"
MIN_TRACES_KEPT, MAX_TRACES_KEPT = 2, 4
"""Of how many rounds a provider keeps the states: checks are drawn as soon as a claim is heard of. More than the least
only while they take no more than DEFAULT_TRACE_BYTES together."""
MAX_ROOM_BYTES = 1 << 62
"""Nobody has that much; an order can still say it."""
ALWAYS_KEPT_BYTES = DEFAULT_TRACE_BYTES
"""What a claim's states may take although no order asked for the room."""
SKIPPED = Fraction(1, 10)
"""The part of its steps that a cheat is reckoned to leave out where people are told what checks are worth."""


def is_state(name: str) -> bool:
    """Whether a part of that name is a state of a chain: a part of the claimed output, an input of its check."""
    return name.startswith(PREFIX)


class Recheck(NamedTuple):
    """The task of doing links again, and what it gives if the claim is true."""

    task: TaskSpec
    expected: TaskOutput


class Chain(ABC):
    """The chains of a kind."""

    @abstractmethod
    def links(self, task: TaskSpec, output: TaskOutput) -> int:
        """How many links a claim commits to; 0 for a task without any, or an output that is no chain. Raises
        nothing."""

    @abstractmethod
    def check(self, task: TaskSpec, output: TaskOutput, drawn: tuple[int, ...]) -> Recheck:
        """The check of the links `drawn` of a claim that has some. It does not hold the answers."""

    @abstractmethod
    def drawn(self, check: TaskSpec) -> tuple[int, ...]:
        """The links that a check of this kind's does again."""

    @abstractmethod
    def states(self, check: TaskSpec) -> tuple[Part, ...]:
        """The inputs of a check that are states of the chain: whoever claimed it, or was given them, holds them."""

    @abstractmethod
    def check_ppm(self, work: Work, links: int) -> int:
        """What the check of `links` costs, in parts per million of the claimed work, as far as it can be known before
        anybody has seen the model."""


def room_bytes(trace_bytes: int) -> int:
    """The disk space that a provider needs for rounds whose states take `trace_bytes`: for those that are kept, and for
    one that is being made."""
    least, most = MIN_TRACES_KEPT * trace_bytes, MAX_TRACES_KEPT * trace_bytes
    return min(min(most, max(least, ALWAYS_KEPT_BYTES)) + trace_bytes, MAX_ROOM_BYTES)


def too_many(sizes: Sequence[int]) -> int:
    """How many claims' states, of those that take `sizes` (oldest first), are given up to have what is left within the
    room that the order asked for."""
    gone = max(0, len(sizes) - MAX_TRACES_KEPT)
    while len(sizes) - gone > MIN_TRACES_KEPT and sum(sizes[gone:]) > ALWAYS_KEPT_BYTES:
        gone += 1
    return gone


def catches(links: int, broken: int, drawn: int, rate: Fraction = Fraction(1)) -> Fraction:
    """The probability that the check of one claim finds a broken link: `drawn` distinct ones of `links` are done again,
    `broken` of them are false, and a claim is checked with probability `rate`. Exact (hypergeometric): a link is either
    right or wrong, and whatever a cheat does differently breaks at least one."""
    drawn = min(drawn, links)
    return rate * (1 - Fraction(comb(links - broken, drawn), comb(links, drawn)))


def percent(value: Fraction) -> str:
    """With one decimal, rounded half to even; never 100 % for less."""
    tenths = round(value * 1000)
    if tenths >= 1000 and value < 1:
        return "> 99.9 %"
    return f"{tenths // 10}.{tenths % 10} %"
