from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from tests.workloads.smol import smol_gguf
from tests.workloads.tiny import TOOLS

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import CANCELLED, ChatTurn, Generate, GenerateValue
from fallow.workloads import engine_llama
from fallow.workloads.engine_llama import LlamaEngine

CAPITAL = (ChatTurn("user", "What is the capital of France? Tell me about it."),)


@pytest.fixture(scope="module")
def engine() -> LlamaEngine:
    return LlamaEngine(smol_gguf(), 256, 2, 1)


def answer(engine: LlamaEngine, request: Generate, seed: int = 1) -> tuple[GenerateValue, list[str]]:
    pieces: list[str] = []
    return engine.answer(request, seed, lambda piece: pieces.append(piece) is None), pieces


def test_it_chats_in_pieces_and_counts(engine: LlamaEngine) -> None:
    value, pieces = answer(engine, Generate(CAPITAL, "", 12))
    assert "Paris" in value.text
    assert "".join(pieces) == value.text
    assert len(pieces) > 3
    assert (value.finish, value.completion_tokens) == ("length", 12)
    assert value.prompt_tokens == 42


def test_it_continues_what_another_began(engine: LlamaEngine) -> None:
    whole, pieces = answer(engine, Generate(CAPITAL, "", 12))
    begun = "".join(pieces[:6])
    rest, _ = answer(engine, Generate(CAPITAL, "", 6, resume=begun))
    assert begun + rest.text == whole.text
    turns = (*CAPITAL, ChatTurn("assistant", "".join(pieces[:3])))
    assert answer(engine, Generate(turns, "", 6, resume="".join(pieces[3:6])))[0].text == rest.text


def test_plain_completion_with_a_stop(engine: LlamaEngine) -> None:
    value, _ = answer(engine, Generate((), "One, two, three, four, five,", 20, stop=("seven",)))
    assert value.text.strip() == "six,"
    assert value.finish == "stop"


def test_seeds(engine: LlamaEngine) -> None:
    hot = Generate((), "The weather is", 12, temperature="1.5", top_p="0.95")
    assert answer(engine, hot, 5)[0] == answer(engine, hot, 5)[0]
    assert answer(engine, hot, 5)[0].text != answer(engine, hot, 6)[0].text
    assert answer(engine, hot, (1 << 32) - 1)[0] == answer(engine, hot, (1 << 32) - 1)[0]


def test_two_streams_at_once(engine: LlamaEngine) -> None:
    requests = [Generate((), f"My favourite {thing} is", 12) for thing in ("food", "city", "book", "song")]
    alone = [answer(engine, request)[0].text for request in requests]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda request: answer(engine, request)[0].text, requests))
    assert together == alone


def test_refusals(engine: LlamaEngine) -> None:
    with pytest.raises(FallowError, match="room for 256") as caught:
        answer(engine, Generate((), "hello " * 500, 5))
    assert caught.value.code == "E1903"
    assert answer(engine, Generate(CAPITAL, "", 4))[0].completion_tokens == 4


def test_a_cancelled_answer_is_metered_at_what_was_told(engine: LlamaEngine) -> None:
    heard: list[str] = []

    def emit(piece: str) -> bool:
        heard.append(piece)
        return len(heard) < 3

    for request in (Generate(CAPITAL, "", 50), Generate((), "The weather is", 50)):
        heard.clear()
        value, whole = engine.answer(request, 1, emit), answer(engine, request)[0]
        assert (value.text, value.finish, value.completion_tokens) == ("".join(heard), CANCELLED, 3)
        assert value.prompt_tokens == whole.prompt_tokens
        assert whole.text.startswith(value.text)


def test_its_port_is_locked(engine: LlamaEngine) -> None:
    """Attack: another user of the machine asks the engine's own HTTP port, unmetered and unpaid."""
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{engine._server.listening_address}/v1/models")


