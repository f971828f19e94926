"""Reading YAML and JSON from strangers: into a tree that knows its lines, then into plain data.

The text is read by libyaml through PyYAML's parser of events; nothing is ever constructed from a tag. What plain words
mean follows YAML 1.2's core schema, as `js-yaml` has it and most tools of these networks use: `yes`, `on` and `no` are
words, `010` is ten, `0o10` is eight. An anchor's value is shared, `<<` merges, a key that stands twice is refused.

Attacks met here: size, depth, number of values, aliases of aliases (the count is of what they expand to), numbers of a
million digits, values that contain themselves. Not met here: what a format does with the values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn, cast

import yaml
from yaml.cyaml import CSafeLoader
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from fallow.interop.model import FileRefused, Problem, shown

MAX_BYTES = 1 << 20
MAX_VALUES = 50_000
MAX_DEPTH = 48
MAX_DIGITS = 400
"""Of a number; JSON's and YAML's doubles end at 309."""


class Scalar:
    """A word. `tag` is what stands before it, as "!!str"; `plain` that it has no quotes and no tag."""

    __slots__ = ("column", "line", "plain", "tag", "text")

    def __init__(self, text: str, plain: bool, tag: str, line: int, column: int) -> None:
        self.text, self.plain, self.tag, self.line, self.column = text, plain, tag, line, column


class Sequence:
    """A list."""

    __slots__ = ("column", "items", "line")

    def __init__(self, line: int, column: int) -> None:
        self.items: list[Node] = []
        self.line, self.column = line, column


class Mapping:
    """A mapping, in the file's order; `<<` is still in it."""

    __slots__ = ("column", "line", "pairs")

    def __init__(self, line: int, column: int) -> None:
        self.pairs: list[tuple[Node, Node]] = []
        self.line, self.column = line, column


Node = Scalar | Sequence | Mapping
Path = tuple[str | int, ...]
FieldMap = dict[str, Any]
"""A mapping out of a file, or into a manifest."""
TAG = "tag:yaml.org,2002:"


class _Frame:
    """A collection that is not complete: with the key that waits for its value, and what it weighs so far."""

    __slots__ = ("anchor", "began", "height", "key", "node")

    def __init__(self, node: Sequence | Mapping, anchor: str | None, began: int) -> None:
        self.node, self.anchor, self.began = node, anchor, began
        self.key: Node | None = None
        self.height = 1


class _Anchored:
    """What an anchor stands for, how many values that is, and how deep."""

    __slots__ = ("height", "node", "weight")

    def __init__(self, node: Node, weight: int, height: int) -> None:
        self.node, self.weight, self.height = node, weight, height


class _Composer:
    """Builds the tree from events, counting."""

    def __init__(self) -> None:
        self.stack: list[_Frame] = []
        self.anchors: dict[str, _Anchored | None] = {}
        self.root: Node | None = None
        self.values = 0

    def scalar(self, event: ScalarEvent) -> None:
        mark, tag = event.start_mark, event.tag
        node = Scalar(event.value, event.implicit[0], tag or "", mark.line + 1, mark.column + 1)
        self.add(node, 1, 0)
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchored(node, 1, 0)

    def alias(self, event: AliasEvent) -> None:
        anchored = self.anchors.get(event.anchor)
        if anchored is None:
            line = event.start_mark.line + 1
            inside = event.anchor in self.anchors
            met = "it stands for something that contains it" if inside else "nothing has this anchor before it"
            raise FileRefused(
                Problem(line=line, field="", met=f"*{event.anchor}: {met}", accepted="an anchor above it")
            )
        self.add(anchored.node, anchored.weight, anchored.height)

    def begin(self, node: Sequence | Mapping, event: Any) -> None:
        if event.tag is not None and event.tag not in (TAG + "map", TAG + "seq"):
            _bad_tag(event.tag, node.line)
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.stack.append(_Frame(node, event.anchor, self.values))
        if len(self.stack) > MAX_DEPTH:
            _over(node.line, "deeper", f"{MAX_DEPTH} levels")

    def end(self) -> None:
        frame = self.stack.pop()
        if frame.anchor is not None:
            self.anchors[frame.anchor] = _Anchored(frame.node, self.values - frame.began + 1, frame.height)
        self.add(frame.node, 1, frame.height)

    def add(self, node: Node, weight: int, height: int) -> None:
        self.values += weight
        if self.values > MAX_VALUES:
            _over(node.line, "larger", f"{MAX_VALUES} values, aliases counted as what they stand for")
        if not self.stack:
            self.root = node
            return
        frame = self.stack[-1]
        if height >= frame.height:
            frame.height = height + 1
            if height + len(self.stack) > MAX_DEPTH:
                _over(node.line, "deeper", f"{MAX_DEPTH} levels")
        if type(frame.node) is Sequence:
            frame.node.items.append(node)
        elif frame.key is None:
            frame.key = node
        else:
            cast("Mapping", frame.node).pairs.append((frame.key, node))
            frame.key = None


