"""Documents in rows of one length: whole ones beside each other, longer ones cut.

A row knows where its documents begin, so that none sees another (`numerics/exact/sequences.py`), and which of its
tokens are learned. Best fit, longest first: the rows are as full as first fit makes them, and found in one pass.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from fallow.numerics.exact.sequences import Sequences

FEW = 100
Ids = npt.NDArray[np.int32]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Passage:
    """The tokens of a document, and which of them are learned. One that is a `text` may be cut anywhere and go on in
    another row."""

    tokens: Ids
    learned: Marks
    text: bool = False


@dataclass(frozen=True)
class TokenRows:
    """Rows of one length: `tokens`, `learned` and `first`, each (rows, tokens). `first` is the place of the first token
    of a token's document. What is left of a row is a document of its own of which nothing is learned."""

    tokens: Ids
    learned: Marks
    first: Ids

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, which: object) -> TokenRows:
        return TokenRows(self.tokens[which], self.learned[which], self.first[which])  # type: ignore[index]

    @property
    def counted(self) -> int:
        """How many tokens are predicted."""
        return int(self.learned[:, 1:].sum())

    def sequences(self) -> Sequences:
        """As models take them; without what need not be said."""
        whole = not self.first.any()
        return Sequences(
            torch.from_numpy(self.tokens.astype(np.int64)),
            None if self.learned[:, 1:].all() else torch.from_numpy(np.ascontiguousarray(self.learned)),
            None if whole else torch.from_numpy(self.first.astype(np.int64)),
        )


@dataclass
class Packing:
    """How packing went: documents that were `cut` to a row, of those that may not go on elsewhere; those of which
    nothing was left to learn; and tokens that were left out of texts."""

    cut: int = 0
    unlearned: int = 0
    tokens_left_out: int = 0
    rows: list[list[Passage]] = field(default_factory=list[list[Passage]])


def pack(pieces: Iterable[Passage], length: int, *, apart: bool = False) -> Packing:
    """Lay documents out in rows of `length` tokens, in the order of each row's first document; with `apart` every one
    has a row of its own. A text is cut every `length` tokens; its rest fills up a row beside others, and is left out
    when it would lie alone."""
    found = Packing()
    whole: list[tuple[int, Passage]] = []
    rests: list[tuple[int, Passage]] = []
    for number, piece in enumerate(pieces):
        for part in _parts(piece, length, found):
            if not part.learned[1:].any():
                found.unlearned += 1
            elif part.text and len(piece.tokens) > length and len(part.tokens) < length:
                rests.append((number, part))
            else:
                whole.append((number, part))
    rows = _Rows(length, apart=apart)
    for number, part in sorted(whole, key=lambda one: -len(one[1].tokens)):
        rows.add(number, part)
    kept = len(rows.found)
    for number, part in sorted(rests, key=lambda one: -len(one[1].tokens)):
        rows.add(number, part)
    for row in rows.found[kept:]:
        if len(row) == 1:
            found.tokens_left_out += len(row[0][1].tokens)
            row.clear()
    ordered = sorted((row for row in rows.found if row), key=lambda row: row[0][0])
    found.rows = [[part for _, part in row] for row in ordered]
    return found


def fitting_length(pieces: Sequence[Passage], least: int, most: int) -> int:
    """The smallest power of two times `least`, up to `most`, in which all but one in FEW documents fit that are to stay
    whole."""
    sizes = sorted(len(piece.tokens) for piece in pieces if not piece.text)
    wanted = sizes[-1 - len(sizes) // FEW] if sizes else least
    length = least
    while length < wanted:
        length *= 2
    return min(length, most)


class _Rows:
    """Rows that are being filled, by the room that is left in them."""

    def __init__(self, length: int, *, apart: bool) -> None:
        self._length, self._apart = length, apart
        self._rooms: list[int] = []
        self._with: dict[int, list[int]] = {}
        self.found: list[list[tuple[int, Passage]]] = []

    def add(self, number: int, piece: Passage) -> None:
        """Put a piece where the least room is left over, or into a row of its own."""
        size = len(piece.tokens)
        at = bisect_left(self._rooms, size)
        if self._apart or at == len(self._rooms):
            row, room = len(self.found), self._length
            self.found.append([])
        else:
            room = self._rooms[at]
            row = self._with[room].pop()
            if not self._with[room]:
                self._rooms.pop(at)
        self.found[row].append((number, piece))
        if left := room - size:
            waiting = self._with.setdefault(left, [])
            if not waiting:
                insort(self._rooms, left)
            waiting.append(row)


def _parts(piece: Passage, length: int, told: Packing) -> Sequence[Passage]:
    size = len(piece.tokens)
    if size <= length:
        return [piece]
    if not piece.text:
        told.cut += 1
        return [Passage(piece.tokens[:length], piece.learned[:length])]
    cuts = range(0, size, length)
    return [Passage(piece.tokens[at : at + length], piece.learned[at : at + length], text=True) for at in cuts]


def table(rows: Sequence[Sequence[Passage]], length: int, pad: int) -> TokenRows:
    """Rows of pieces as arrays."""
    tokens = np.full((len(rows), length), pad, dtype=np.int32)
    learned = np.zeros((len(rows), length), dtype=np.bool_)
    first = np.zeros((len(rows), length), dtype=np.int32)
    for number, row in enumerate(rows):
        at = 0
        for piece in row:
            end = at + len(piece.tokens)
            tokens[number, at:end], first[number, at:end] = piece.tokens, at
            learned[number, at:end] = piece.learned
            learned[number, at] = at == 0 and piece.learned[0]
            at = end
        first[number, at:] = at
    return TokenRows(tokens, learned, first)
