"""What a kind answers whose work a receipt's owner can do again (`rules/replay.py`, `fallow verify --replay`): which
tasks that takes, what they must give, and what it proves when they do, in words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from fallow.wire.tasks import TaskOutput, TaskSpec

ANYWHERE = "anywhere"
"""The class of machines that gives the same bits, where any machine does."""
LinkDraw = Callable[[int], tuple[int, ...]]
"""Which of so many links of a chain are done again."""


class NoReplay(NamedTuple):
    """Why a receipt's work is not done again: it cannot be (E1504), or its contents make no sense (E1707)."""

    code: str
    what: str
    next_step: str = ""


class ClaimedWork(NamedTuple):
    """What a receipt says: a task, what it gave, and the class of machines that gives the same bits, or "". The task of
    an answer of a `lane` does not say of which model it is."""

    task: TaskSpec
    output: TaskOutput
    numerics: str
    lane: bool = False


class Piece(NamedTuple):
    """A task for this machine, and what it gives if the receipt is true. `links` are those that it does again."""

    task: TaskSpec
    expected: TaskOutput
    links: tuple[int, ...] = ()


class Difference(NamedTuple):
    """Something that came out otherwise than claimed; `where` in words, the rest in hex, or as text for an answer."""

    where: str
    expected: str
    found: str


class Report(NamedTuple):
    """What was done again, what was not checked, and what agreement proves, in sentences. `odds` has the probability,
    as text, with which a cheat of that kind would have been found."""

    redone: str
    not_checked: tuple[str, ...]
    proves: str
    odds: dict[str, str]


class Shortened(NamedTuple):
    """An answer of a lane that ended before the limit that was asked for: the `task` of an answer that ends there, the
    context in tokens that this fills, and what is `untold` of it as long as nobody knows the lane's."""

    task: TaskSpec
    ends_at: int
    untold: str


class ReplayPlan(NamedTuple):
    """What is done again. `numerics` is EXACT, ANYWHERE, or the class of machines that can; `tokens` are read or made
    on the way; `links` are those of the chain of which some are drawn, 0 where there is none. `names_inputs` is false
    for a lane's answer: its receipt does not say of which model it is."""

    pieces: tuple[Piece, ...]
    numerics: str
    tokens: int
    words: Report
    links: int = 0
    names_inputs: bool = True
    shortened: Shortened | None = None

    @property
    def drawn(self) -> tuple[int, ...]:
        """The links, of all pieces."""
        return tuple(index for piece in self.pieces for index in piece.links)


class Replay(ABC):
    """How the work of a kind is done again."""

    @abstractmethod
    def plan(self, claimed: ClaimedWork, draw: LinkDraw) -> ReplayPlan | NoReplay:
        """What to do again. Raises FallowError for a task or a value that is none of this kind's."""

    def compared(self, piece: Piece, value: bytes) -> list[Difference]:
        """What of a value is compared with the claimed one, whether it differs or not. Raises FallowError for a value
        that is none of this kind's."""
        return [Difference("the value", piece.expected.value.hex(), value.hex())]

    def ram_bytes(self, model_bytes: int) -> int:
        """What doing it takes with a model whose files have that size, as far as the task does not say it."""
        return 0
