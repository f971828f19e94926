"""What form an answer must have: a grammar that is followed token by token (llguidance). A stranger's schema, regular
expression or grammar is read here, in the worker's box, and nowhere else.

The tokens that a grammar allows are part of what an exact answer is (docs/spec/exact-arithmetic.md, section 21), so
this is the one version of the library that will do, and its limits are constants.

Defends against: what would take the library without end (LIMIT_S and the bounds below), and grammars that are too
large to follow (LIMITS). Does not defend against: a compilation that goes on after LIMIT_S. No code can interrupt it,
so it keeps one core busy, and other guides are refused until it ends.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

import llguidance
import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.hf import from_tokenizer

from fallow.errors import FallowError, fail
from fallow.kinds.generate.tasks import CALL_CLOSE, CALL_OPEN, Generate
from fallow.workloads.schema_bounds import check_schema
from fallow.workloads.tools import JsonObject, read_object, read_tools

VERSION = "1.9.1"
LIMIT_S = 10.0
STACK_BYTES = 64 << 20
"""The library goes through references by recursion, and what it needs is not looked at before."""
MAX_CHOICES = 4_096
WORDS = frozenset({"json_schema", "json", "regex", "choice", "lark", "calls"})
AS_JSON = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": False}
"""How JSON is written: in one line, as models have seen it in calls of tools, and none writes blanks without end."""
LIMITS = LLParserLimits(
    max_items_in_row=20_000,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=1_000_000,
    step_max_items=200_000,
    max_lexer_states=50_000,
    max_grammar_size=500_000,
    precompute_large_lexemes=True,
    verbose_errors=False,
)
Mask = npt.NDArray[np.bool_]


class Guide:
    """One answer's form. `mask` before each token, and `take` after it."""

    def __init__(self, tokenizer: LLTokenizer, matcher: LLMatcher, vocabulary: int) -> None:
        self._tokenizer, self._matcher, self._vocabulary = tokenizer, matcher, vocabulary

    @property
    def complete(self) -> bool:
        """The answer has its form, and nothing can follow."""
        return self._matcher.is_stopped() and self._matcher.is_accepting()

    def mask(self) -> Mask:
        """Which tokens may come next, those that end the answer among them. Errors: E1904 when the form has become too
        large to follow, or none may."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, count=self._vocabulary, bitorder="little").view(np.bool_)
        if self._matcher.is_error():
            raise _refused(self._matcher.get_error())
        if not allowed.any():
            raise fail("E1904", "The guide leads to where no token fits: nothing has this form.")
        return allowed

    def take(self, token: int) -> bool:
        """Go on by `token`. -> whether it fits; if it does not, nothing more will."""
        return self._matcher.consume_token(token)

    def take_text(self, text: str) -> bool:
        """Go on by a text whose tokens are not known. -> whether it fits; if it does not, nothing more will."""
        tokens = self._tokenizer.tokenize_str(text)
        return not tokens or self._matcher.consume_tokens(tokens)


def from_model(tokenizer: Any, vocabulary: int, ends: frozenset[int]) -> LLTokenizer:
    """Errors: E1904 for tokens whose bytes cannot be told."""
    try:
        return from_tokenizer(tokenizer, vocabulary, sorted(ends))
    except Exception as error:  # the library raises anything for a tokenizer that it cannot read
        raise fail("E1904", "This model's tokenizer cannot be guided.") from error


BYTE_TOKENS = 262
"""Bytes, and what the library adds to them."""


def from_bytes() -> LLTokenizer:
    """Each byte is a token: for texts whose tokens others choose."""
    return LLTokenizer("byte")


class Guides:
    """What follows grammars in the tokens of one model."""

    def __init__(self, tokenizer: Callable[[], LLTokenizer], vocabulary: int) -> None:
        self._made, self.vocabulary = tokenizer, vocabulary
        self._own: LLTokenizer | None = None
        self._busy = threading.Lock()

    def open(self, request: Generate) -> Guide | None:
        """What follows `request`'s guide, after `resume`; None when it has none. Takes milliseconds, and the first time
        up to a second. Errors: E1904 naming what is wrong with it, unsupported or too large."""
        if not request.guide:
            return None
        tokenizer, grammar = self._tokenizer(), LLMatcher.grammar_from_lark(grammar_of(request))
        guide = Guide(tokenizer, self._compiled(tokenizer, grammar), self.vocabulary)
        if not guide.take_text(request.resume):
            raise fail("E1904", "The beginning of the answer does not have the form that the guide asks for.")
        if not guide.complete:
            guide.mask()
        return guide

    def _tokenizer(self) -> LLTokenizer:
        if llguidance.__version__ != VERSION:
            found = llguidance.__version__
            need = f"llguidance=={VERSION}"
            raise fail("E1708", f"Guides need {need}, not {found}.", next_step=f"pip install {need}")
        if self._own is None:
            self._own = self._made()
        return self._own

    def _compiled(self, tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
        """In a thread of its own, whose stack is large and which can be left alone."""
        made: list[LLMatcher] = []

        def compile_it() -> None:
            with self._busy:
                made.append(LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS))

        before = threading.stack_size(STACK_BYTES)
        try:
            thread = threading.Thread(target=compile_it, name="guide", daemon=True)
            thread.start()
        finally:
            threading.stack_size(before)
        thread.join(LIMIT_S)
        if not made:
            raise fail("E1904", f"The guide takes longer than {LIMIT_S:g} s to read: it is too large.")
        if made[0].is_error():
            raise _refused(made[0].get_error())
        return made[0]


def _refused(what: str) -> FallowError:
    if what.startswith("NoExtension"):
        return fail("E1904", "The guide leads to where no token fits: nothing has this form.")
    return fail("E1904", f"The guide is refused: {' '.join(what.replace('<non-verbose/>', '').split())[:300]}.")


def grammar_of(request: Generate) -> str:
    """The guide of a request as a grammar in the library's form of Lark. Errors: E1904."""
    guide = read_object("guide", request.guide)
    words = set(WORDS & guide.keys())
    if len(words) != 1 or guide.keys() - words - ({"parallel"} if "calls" in words else set()):
        raise fail("E1904", f"A guide says exactly one of {', '.join(sorted(WORDS))}.")
    match words.pop():
        case "json_schema":
            return f"start: {_json_rule(guide['json_schema'])}"
        case "json" if guide["json"] is True:
            return f"start: {_json_rule({'type': 'object'})}"
        case "regex" if isinstance(guide["regex"], str):
            return f"start: /{llguidance.regex_to_lark(guide['regex'], '')}/"
        case "lark" if isinstance(guide["lark"], str):
            return guide["lark"]
        case "choice":
            return f"start: {' | '.join(map(_quoted, _choices(guide['choice'])))}"
        case "calls":
            return calls_grammar(guide, read_tools(request.tools))
        case word:
            raise fail("E1904", f"The guide's {word} is of the wrong type.")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _json_rule(schema: Any) -> str:
    """A schema with our own way of writing JSON, whatever it says of that."""
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise fail("E1904", "A JSON schema is a JSON object.")
    check_schema(schema)
    return f"%json {json.dumps({**schema, 'x-guidance': AS_JSON})}"


