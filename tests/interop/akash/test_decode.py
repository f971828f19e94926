from __future__ import annotations

from typing import Any

import pytest

from fallow.interop.akash import decode as go
from fallow.interop.akash.decode import Decoder
from fallow.interop.shape import Trouble
from fallow.interop.tree import compose


def value(decoder: Decoder, text: str) -> tuple[Any, int]:
    """-> what it decodes to, and how many troubles that gave."""
    troubles: list[Trouble] = []
    return decoder(compose(text.encode()), troubles), len(troubles)


@pytest.mark.parametrize(
    ("decoder", "text", "expected"),
    [
        (go.word, "8.10", ("8.10", 0)), (go.word, "true", ("true", 0)), (go.word, "~", ("", 0)),
        (go.word, "[a]", ("", 1)),
        (go.flag, "yes", (True, 0)), (go.flag, "'on'", (True, 0)), (go.flag, "no", (False, 0)),
        (go.flag, "maybe", (False, 1)),
        (go.count, "80", (80, 0)), (go.count, "80.9", (80, 0)), (go.count, "010", (8, 0)), (go.count, "080", (80, 0)),
        (go.count, "1_000", (1000, 0)), (go.count, "0x10", (16, 0)), (go.count, "'80'", (0, 1)),
        (go.count, "-1", (0, 1)),
        (go.count, "5000000000", (0, 1)), (go.count, "9" * 100, (0, 1)), (go.count, "", (0, 0)),
        (go.listed(go.word), "[a, 1, ~]", (["a", "1", ""], 0)), (go.listed(go.word), "~", (None, 0)),
        (go.listed(go.word), "a", (None, 1)), (go.mapped(go.count), "{a: 1, 2: 3}", ({"a": 1, "2": 3}, 0)),
        (go.mapped(go.count), "[1]", ({}, 1)), (go.mapped(go.count), "{a: 1, a: 2}", ({"a": 2}, 1)),
        (go.mapped(go.count), "{<<: [{a: 1}, {a: 2, b: 3}], b: 4}", ({"a": 1, "b": 4}, 0)),
        (go.struct({"a": go.word}), "{b: 1}", ({"a": ""}, 1)), (go.optional(go.word), "~", (None, 0)),
    ],
)  # fmt: skip
def test_decoding(decoder: Decoder, text: str, expected: tuple[Any, int]) -> None:
    assert value(decoder, text) == expected


def test_unknown_fields_are_harmless_unless_the_mapping_is_closed() -> None:
    for closed in (False, True):
        troubles: list[Trouble] = []
        go.struct({}, closed=closed)(compose(b"a: 1"), troubles)
        assert [(trouble.path, trouble.harmless) for trouble in troubles] == [(("a",), not closed)]
