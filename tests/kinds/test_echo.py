"""Echo."""

from __future__ import annotations

from fallow.kinds.registry import kind_named


def test_an_echo_is_one_unit_of_text() -> None:
    kind = kind_named("echo")
    assert kind.read("hello", {}) == b"hello"
    assert kind.units(b"hello") == 1
    assert kind.shown(b"hello") == "hello"
