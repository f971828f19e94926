"""docs/spec/vectors/product.json against the plain-Python reference, and against what we compute now."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.numerics.exact import make_vectors
from tests.numerics.exact import reference_product as reference

VECTORS: dict[str, Any] = json.loads(make_vectors.PATH.read_text("utf-8"))


def read(value: Any) -> Any:
    return [read(item) for item in value] if isinstance(value, list) else reference.from_bits(int(value, 16))


def bits(value: Any) -> Any:
    return [bits(item) for item in value] if isinstance(value, list) else f"{reference.to_bits(value):08x}"


def columns(rows: list[list[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def test_the_file_is_what_the_script_writes() -> None:
    assert make_vectors.PATH.read_text("utf-8") == make_vectors.text()


@pytest.mark.parametrize("case", VECTORS["quantise"])
def test_grids(case: dict[str, Any]) -> None:
    q, step = reference.grid(read(case["x"]), read(case["fold"]) if "fold" in case else None)
    assert (q, bits(step)) == (case["q"], case["step"])


@pytest.mark.parametrize("case", VECTORS["product"])
def test_products(case: dict[str, Any]) -> None:
    a, b = [[reference.grid(row) for row in read(case[name])] for name in "ab"]
    c = [[reference.entry(left, right, up, down) for right, down in b] for left, up in a]
    assert bits(c) == case["c"]


@pytest.mark.parametrize("case", VECTORS["folded"])
def test_folded_products(case: dict[str, Any]) -> None:
    b = [reference.grid(row) for row in read(case["b"])]
    steps, rights = [step for _, step in b], columns([q for q, _ in b])
    a = [reference.grid(row, steps) for row in read(case["a"])]
    assert bits([[reference.entry(left, right, up) for right in rights] for left, up in a]) == case["c"]


@pytest.mark.parametrize("case", VECTORS["gradient"])
def test_gradients(case: dict[str, Any]) -> None:
    totals: list[list[list[int]]] = []
    for dy, x in zip(read(case["dy"]), read(case["x"]), strict=True):
        inputs = [reference.grid(row) for row in x]
        steps, rights = [step for _, step in inputs], columns([q for q, _ in inputs])
        lefts = [reference.grid(column, steps) for column in columns(dy)]
        totals.append([[reference.gradient_entry(left, right, up) for right in rights] for left, up in lefts])
    summed = [
        [reference.gradient_sum([one[i][j] for one in totals]) for j in range(len(totals[0][0]))]
        for i in range(len(totals[0]))
    ]
    assert summed == case["total"]


@pytest.mark.parametrize("case", VECTORS["twice"])
def test_products_taken_twice(case: dict[str, Any]) -> None:
    w = [reference.grid(row) for row in read(case["w"])]
    steps, rights = [step for _, step in w], columns([q for q, _ in w])
    dx = [
        [
            [reference.plus(*(reference.entry(left, right, up) for left, up in reference.grids(row, steps)))
             for right in rights]
            for row in one
        ]
        for one in read(case["dy"])
    ]  # fmt: skip
    assert bits(dx) == case["dx"]
    entries: list[list[list[int]]] = []
    for dy, x in zip(read(case["dy"]), read(case["x"]), strict=True):
        inputs = [reference.grid(row) for row in x]
        steps, rights = [step for _, step in inputs], columns([q for q, _ in inputs])
        for pair in zip(*(reference.grids(column, steps) for column in columns(dy)), strict=True):
            entries.append([[reference.gradient_entry(q, right, up) for right in rights] for q, up in pair])
    places = [[(i, j) for j in range(len(entries[0][0]))] for i in range(len(entries[0]))]
    assert [[reference.gradient_sum([e[i][j] for e in entries]) for i, j in row] for row in places] == case["total"]


def test_the_reference_notices_a_flipped_bit() -> None:
    case = VECTORS["product"][0]
    a, b = [[reference.grid(row) for row in read(case[name])] for name in "ab"]
    a[0][0][3] += 1
    assert bits(reference.entry(a[0][0], b[0][0], a[0][1], b[0][1])) != case["c"][0][0]
