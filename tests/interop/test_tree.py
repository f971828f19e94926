"""What plain words mean, where things stand, and what a stranger's file may cost."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.interop import tree
from fallow.interop.model import FileRefused
from fallow.interop.tree import Moment, compose, field_of, js_number, js_word, line_of, plain_value, to_data


def data(text: str) -> Any:
    root = compose(text.encode())
    return None if root is None else to_data(root)


def refusal(text: str | bytes) -> FileRefused:
    with pytest.raises(FileRefused) as caught:
        root = compose(text.encode() if isinstance(text, str) else text)
        if root is not None:
            to_data(root)
    return caught.value


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("yes", "yes"), ("on", "on"), ("no", "no"), ("y", "y"), ("True", True), ("tRUE", "tRUE"), ("false", False),
        ("~", None), ("null", None), ("", None), ("Null", None), ("none", "none"), ("010", 10), ("0o10", 8),
        ("0x1F", 31),
        ("0b11", 3), ("-5", -5), ("+5", 5), ("1_000", "1_000"), ("80.0", 80), ("0.5", 0.5), (".5", 0.5), ("1.", 1),
        ("1e3", 1000), ("1e-2", 0.01), ("100m", "100m"), ("1:20", "1:20"), (".inf", float("inf")), ("1.2.3", "1.2.3"),
        ("-", "-"), ("+", "+"), (".", "."), ("-a", "-a"), ("0x", "0x"), ("9007199254740993", 9007199254740992),
        ("99999999999999999999", 1e20), ("1e999", float("inf")), ("2024-1", "2024-1"),
    ],
)  # fmt: skip
def test_plain_words(word: str, value: Any) -> None:
    found = plain_value(word)
    assert found == value and type(found) is type(value)


def test_dates_are_neither_texts_nor_numbers() -> None:
    assert isinstance(plain_value("2024-01-31"), Moment)
    assert isinstance(plain_value("2001-12-14t21:59:43.10-05:00"), Moment)
    assert js_word(plain_value("2024-01-31")) == "2024-01-31"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (-0.0, "0"), (0.1, "0.1"), (290.00000000000006, "290.00000000000006"), (-1.5, "-1.5"),
        (1e21, "1e+21"),
        (1.8446744073709552e19, "18446744073709552000"), (1e-7, "1e-7"), (1.5e-7, "1.5e-7"), (0.000001, "0.000001"),
        (1.25e25, "1.25e+25"), (float("nan"), "NaN"), (float("-inf"), "-Infinity"), (2**53, "9007199254740992"),
    ],
)  # fmt: skip
def test_numbers_as_javascript_writes_them(number: float, text: str) -> None:
    assert js_number(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_they_read_back_to_themselves(number: float) -> None:
    assert float(js_number(number)) == number


def test_values_as_javascript_writes_them() -> None:
    assert js_word([1, None, True, "a"]) == "1,,true,a"
    assert (js_word(None), js_word({}), js_word(False)) == ("null", "[object Object]", "false")


def test_tags_may_say_what_a_word_is_and_nothing_else() -> None:
    assert data("[!!str 1, !!int '2', !!bool true, !!null '']") == ["1", 2, True, None]
    for text in ("!!int x", "!!binary aGk=", "!!python/object:os.system x", "!mine x", "!!set {a}", "!!omap []"):
        assert "tag" in str(refusal(text))


def test_anchors_are_shared_and_merged() -> None:
    assert data("a: &x {k: 1}\nb: *x\nc: {<<: *x, k: 2}\nd: {k: 3, <<: *x}") == {
        "a": {"k": 1}, "b": {"k": 1}, "c": {"k": 2}, "d": {"k": 3},
    }  # fmt: skip
    assert data("a: {<<: [{x: 1}, {x: 2, y: 3}]}") == {"a": {"x": 1, "y": 3}}
    assert data("a: {'<<': 5}") == {"a": {"<<": 5}}
    assert "merge" in str(refusal("a: {<<: 5}"))
    assert "above it" in str(refusal("a: *nowhere"))
    assert "contains it" in str(refusal("a: &x [*x]"))


def test_keys() -> None:
    assert data("80: a\ntrue: b\n~: c\n0x10: d\n'x y': e") == {
        "80": "a",
        "true": "b",
        "null": "c",
        "16": "d",
        "x y": "e",
    }
    assert "twice" in str(refusal("a: 1\nb: 2\na: 3"))
    assert refusal("a: 1\nb: 2\na: 3").problems[0].line == 3
    assert "key" in str(refusal("[1]: a"))


def test_one_document_of_text() -> None:
    assert data("") is None and data("# nothing") is None
    assert data("\ufeffa: 1") == {"a": 1}
    assert data("---\na: 1\n...\n") == {"a": 1}
    assert "second document" in str(refusal("a: 1\n---\nb: 2"))
    assert "line 2" in str(refusal(b"a: 1\nb: \xff"))
    assert refusal("a: [1\nb: 2").problems[0].line == 2


def test_json_is_read_with_letters_beyond_16_bits() -> None:
    value = {"a": "😀", "b": ["\\ud83d", "𝄞", "/", "é", "\u2028"]}
    assert data(json.dumps(value)) == value
    assert data('{"a": "\\/x"}') == {"a": "/x"}


def test_lines_and_fields() -> None:
    root = compose(b"a:\n  b:\n    - x\n    - c: 1\n")
    assert line_of(root, ("a", "b", 1, "c")) == 4
    assert line_of(root, ("a", "b", 1, "missing")) == 4
    assert line_of(root, ("a", "missing")) == 1
    assert line_of(None, ("a",)) == 0
    assert field_of(("a", "b", 1, "c")) == "a.b[1].c"


def test_bombs_are_refused_before_they_go_off() -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    laughs += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    merges = "m0: &m0 {x: 1}\n" + "".join(
        f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}], k{n}: 1}}\n" for n in range(1, 40)
    )
    deep = "[" * 1000 + "]" * 1000
    by_alias = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200))
    for text in (laughs, merges, deep, by_alias, "a: " + "9" * 5000, "a: 1." + "9" * 5000, "a: 0x" + "f" * 5000):
        assert refusal(text).why == "bound"
    assert refusal("- x\n" * (tree.MAX_VALUES + 1)).why == "bound"
    assert refusal(b" " * (tree.MAX_BYTES + 1)).why == "bound"


@given(st.one_of(st.binary(max_size=200), st.text("&*<>!|%@`{}[],:?-#'\"\\ \n\t0aé~.", max_size=60).map(str.encode)))
def test_whatever_the_bytes_are_it_is_read_or_refused(text: bytes) -> None:
    with suppress(FileRefused):
        root = compose(text)
        if root is not None:
            to_data(root)
