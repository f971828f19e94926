"""Documents in rows: each token in one place, whole documents whole, nothing learned twice."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fallow.workloads.packing import Packing, Passage, TokenRows, pack, table

SIZES = st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=30)


def piece(start: int, size: int, *, text: bool) -> Passage:
    return Passage(np.arange(start, start + size, dtype=np.int32), np.ones(size, dtype=np.bool_), text)


def pieces_of(sizes: list[tuple[int, bool]]) -> list[Passage]:
    starts = np.cumsum([0, *(size for size, _ in sizes)])
    return [piece(int(start), size, text=text) for start, (size, text) in zip(starts, sizes, strict=False)]


def documents(rows: TokenRows) -> list[list[int]]:
    """The documents that lie in rows, without what fills them up (-1)."""
    found: list[list[int]] = []
    for tokens, first in zip(rows.tokens, rows.first, strict=True):
        for start in sorted(set(first.tolist())):
            found.append([int(t) for t, f in zip(tokens, first, strict=True) if f == start and t >= 0])
    return [document for document in found if document]


@given(sizes=SIZES, length=st.integers(2, 16), apart=st.booleans())
def test_every_token_is_in_one_place_or_counted_as_left_out(sizes: list, length: int, apart: bool) -> None:
    given_pieces = pieces_of(sizes)
    found = pack(given_pieces, length, apart=apart)
    rows = table(found.rows, length, -1)
    laid = documents(rows)
    tokens = [token for document in laid for token in document]
    assert len(tokens) == len(set(tokens))
    whole = [p for p in given_pieces if 1 < len(p.tokens) <= length]
    assert all(p.tokens.tolist() in laid for p in whole)
    assert found.cut == sum(len(p.tokens) > length and not p.text for p in given_pieces)
    long = [p for p in given_pieces if len(p.tokens) > length]
    assert all(p.tokens[:length].tolist() in laid for p in long)
    lost = {int(t) for p in given_pieces for t in p.tokens} - set(tokens)
    cut_off = {int(t) for p in long if not p.text for t in p.tokens[length:]}
    assert len(lost - cut_off) == found.tokens_left_out + found.unlearned
    assert not apart or len(rows) == len(laid)


@given(sizes=SIZES, length=st.integers(2, 16))
def test_no_document_begins_with_something_to_learn(sizes: list, length: int) -> None:
    rows = table(pack(pieces_of(sizes), length).rows, length, -1)
    begins = rows.first == np.arange(length)
    assert not (rows.learned & begins)[:, 1:].any()
    assert not (rows.learned & (rows.tokens < 0)).any()
    assert rows.learned[:, 1:].any(axis=1).all()
    assert rows.counted == sum(len(document) - 1 for document in documents(rows))


def test_rows_are_full() -> None:
    found = pack(pieces_of([(5, False), (3, False), (6, False), (2, False), (8, False)]), 8)
    assert [[len(part.tokens) for part in row] for row in found.rows] == [[5, 3], [6, 2], [8]]


def test_the_rest_of_a_text_fills_up_and_is_left_out_when_alone() -> None:
    alone = pack(pieces_of([(19, True)]), 8)
    assert ([len(row) for row in alone.rows], alone.tokens_left_out) == ([1, 1], 3)
    beside = pack(pieces_of([(19, True), (5, False)]), 8)
    assert ([sum(len(part.tokens) for part in row) for row in beside.rows], beside.tokens_left_out) == ([8, 8, 8], 0)


def test_what_is_cut_to_nothing_is_told() -> None:
    tokens = np.arange(20, dtype=np.int32)
    found = pack([Passage(tokens, tokens >= 12), Passage(tokens, tokens >= 4)], 8)
    assert (found.cut, found.unlearned, len(found.rows)) == (2, 1, 1)


def test_rows_that_are_one_document_say_no_more_than_that() -> None:
    rows = table(pack([piece(0, 16, text=True)], 8).rows, 8, 0)
    batch = rows.sequences()
    assert (batch.learned, batch.first) == (None, None)
    assert table(Packing().rows, 8, 0).tokens.shape == (0, 8)
    mixed = table(pack(pieces_of([(5, False), (3, False)]), 8).rows, 8, 0)[np.asarray([0])].sequences()
    assert mixed.first is not None
    assert mixed.first[0].tolist() == [0] * 5 + [5] * 3
    assert mixed.learned is not None
    assert mixed.learned[0].tolist() == [True] * 5 + [False] + [True] * 2
