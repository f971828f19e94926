"""Bugs to plant, to prove that the simulator can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fallow.sim.pool import Pool

Spoil = Callable[["Pool"], None]
BUGS: dict[str, str] = {}


@contextmanager
def planted(name: str) -> Iterator[Spoil]:
    yield lambda _pool: None
