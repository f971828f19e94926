"""What every format of a file answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

from fallow.data.source import Source


class Record(NamedTuple):
    """One row as it lies in the file: a table of fields, or a text (`continues`: of one that goes on). `place` is how
    an error about it begins."""

    place: str
    fields: object
    continues: bool = False


class Format(ABC):
    """A way that rows lie in a file. `everywhere`: whoever has Fallow can read it, so that the file may travel as it
    is; else its rows are written as JSON lines before they go to strangers."""

    name: str
    everywhere: bool = True

    @abstractmethod
    def knows(self, source: Source) -> bool:
        """Whether this is such a file, by its beginning, or for want of one by its name. The formats before this one in
        the registry said no."""

    @abstractmethod
    def records(self, source: Source) -> Iterator[Record]:
        """Its rows, in order, in bounded memory. Errors: UsageError E1702 with the line, E1708 without the packages
        that it needs; never anything else, whatever the bytes."""