def compose(data: bytes) -> Node | None:
    """The tree of a file that holds one YAML or JSON document; None for an empty one. Raises FileRefused."""
    if len(data) > MAX_BYTES:
        _over(0, "larger", f"{MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        met = f"byte {error.start} is not UTF-8"
        raise FileRefused(Problem(line=line, field="", met=met, accepted="text in UTF-8")) from None
    try:
        return _compose(text)
    except yaml.YAMLError as error:
        paired = _paired(text)
        if paired != text:
            return _compose(paired)
        raise FileRefused(_syntax(error)) from None


PAIR = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")


def _paired(text: str) -> str:
    """JSON with letters beyond 16 bits as one escape each: JSON writes two, which YAML does not know. Any other text as
    it is."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text

    def one(match: re.Match[str]) -> str:
        high, low = int(match[2], 16), int(match[3], 16)
        return f"{match[1]}\\U{0x10000 + ((high - 0xD800) << 10) + low - 0xDC00:08X}"

    return PAIR.sub(one, text)


def _compose(text: str) -> Node | None:
    composer, documents = _Composer(), 0
    get_event: Callable[[], Any] = CSafeLoader(text).get_event  # only its events: nothing is constructed
    scalar = composer.scalar
    while (event := get_event()) is not None:
        kind = type(event)
        if kind is ScalarEvent:
            scalar(event)
        elif kind is MappingStartEvent:
            composer.begin(Mapping(event.start_mark.line + 1, event.start_mark.column + 1), event)
        elif kind is SequenceStartEvent:
            composer.begin(Sequence(event.start_mark.line + 1, event.start_mark.column + 1), event)
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            composer.end()
        elif kind is AliasEvent:
            composer.alias(event)
        elif kind is DocumentStartEvent:
            documents += 1
            if documents > 1:
                line = event.start_mark.line + 1
                raise FileRefused(Problem(line=line, field="", met="a second document", accepted="one document a file"))
    return composer.root


def _syntax(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    what = str(getattr(error, "problem", "") or getattr(error, "reason", "") or "it cannot be read")
    line = mark.line + 1 if mark is not None else 0
    return Problem(line=line, field="", met=f"no YAML: {what}", accepted="YAML or JSON")


def _over(line: int, what: str, most: str) -> NoReturn:
    raise FileRefused(
        Problem(line=line, field="", met=f"it is {what} than we read", accepted=f"up to {most}"), why="bound"
    )


def _bad_tag(tag: str, line: int) -> NoReturn:
    name = tag.replace(TAG, "!!")
    raise FileRefused(Problem(line=line, field="", met=f"the tag {name}", accepted="plain values without tags"))


# from the tree to data ------------------------------------------------------------------------------------------------

INTEGER = re.compile(r"[-+]?[0-9]+")
BASED = re.compile(r"[-+]?0(?:b[01]+|x[0-9a-fA-F]+|o[0-7]+)")
FLOAT = re.compile(
    r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?"
    r"(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?"
)
WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_STARTS = frozenset("0123456789+-.")


class Moment:
    """A plain date or time: YAML makes it a value of its own, which no field of these formats takes."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def plain_value(text: str, line: int = 0) -> Any:
    """What a plain word means by YAML 1.2's core schema. A number without a fraction is an int, as `80.0` is 80."""
    if text in WORDS:
        return WORDS[text]
    if text[0] not in _STARTS:
        return text
    if INTEGER.fullmatch(text):
        return _whole(text, 10, line)
    if BASED.fullmatch(text):
        digits = text.lstrip("+-")
        number = _whole(digits[2:], {"b": 2, "x": 16, "o": 8}[digits[1]], line)
        return -number if text[0] == "-" else number
    if FLOAT.fullmatch(text):
        return _fraction(text.lower(), line)
    return Moment(text) if DATE.fullmatch(text) else text


def _whole(digits: str, base: int, line: int) -> int | float:
    if len(digits) > MAX_DIGITS:
        _over(line, "longer", f"{MAX_DIGITS} digits of a number")
    number = int(digits, base)
    return number if -(2**53) <= number <= 2**53 else _tidy(float(number) if number < 10**308 else float("inf"))


def _fraction(text: str, line: int) -> int | float:
    if len(text) > MAX_DIGITS:
        _over(line, "longer", f"{MAX_DIGITS} digits of a number")
    return _tidy(float(text.replace(".inf", "inf").replace(".nan", "nan")))


def _tidy(number: float) -> int | float:
    return int(number) if number.is_integer() and abs(number) <= 2**53 else number


def scalar_value(node: Scalar) -> Any:
    """The value of a word."""
    if node.plain:
        return plain_value(node.text, node.line)
    match node.tag.removeprefix(TAG):
        case "" | "!" | "str":
            return node.text
        case "int" | "float" | "bool" | "null":
            value = plain_value(node.text, node.line)
            if isinstance(value, (str, Moment)):
                _bad_tag(node.tag, node.line)
            return value
        case _:
            _bad_tag(node.tag, node.line)


def to_data(node: Node) -> Any:
    """Plain data: dicts with text keys, lists, texts, numbers, booleans, None. Raises FileRefused with the line for a
    key that stands twice and for what cannot be merged."""
    kind = type(node)
    if kind is Scalar:
        return scalar_value(cast("Scalar", node))
    if kind is Sequence:
        return [to_data(item) for item in cast("Sequence", node).items]
    result: dict[str, Any] = {}
    merged: set[str] = set()
    for key, value in cast("Mapping", node).pairs:
        name = key_of(key)
        if name == "<<" and type(key) is Scalar and key.plain:
            _merge(result, merged, to_data(value), key.line)
            continue
        if name in result and name not in merged:
            raise FileRefused(Problem(line=key.line, field=name, met="the key stands twice", accepted="once"))
        merged.discard(name)
        result[name] = to_data(value)
    return result


def key_of(key: Node) -> str:
    """A key as text."""
    if type(key) is not Scalar:
        raise FileRefused(Problem(line=key.line, field="", met="a key that is no word", accepted="a word as key"))
    text = key.text
    return js_word(scalar_value(key)) if key.plain and (text in WORDS or text[0] in _STARTS) else text


def js_word(value: Any) -> str:
    """A value as JavaScript writes it into text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return js_number(value)
    if isinstance(value, list):
        return ",".join("" if item is None else js_word(item) for item in cast("list[Any]", value))
    return "[object Object]" if isinstance(value, dict) else str(value)


def js_number(value: float) -> str:
    """A number as JavaScript writes it: the shortest digits that read back to it, and an exponent from 1e21 up or below
    1e-6."""
    if isinstance(value, int) and abs(value) <= 2**53:
        return str(value)
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "0"
    return ("-" if value < 0 else "") + _digits(*_point(float(abs(value))))


def _point(value: float) -> tuple[str, int]:
    """-> the shortest digits of a positive number, and where its point stands after them."""
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    return digits.rstrip("0"), point


def _digits(digits: str, point: int) -> str:
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    power = point - 1
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{rest}e{'+' if power > 0 else '-'}{abs(power)}"


def _merge(into: dict[str, Any], merged: set[str], value: Any, line: int) -> None:
    """`<<`: keys that are there stay; of several sources the first wins."""
    for source in cast("list[Any]", value) if isinstance(value, list) else [value]:
        if not isinstance(source, dict):
            raise FileRefused(Problem(line=line, field="<<", met=f"{shown(source)} to merge", accepted="a mapping"))
        for key, item in cast("dict[str, Any]", source).items():
            if key not in into:
                into[key] = item
                merged.add(key)


def line_of(root: Node | None, path: Path) -> int:
    """The line of the value at `path`; of what is missing or merged in, the line of the nearest thing around it."""
    node = root
    line = root.line if root is not None else 0
    for step in path:
        if type(node) is Mapping:
            found = next(((key, value) for key, value in node.pairs if type(key) is Scalar and key.text == step), None)
            if found is None:
                break
            line, node = found[0].line, found[1]
        elif type(node) is Sequence and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            line = node.line
        else:
            break
    return line


def field_of(path: Path) -> str:
    """A path as people write it: services.web.expose[0].port."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