def test_what_llama_cannot_load(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(smol_gguf().read_bytes()[:100_000])
    with pytest.raises(FallowError) as caught:
        LlamaEngine(tmp_path / "bad.gguf", 256, 1, 1)
    assert caught.value.code == "E1701"


def test_it_can_be_dropped_at_once() -> None:
    """Upstream's destructor hangs when the server's loop has not begun; see `LlamaEngine`."""
    script = (
        "import sys; from pathlib import Path; from fallow.workloads.engine_llama import LlamaEngine\n"
        "LlamaEngine(Path(sys.argv[1]), 128, 1, 1)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(smol_gguf())], check=True, timeout=60, capture_output=True)


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "rivers": {"type": "integer", "maximum": 9}},
    "required": ["city", "rivers"],
    "additionalProperties": False,
}
AS_JSON = Generate(CAPITAL, "", 40, guide=json.dumps({"json_schema": SCHEMA}))
CALL = Generate(CAPITAL, "", 60, tools=json.dumps(TOOLS), guide='{"calls": "required", "parallel": false}')


@pytest.mark.parametrize("request_", [AS_JSON, msgspec.structs.replace(AS_JSON, turns=(), prompt="It is")])
def test_json_of_a_schema(engine: LlamaEngine, request_: Generate) -> None:
    value, pieces = answer(engine, request_)
    jsonschema.validate(json.loads(value.text), SCHEMA)
    assert value.finish == "stop"
    assert "".join(pieces) == value.text


def test_calls_of_tools() -> None:
    value, _ = answer(LlamaEngine(smol_gguf(), 1024, 1, 1), CALL)
    call = json.loads(value.text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert call["name"] in ("walk", "rest")


def test_a_guided_answer_goes_on_where_it_was_cut(engine: LlamaEngine) -> None:
    whole, pieces = answer(engine, AS_JSON)
    begun = "".join(pieces[:4])
    rest, _ = answer(engine, msgspec.structs.replace(AS_JSON, resume=begun, max_tokens=36))
    assert begun + rest.text == whole.text
    assert rest.finish == "stop"
    short, _ = answer(engine, msgspec.structs.replace(AS_JSON, resume=begun, max_tokens=2))
    assert short.finish == "length"
    assert (begun + short.text, short.completion_tokens) == ("".join(pieces[:6]), 2)
    assert whole.prompt_tokens < short.prompt_tokens <= rest.prompt_tokens + 1 <= whole.prompt_tokens + 6
    with pytest.raises(FallowError) as caught:
        answer(engine, msgspec.structs.replace(AS_JSON, resume='{"city": "Oz'))
    assert caught.value.code == "E1904"


@pytest.mark.parametrize("guide", [{"json_schema": {"not": {}}}, {"regex": "("}, {"lark": "start: zork"}])
def test_a_guide_that_cannot_be_followed_is_refused_before_the_first_token(engine: LlamaEngine, guide: Any) -> None:
    with pytest.raises(FallowError) as caught:
        answer(engine, msgspec.structs.replace(AS_JSON, guide=json.dumps(guide)))
    assert caught.value.code == "E1904"


def test_what_llama_cpp_does_not_follow_is_not_told(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_llama, "grammar_of", lambda _: "start: zork")
    said: list[str] = []
    with pytest.raises(FallowError) as caught:
        engine.answer(AS_JSON, 1, lambda piece: said.append(piece) is None)
    assert caught.value.code == "E1904"
    assert not said


def test_penalties_and_a_bias(engine: LlamaEngine) -> None:
    plain = Generate((), "la la la la la la la la la la la la", 8)
    said = answer(engine, plain)[0].text
    other = answer(engine, msgspec.structs.replace(plain, frequency_penalty="2", presence_penalty="2"))[0].text
    assert said != other
    words = answer(engine, Generate((), "One, two, three, four, five,", 2, bias=((0, 10_000),)))[0]
    assert words.text == ""
