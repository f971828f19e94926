"""Answers of a form that was asked for, by the engines that choose their own tokens: the same whoever else is answered,
wherever they were cut."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from llguidance import LLParserLimits
from tests.workloads.tiny import TOOLS, make_model

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import ChatTurn, Generate, GenerateValue
from fallow.numerics.exact.exactify import exactify
from fallow.numerics.exact.generation import Sampling, joined_marks, replay
from fallow.workloads import guide
from fallow.workloads.engine_exact import ExactEngine
from fallow.workloads.engine_torch import TorchEngine
from fallow.workloads.engines import read_sampling
from fallow.workloads.model import load_model
from fallow.workloads.shaping import guides_of, open_shaping
from fallow.workloads.speech import read_prompt

SCHEMA = {
    "type": "object",
    "properties": {"who": {"enum": ["farmer", "baker"]}, "apples": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["who", "apples"],
    "additionalProperties": False,
}
PROMPT = Generate((), "The old farmer", 60, guide=json.dumps({"json_schema": SCHEMA}))
DRAWN = msgspec.structs.replace(PROMPT, temperature="1.5")
CALLS = msgspec.structs.replace(
    DRAWN, prompt="", turns=(ChatTurn("user", "Go!"),), max_tokens=120, tools=json.dumps(TOOLS),
    guide='{"calls": "required", "parallel": false}',
)  # fmt: skip
PENALISED = Generate((), "The old farmer", 40, frequency_penalty="1.5", presence_penalty="0.5", bias=((300, 250),))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("guided") / "model", 3, 1024)


@pytest.fixture(scope="module", params=[ExactEngine, TorchEngine])
def engine(model: Path, request: Any) -> ExactEngine | TorchEngine:
    loaded = load_model(model)
    if request.param is ExactEngine:
        return ExactEngine(loaded, None, 0, 8, 1)
    return TorchEngine(loaded, None, 0, 1)


def answer(engine: Any, request: Generate, seed: int = 1) -> tuple[GenerateValue, list[str]]:
    pieces: list[str] = []
    value = engine.answer(request, seed, lambda piece: pieces.append(piece) is None)
    return value, [piece for piece in pieces if piece]


@pytest.mark.parametrize("request_", [PROMPT, DRAWN])
def test_json_of_a_schema(engine: Any, request_: Generate) -> None:
    for seed in range(5):
        value, pieces = answer(engine, request_, seed)
        jsonschema.validate(json.loads(value.text), SCHEMA)
        assert value.finish == "stop"
        assert "".join(pieces) == value.text


def test_an_answer_that_is_too_long_is_cut(engine: Any) -> None:
    value, _ = answer(engine, msgspec.structs.replace(DRAWN, max_tokens=5))
    assert (value.finish, value.completion_tokens) == ("length", 5)


def test_calls_of_tools(engine: Any) -> None:
    for seed in range(5):
        value, _ = answer(engine, CALLS, seed)
        said = value.text.removeprefix("<tool_call>").removesuffix("</tool_call>")
        call = json.loads(said)
        assert call["name"] in ("walk", "rest") and set(call) == {"name", "arguments"}
        assert (call["arguments"] == {}) == (call["name"] == "rest")
        assert value.finish == "stop"


def test_a_call_is_well_formed_as_soon_as_it_opens(engine: Any) -> None:
    auto = msgspec.structs.replace(CALLS, guide='{"calls": "auto"}', resume="Well. <tool_call>", max_tokens=60)
    value, _ = answer(engine, auto)
    call, _ = json.JSONDecoder().raw_decode(value.text.lstrip("\n"))
    assert call["name"] in ("walk", "rest")


def test_what_is_refused_is_refused_before_the_first_token(engine: Any) -> None:
    for form in ({"json_schema": {"not": {}}}, {"regex": "("}, {"calls": "auto"}):
        with pytest.raises(FallowError) as caught:
            answer(engine, msgspec.structs.replace(PROMPT, guide=json.dumps(form)))
        assert caught.value.code == "E1904"


def test_company_changes_nothing(engine: Any) -> None:
    requests = [DRAWN, CALLS, PENALISED, msgspec.structs.replace(DRAWN, guide="")]
    alone = [answer(engine, request, seed)[0] for seed, request in enumerate(requests)]
    found: dict[int, GenerateValue] = {}

    def one(seed: int) -> None:
        found[seed] = answer(engine, requests[seed], seed)[0]

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(len(requests))] == alone


def test_a_form_that_cannot_go_on_ends_that_answer_alone(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form becomes too large to follow; whoever is answered beside it does not notice."""
    monkeypatch.setattr(guide, "LIMITS", LLParserLimits(max_items_in_row=300, verbose_errors=False))
    alone = answer(engine, DRAWN)[0]
    errors: list[str] = []
    hard = msgspec.structs.replace(PROMPT, guide='{"lark": "start: (\\"a\\"{1,100000}){1,100000}"}')

    def fails() -> None:
        said: list[str] = []
        with pytest.raises(FallowError) as caught:
            engine.answer(hard, 1, lambda piece: said.append(piece) is None)
        assert "aa" in "".join(said)
        errors.append(caught.value.code)

    thread = threading.Thread(target=fails)
    thread.start()
    assert answer(engine, DRAWN)[0] == alone
    thread.join()
    assert errors == ["E1904"]


def test_words_that_were_said_come_less_often(engine: Any) -> None:
    plain = answer(engine, msgspec.structs.replace(PENALISED, frequency_penalty="0", presence_penalty="0", bias=()))[0]
    other = answer(engine, PENALISED)[0]
    assert other.text != plain.text
    assert answer(engine, PENALISED)[0] == other


def test_an_exact_answer_is_checked_in_one_pass(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash is over what the model gave, and the choices are from what the form left of it."""
    loaded = load_model(model)
    tokenizer, guides = loaded.tokenizer, guides_of(loaded)
    engine = ExactEngine(loaded, None, 256, 1, 1)
    taken: list[list[int]] = []
    run = engine._batch.run
    monkeypatch.setattr(engine._batch, "run", lambda text, *rest: (run(text, *rest), taken.append(text.tokens)))
    value, _ = answer(engine, DRAWN, 7)
    exact = exactify(load_model(model).network, {})
    exact.keep_grids()
    start = len(tokenizer(DRAWN.prompt)["input_ids"])
    shape = open_shaping(guides, DRAWN, read_sampling(DRAWN), ())
    chosen, marks = replay(exact, taken[0], start, Sampling(1.5, seed=7), shape)
    assert chosen == taken[0][start:]
    assert joined_marks(marks) == value.logits


@pytest.mark.parametrize("request_", [PROMPT, DRAWN, CALLS, PENALISED])
def test_a_resumed_answer_goes_on_the_same_way(engine: Any, model: Path, request_: Generate) -> None:
    """The form and the penalties know what was said before, wherever it was cut; and where the beginning falls into the
    tokens that it was made of, the rest is the same."""
    tokenizer, tried = load_model(model).tokenizer, 0
    whole, pieces = answer(engine, request_, 2)
    for count in range(1, len(pieces), 5):
        begun = "".join(pieces[:count])
        rest = msgspec.structs.replace(request_, resume=begun, max_tokens=request_.max_tokens - count)
        value, _ = answer(engine, rest, 2)
        if request_.guide and value.finish == "stop":
            json.loads((begun + value.text).removeprefix("<tool_call>").removesuffix("</tool_call>"))
        if [tokenizer.decode([token]) for token in read_prompt(tokenizer, rest).given] == pieces[:count]:
            assert begun + value.text == whole.text
            tried += 1
    assert tried
