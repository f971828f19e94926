"""What a kind answers whose tasks also come in streams (`workloads/lane.py`): how answers are metered and what of them
can be told to be false at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from fallow.wire.local import LaneJob, ServeJob


class Asked(NamedTuple):
    """What was asked under one number of a lane, and heard since: `streamed` is the text that was told piece by piece,
    in `pieces` of at least one unit each, None where only the whole answer was asked for. Nobody waits for an
    `unwanted` answer any more. `exact` is said of the lane's work."""

    params: bytes
    streamed: str | None = None
    pieces: int = 0
    unwanted: bool = False
    exact: bool = False


class LaneSide(ABC):
    """The lanes of a kind. `program` is "module:function" of a function from a Preload, a way to answer and a way to
    log to a Lane (`workloads/lane.py`)."""

    program: str

    @abstractmethod
    def most_units(self, params: bytes) -> int:
        """The most that a task can be metered at. Raises PeerFault E1102 for what are no parameters of this kind,
        UsageError E1904 for an answer without a limit, which nobody could be sure to pay."""

    @abstractmethod
    def usual_units(self, work: ServeJob | LaneJob) -> int:
        """What a task is reckoned with where only its limit is known."""

    @abstractmethod
    def resumed(self, params: bytes, text: str, pieces: int) -> bytes:
        """The parameters with what was answered already given, so that a stream goes on elsewhere, and is no longer for
        it."""

    @abstractmethod
    def fits(self, asked: Asked, value: bytes, units: int) -> bool:
        """Whether units follow from the answer, and the answer from the question: a provider could run the meter.
        Raises nothing."""

    def counted(self, params: bytes, value: bytes, units: int) -> int:
        """What is paid of an answer that fits and is metered at `units`: no more than its buyer can count itself, since
        nobody may do it again."""
        return units

    @abstractmethod
    def cut_short(self, value: bytes) -> bool:
        """Whether an answer that fits ended because nobody wanted more."""


class OneUnit(LaneSide):
    """Lanes of tasks that are answered at once and whole, at one unit each."""

    def __init__(self, program: str) -> None:
        self.program = program

    def most_units(self, params: bytes) -> int:
        return 1

    def usual_units(self, work: ServeJob | LaneJob) -> int:
        return 1

    def resumed(self, params: bytes, text: str, pieces: int) -> bytes:
        return params

    def fits(self, asked: Asked, value: bytes, units: int) -> bool:
        return units == 1

    def cut_short(self, value: bytes) -> bool:
        return False
