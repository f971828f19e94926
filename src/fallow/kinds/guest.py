"""What a kind answers whose tasks are programs of their buyer's own: what is wrong with a program before anything is
bought, and the parameters of one run of it (`sdk/programs.py`, `fallow run KIND PROGRAM`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from fallow.wire.tasks import Part


class GuestRun(NamedTuple):
    """One run as its buyer wants it: what its results are called, the program's arguments and environment, its own
    input files by the names that it sees them under, and the one of them that is its standard input ("": none)."""

    name: str
    args: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    files: tuple[Part, ...] = ()
    stdin: str = ""


class RunEnding(NamedTuple):
    """How a run ended, as its output says: whether as a program ends that is content, and how, in words."""

    well: bool
    how: str


class Guest(ABC):
    """The side of a kind that runs programs. `module` is the name of the input that the program itself is; `folder` is
    where a run sees its input files. `check` is "module:function" of what refuses a program that `inspect` let pass,
    where the packages for it are installed."""

    module: ClassVar[str]
    folder: ClassVar[str]
    check: ClassVar[str]

    @abstractmethod
    def inspect(self, program: bytes, settings: Mapping[str, int]) -> tuple[str, ...]:
        """What the program wants of whoever runs it, in lines for people. Raises UsageError E1721, with the remedy, for
        one that could not run with these settings."""

    @abstractmethod
    def params(self, run: GuestRun, settings: Mapping[str, int]) -> bytes:
        """The parameters of one run. Raises UsageError E2001 for what no program can be given."""

    @abstractmethod
    def name_of(self, value: bytes) -> str:
        """What the run's results are called, from its value; "" where it has no name. Raises nothing."""

    @abstractmethod
    def files_of(self, value: bytes) -> dict[str, bytes]:
        """What of the results lies in the value itself, as files by name. Raises nothing."""

    @abstractmethod
    def ending(self, value: bytes) -> RunEnding:
        """How it ended. Raises nothing."""
