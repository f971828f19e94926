"""What guides allow, how calls are written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.workloads.tiny import make_model
from transformers import AutoTokenizer

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import Generate
from fallow.workloads import guide as guide_module
from fallow.workloads.guide import Guides, from_bytes, from_model

END = 0
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "It tells.", "parameters": CITY}},
    {"type": "function", "function": {"name": "now"}},
]
WEATHER = '<tool_call>{"name": "weather", "arguments": {"city": "Ulm"}}</tool_call>'
NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(make_model(Path(tmp_path_factory.mktemp("guide")) / "model"))


def guides_of(tokenizer: Any) -> Guides:
    return Guides(lambda: from_model(tokenizer, len(tokenizer), frozenset({END})), len(tokenizer))


@pytest.fixture(scope="module")
def guides(tokenizer: Any) -> Guides:
    return guides_of(tokenizer)


def asking(guide: Any, tools: Any = (), resume: str = "") -> Generate:
    return Generate((), "x", 9, resume=resume, tools=json.dumps(tools) if tools else "", guide=json.dumps(guide))


def follows(guides: Guides, tokenizer: Any, request: Generate, text: str) -> str:
    """What becomes of an answer that says `text`: "no", "unfinished", "may end" or "complete"."""
    guide = guides.open(request)
    assert guide is not None
    for token in tokenizer(text)["input_ids"]:
        if guide.complete or not guide.mask()[token]:
            return "no"
        assert guide.take(token)
    if guide.complete:
        return "complete"
    return "may end" if guide.mask()[END] else "unfinished"


@pytest.mark.parametrize(
    ("guide", "text", "what"),
    [
        ({"json_schema": CITY}, '{"city": "Ulm"}', "complete"),
        ({"json_schema": CITY}, '{"city": "U', "unfinished"),
        ({"json_schema": CITY}, '{"town": "U', "no"),
        ({"json_schema": CITY}, '{"city":"', "no"),
        ({"regex": "a/b\\.[\"']"}, "a/b.'", "complete"),
        ({"regex": "a/b\\.[\"']"}, "a/bc", "no"),
        ({"json_schema": CITY}, '{"city": "Ulm"} ', "no"),
        ({"json_schema": True}, "[1, 2]", "complete"),
        ({"json": True}, '{"any": [1, {"thing": null}]}', "complete"),
        ({"json": True}, "[1", "no"),
        ({"regex": "[a-c]+[0-9]?"}, "abc", "may end"),
        ({"regex": "[a-c]+[0-9]?"}, "abc7", "complete"),
        ({"regex": "[a-c]+[0-9]?"}, "x", "no"),
        ({"choice": ["yes", "yes (so they say)", "a\nb", 'ü"']}, "yes", "may end"),
        ({"choice": ["yes", "yes (so they say)", "a\nb", 'ü"']}, "yes (so they say)", "complete"),
        ({"choice": ["yes", "yes (so they say)", "a\nb", 'ü"']}, "a\nb", "complete"),
        ({"choice": ["yes", "no", 'ü"']}, 'ü"', "complete"),
        ({"choice": ["yes", "no"]}, "maybe", "no"),
        ({"lark": 'start: "a" b+\nb: "b" | "c"'}, "abcb", "may end"),
        ({"lark": 'start: "a" b+\nb: "b" | "c"'}, "ad", "no"),
    ],
)
def test_an_answer_has_the_form_that_was_asked_for(
    guides: Guides, tokenizer: Any, guide: Any, text: str, what: str
) -> None:
    assert follows(guides, tokenizer, asking(guide), text) == what


@pytest.mark.parametrize(
    ("guide", "text", "what"),
    [
        ({"calls": "auto"}, "It rains.", "may end"),
        ({"calls": "auto"}, f"Let me see. {WEATHER}", "may end"),
        ({"calls": "auto"}, f"{WEATHER}\n{NOW} Done.", "may end"),
        ({"calls": "auto"}, 'Well, <tool_call>{"name": "wea', "unfinished"),
        ({"calls": "auto"}, "Well, <tool_call>no", "no"),
        ({"calls": "auto"}, 'Well, <tool_call>{"name": "other', "no"),
        ({"calls": "auto"}, '<tool_call>{"name": "weather", "arguments": {}', "no"),
        ({"calls": "auto", "parallel": False}, f"So {WEATHER}", "complete"),
        ({"calls": "required"}, WEATHER, "may end"),
        ({"calls": "required"}, f"{WEATHER}\n{NOW}{NOW}", "may end"),
        ({"calls": "required"}, "It", "no"),
        ({"calls": "required", "parallel": False}, NOW, "complete"),
        ({"calls": {"name": "now"}}, NOW, "complete"),
        ({"calls": {"name": "now"}}, WEATHER, "no"),
    ],
)
def test_calls_of_tools_are_well_formed(guides: Guides, tokenizer: Any, guide: Any, text: str, what: str) -> None:
    assert follows(guides, tokenizer, asking(guide, TOOLS), text) == what


def test_references_are_those_of_the_tool_that_makes_them(guides: Guides, tokenizer: Any) -> None:
    schemas = [{"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {p: {"type": "null"}},
        "required": [p], "additionalProperties": False}}} for p in "xy"]  # fmt: skip
    tools = [{"type": "function", "function": {"name": f"f{n}", "parameters": s}} for n, s in enumerate(schemas)]
    call = '<tool_call>{"name": "f1", "arguments": {"%s": null}}</tool_call>'
    assert follows(guides, tokenizer, asking({"calls": "required"}, tools), call % "y") == "may end"
    assert follows(guides, tokenizer, asking({"calls": "required"}, tools), call % "x") == "no"


def test_an_answer_that_was_cut_goes_on_in_its_form(guides: Guides, tokenizer: Any) -> None:
    whole = f"Let me see. {WEATHER}\n"
    for cut in range(len(whole)):
        request = asking({"calls": "auto"}, TOOLS, resume=whole[:cut])
        assert follows(guides, tokenizer, request, whole[cut:]) == "may end"
    done = guides.open(asking({"calls": {"name": "now"}}, TOOLS, resume=NOW))
    assert done is not None and done.complete


@pytest.mark.parametrize(
    ("guide", "word"),
    [
        ({"json_schema": {"if": {}, "then": {}}}, '"if"'),
        ({"json_schema": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"json_schema": {"not": {}}}, "not"),
        ({"json_schema": {"not": {}, "x-guidance": {"lenient": True}}}, "not"),
        ({"json_schema": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}, "oneOf"),
        ({"json_schema": {"type": "string", "pattern": "(?=a)b"}}, "look-ahead"),
        ({"json_schema": {"$ref": "http://example.org/schema"}}, "example.org"),
        ({"json_schema": {"$ref": "#"}}, "no token fits"),
        ({"json_schema": {"type": "string", "format": "zork"}}, "zork"),
        ({"json_schema": {"allOf": [{"type": "string"}, {"type": "null"}]}}, "incompatible"),
        ({"json_schema": {"minProperties": 2}}, "minProperties"),
        ({"json_schema": {"multipleOf": 123456789}}, "multipleOf"),
        ({"json_schema": False}, "object"),
        ({"regex": "(a"}, "regex"),
        ({"regex": "(?<=a)b"}, "look-behind"),
        ({"regex": 5}, "wrong type"),
        ({"lark": "start: zork"}, "zork"),
        ({"lark": "start: " + "(" * 20_000}, "nested"),
        ({"choice": []}, "choice"),
        ({"choice": [""]}, "empty"),
        ({"json": False}, "json"),
        ({"calls": "auto"}, "tool"),
        ({"calls": "sometimes"}, "auto"),
        ({"calls": "auto", "parallel": 1}, "parallel"),
        ({"json": True, "parallel": True}, "exactly one"),
        ({"json": True, "regex": "a"}, "exactly one"),
        ({}, "exactly one"),
        ([], "object"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_the_first_token(guides: Guides, guide: Any, word: str) -> None:
    with pytest.raises(FallowError) as caught:
        guides.open(asking(guide))
    assert caught.value.code == "E1904"
    assert word in str(caught.value)


def test_no_json_is_refused(guides: Guides) -> None:
    for text in ("{", "[" * 9_000, '{"json_schema": NaN}'):
        with pytest.raises(FallowError) as caught:
            guides.open(Generate((), "x", 9, guide=text))
        assert caught.value.code == "E1904"


def test_long_chains_of_references_do_not_end_the_process(guides: Guides, tokenizer: Any) -> None:
    chain: dict[str, Any] = {
        f"d{i}": {"type": "array", "maxItems": 1, "items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(1_900)
    }
    request = asking({"json_schema": {"$ref": "#/$defs/d0", "$defs": {**chain, "d1900": {"type": "null"}}}})
    assert follows(guides, tokenizer, request, "[[]]") == "complete"


def test_what_takes_too_long_is_refused_and_so_is_the_next(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    guides = guides_of(tokenizer)
    monkeypatch.setattr(guide_module, "LIMIT_S", 0.01)
    with guides._busy, pytest.raises(FallowError) as caught:  # as if something were being read
        guides.open(asking({"json": True}))
    assert caught.value.code == "E1904"


def test_no_other_version_of_the_library_will_do(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guide_module, "VERSION", "1.0.0")
    with pytest.raises(FallowError) as caught:
        guides_of(tokenizer).open(asking({"json": True}))
    assert caught.value.code == "E1708"


def test_a_text_is_followed_by_its_bytes() -> None:
    """As an engine does that tells no tokens."""
    guides = Guides(from_bytes, 262)
    guide = guides.open(asking({"choice": ["bär", "bau"]}))
    assert guide is not None
    assert guide.take_text("b") and guide.take_text("") and not guide.complete
    assert guide.take_text("är") and guide.complete
    other = guides.open(asking({"choice": ["bär", "bau"]}))
    assert other is not None and not other.take_text("bx")
