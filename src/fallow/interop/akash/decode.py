"""Decoding YAML as Go's yaml.v3 does into typed fields, for the lenient reader: fields are found by name and others
overlooked, any word will do for a text, `yes` for a flag, nothing for anything. Numbers know underscores and `010`,
which is eight."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from fallow.interop.model import shown
from fallow.interop.shape import Trouble
from fallow.interop.tree import WORDS, Node, Scalar, Sequence, key_of
from fallow.interop.tree import Mapping as Tree

Decoder = Callable[[Node | None, list[Trouble]], Any]
"""From a node, or None where there is none, to a value; what is wrong is added to the troubles."""

TRUE, FALSE = ("true", "True", "TRUE", "y", "Y", "yes", "on"), ("false", "False", "FALSE", "n", "N", "no", "off")
MAX_UINT32 = 2**32 - 1


def is_nothing(node: Node | None) -> bool:
    """Whether there is no value, or null."""
    return node is None or (type(node) is Scalar and node.plain and WORDS.get(node.text, True) is None)


def word(node: Node | None, troubles: list[Trouble]) -> str:
    """Any single word, as it is written; "" for nothing."""
    if is_nothing(node):
        return ""
    if type(node) is not Scalar:
        troubles.append(Trouble(kind_of(node), "a text"))
        return ""
    return node.text


def kind_of(node: Node | None) -> str:
    """What stands there, in a sentence."""
    if type(node) is Scalar:
        return shown(node.text)
    return "a list" if type(node) is Sequence else "a mapping"


def flag(node: Node | None, troubles: list[Trouble]) -> bool:
    """true, false, or what YAML 1.1 called so."""
    if is_nothing(node):
        return False
    if type(node) is Scalar and node.text in TRUE:
        return True
    if type(node) is not Scalar or node.text not in FALSE:
        troubles.append(Trouble(kind_of(node), "true or false"))
    return False


def count(node: Node | None, troubles: list[Trouble]) -> int:
    """A whole number of 32 bits without a sign; a fraction is cut off."""
    if is_nothing(node):
        return 0
    value = _number(node.text) if type(node) is Scalar and node.plain else None
    if value is None or not 0 <= value <= MAX_UINT32:
        troubles.append(Trouble(kind_of(node), f"a whole number from 0 to {MAX_UINT32}"))
        return 0
    return int(value)


GO_WHOLE = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
GO_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


def _number(text: str) -> int | float | None:
    digits = text.replace("_", "")
    if len(digits) > 64:
        return None
    if GO_WHOLE.fullmatch(digits):
        bare = digits.lstrip("+-").lower()
        octal = len(bare) > 1 and bare[0] == "0" and bare[1].isdigit()
        value = int(bare, 8) if octal else int(bare, 0)
        return -value if digits[0] == "-" else value
    return float(digits) if GO_FLOAT.fullmatch(digits) else None


def listed(item: Decoder) -> Decoder:
    """A list; None for nothing, which Go's JSON tells from an empty one."""

    def decode(node: Node | None, troubles: list[Trouble]) -> list[Any] | None:
        if is_nothing(node):
            return None
        if type(node) is not Sequence:
            troubles.append(Trouble(kind_of(node), "a list"))
            return None
        return [_within(item, one, troubles, place) for place, one in enumerate(node.items)]

    return decode


def mapped(item: Decoder) -> Decoder:
    """A mapping with keys of the file's choice."""

    def decode(node: Node | None, troubles: list[Trouble]) -> dict[str, Any]:
        return {key: _within(item, one, troubles, key) for key, one in pairs(node, troubles).items()}

    return decode


def struct(fields: Mapping[str, Decoder], *, closed: bool = False) -> Decoder:
    """A mapping with known fields, each with its zero where it is missing; others are harmless, or with `closed`
    not."""
    known = ", ".join(fields)

    def decode(node: Node | None, troubles: list[Trouble]) -> dict[str, Any]:
        given = pairs(node, troubles)
        for key in given:
            if key not in fields:
                troubles.append(Trouble("a field that is not known here", known, key, harmless=not closed))
        return {name: _within(decoder, given.get(name), troubles, name) for name, decoder in fields.items()}

    return decode


def optional(item: Decoder) -> Decoder:
    """None for nothing, instead of a zero."""

    def decode(node: Node | None, troubles: list[Trouble]) -> Any:
        return None if is_nothing(node) else item(node, troubles)

    return decode


def _within(item: Decoder, node: Node | None, troubles: list[Trouble], step: str | int) -> Any:
    before = len(troubles)
    value = item(node, troubles)
    for trouble in troubles[before:]:
        trouble.steps.append(step)
    return value


def pairs(node: Node | None, troubles: list[Trouble]) -> dict[str, Node]:
    """A mapping's fields with `<<` merged in; {} for nothing."""
    if is_nothing(node):
        return {}
    if type(node) is not Tree:
        troubles.append(Trouble(kind_of(node), "a mapping"))
        return {}
    own: dict[str, Node] = {}
    merged: dict[str, Node] = {}
    for key, value in node.pairs:
        if type(key) is Scalar and key.plain and key.text == "<<":
            for source in value.items if type(value) is Sequence else [value]:
                for name, one in pairs(source, troubles).items():
                    merged.setdefault(name, one)
            continue
        name = key.text if type(key) is Scalar else key_of(key)
        if name in own:
            troubles.append(Trouble("the key stands twice", "once", name))
        own[name] = value
    return {**merged, **own} if merged else own
