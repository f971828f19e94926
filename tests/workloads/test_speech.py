from __future__ import annotations

from typing import Any

import pytest
from tests.workloads.tiny import make_model
from transformers import AutoTokenizer

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import CANCELLED, ChatTurn, Generate, GenerateValue
from fallow.workloads.engines import SamplingSettings, StopWatch
from fallow.workloads.shaping import Shaping
from fallow.workloads.speech import Speech, Telling, read_prompt

END = 0


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(make_model(tmp_path_factory.mktemp("speech") / "model"))


def tell(tokenizer: Any, text: str, limit: int = 99, patience: int = 99, stop: tuple[str, ...] = ()) -> GenerateValue:
    """Say `text` and then the end token, until no more is wanted."""
    heard: list[str] = []

    def emit(piece: str) -> bool:
        heard.append(piece)
        return len(heard) < patience

    prompt = tokenizer("The old")["input_ids"]
    nothing = Shaping(Generate((), "x", 1), SamplingSettings(0, 1), None, len(tokenizer), ())
    telling = Telling(Speech(tokenizer, prompt, StopWatch(stop)), len(prompt), frozenset({END}), limit, emit, nothing)
    for token in [*tokenizer(text)["input_ids"], END]:
        if not telling.take(token):
            break
    value = telling.value(b"l" * 32)
    assert value.text == "".join(heard)
    return value


def test_characters_of_several_tokens_come_whole(tokenizer: Any) -> None:
    text = "Ünïcödé 😀 — ok"
    speech = Speech(tokenizer, tokenizer("x")["input_ids"], StopWatch(()))
    pieces = [speech.feed(token) for token in tokenizer(text)["input_ids"]]
    assert "".join(pieces) + speech.flush() == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_how_an_answer_ends(tokenizer: Any) -> None:
    said = " farmer went to the market"
    count, read = len(tokenizer(said)["input_ids"]), len(tokenizer("The old")["input_ids"])
    assert tell(tokenizer, said) == GenerateValue(said, "stop", read, count + 1, b"l" * 32)
    short = tell(tokenizer, said, limit=2)
    assert (short.finish, short.completion_tokens) == ("length", 2)
    stopped = tell(tokenizer, said, stop=("went",))
    assert (stopped.text, stopped.finish) == (" farmer ", "stop")
    assert stopped.completion_tokens < count
    cut = tell(tokenizer, said, patience=2)
    assert (cut.finish, cut.completion_tokens, cut.logits) == (CANCELLED, 2, b"l" * 32)
    assert said.startswith(cut.text)


def test_a_chat_is_its_template_and_what_was_said_already(tokenizer: Any) -> None:
    turns = (ChatTurn("user", "Where?"), ChatTurn("assistant", "To "))
    wanted = tokenizer("<|user|>Where?<end><|assistant|>To the", add_special_tokens=False)["input_ids"]
    assert read_prompt(tokenizer, Generate(turns, "", 8, resume="the")).tokens == wanted
    assert read_prompt(tokenizer, Generate((), "The ", 8, resume="old")).tokens == tokenizer("The old")["input_ids"]


def test_a_model_without_a_template_takes_no_turns(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for template in (None, "{{ raise_exception('no') }}"):
        monkeypatch.setattr(tokenizer, "chat_template", template)
        with pytest.raises(FallowError) as caught:
            read_prompt(tokenizer, Generate((ChatTurn("user", "hi"),), "", 8))
        assert caught.value.code == "E1904"