def _choices(choices: Any) -> list[str]:
    if not isinstance(choices, list) or not 0 < len(choices) <= MAX_CHOICES:
        raise fail("E1904", f"The guide's choice is a list of 1 to {MAX_CHOICES:,} texts.")
    if not all(isinstance(one, str) and one for one in choices):
        raise fail("E1904", "Each choice of a guide is a text, and not an empty one.")
    return choices


def calls_grammar(guide: Mapping[str, Any], tools: list[JsonObject]) -> str:
    """A grammar of calls of tools: between CALL_OPEN and CALL_CLOSE the name and arguments of the tool's schema. With
    "auto" there may be text before, between and after them; the form of a call holds from CALL_OPEN on."""
    asked, several = guide["calls"], guide.get("parallel", True)
    if not isinstance(several, bool):
        raise fail("E1904", "The guide's parallel is true or false.")
    if isinstance(asked, dict):
        tools, several = [tool for tool in tools if {"name": tool["name"]} == asked], False
    elif asked not in ("auto", "required"):
        raise fail("E1904", 'The guide\'s calls are "auto", "required" or the name of a tool.')
    if not tools:
        raise fail("E1904", "The guide asks for calls of a tool that is not among the tools.")
    if asked == "auto":
        start = "(head call)* TEXT" if several else "TEXT | head call"
    else:
        start = 'whole ("\\n"? whole)*' if several else "whole"
    rules = [
        f"start: {start}",
        f"head[lazy]: TEXT {_quoted(CALL_OPEN)}",
        f"whole: {_quoted(CALL_OPEN)} call",
        f'call: "\\n"? ({" | ".join(f"tool{n}" for n in range(len(tools)))}) "\\n"? {_quoted(CALL_CLOSE)}',
        "TEXT: /(.|\\n)*/",
    ]
    for number, tool in enumerate(tools):
        begin = _quoted(f'{{"name": "{tool["name"]}", "arguments": ')
        rules.append(f'tool{number}: {begin} {_json_rule(tool["parameters"])} "}}"')
    return "\n".join(rules)
