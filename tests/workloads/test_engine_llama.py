from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.workloads.smol import smol_gguf

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import CANCELLED, ChatTurn, Generate, GenerateValue
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
