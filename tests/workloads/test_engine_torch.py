from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.workloads.tiny import make_model

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import CANCELLED, ChatTurn, Generate, GenerateValue
from fallow.workloads import engine_torch, lora
from fallow.workloads.engine_torch import TorchEngine, Turns, choose
from fallow.workloads.engines import SamplingSettings
from fallow.workloads.model import load_model

PROMPT = Generate((), "The old farmer went to the", 24)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("engine") / "model", seed=3)


@pytest.fixture(scope="module")
def engine(model: Path) -> TorchEngine:
    return TorchEngine(load_model(model), None, 128, 1)


def answer(engine: TorchEngine, request: Generate, seed: int = 1) -> tuple[GenerateValue, list[str]]:
    pieces: list[str] = []
    value = engine.answer(request, seed, lambda piece: pieces.append(piece) is None)
    return value, [piece for piece in pieces if piece]


def change(**settings: object) -> Generate:
    import msgspec

    return msgspec.structs.replace(PROMPT, **settings)


def test_greedy_is_what_transformers_generates(engine: TorchEngine, model: Path) -> None:
    plain = load_model(model)
    prompt = torch.tensor([plain.tokenizer(PROMPT.prompt)["input_ids"]])
    made = plain.network.generate(prompt, max_new_tokens=24, do_sample=False, pad_token_id=0)[0, prompt.shape[1] :]
    value, pieces = answer(engine, PROMPT)
    assert value.text == plain.tokenizer.decode(made, skip_special_tokens=True)
    assert "".join(pieces) == value.text
    assert (value.prompt_tokens, value.completion_tokens) == (prompt.shape[1], len(made))


def test_a_long_prompt_in_pieces(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = answer(engine, PROMPT)
    monkeypatch.setattr(engine_torch, "PIECE_TOKENS", 3)
    assert answer(engine, PROMPT)[0] == whole


def test_equal_seeds_give_equal_answers_and_others_do_not(engine: TorchEngine) -> None:
    hot = change(temperature="1")
    first, _ = answer(engine, hot, seed=1)
    assert answer(engine, hot, seed=1)[0] == first
    assert answer(engine, hot, seed=2)[0].text != first.text


@pytest.mark.parametrize("temperature", ["0", "1"])
def test_a_resumed_answer_goes_on_the_same_way(engine: TorchEngine, temperature: str) -> None:
    """Draws go by position, so where the text falls into the same tokens, a new provider continues word for word."""
    whole, pieces = answer(engine, change(temperature=temperature))
    encode = engine._model.tokenizer
    tried = 0
    for count in range(1, len(pieces)):
        begun = "".join(pieces[:count])
        known = encode(PROMPT.prompt + begun)["input_ids"]
        if len(known) != whole.prompt_tokens + count:
            continue  # these pieces are tokenized otherwise when read in one go
        value, _ = answer(engine, change(temperature=temperature, resume=begun, max_tokens=24 - count))
        tried += 1
        assert begun + value.text == whole.text
        assert value.prompt_tokens + value.completion_tokens == whole.prompt_tokens + whole.completion_tokens
    assert tried


def test_streams_side_by_side_do_not_disturb_each_other(engine: TorchEngine) -> None:
    alone = [answer(engine, change(temperature="1"), seed)[0] for seed in range(4)]
    found: dict[int, GenerateValue] = {}

    def one(seed: int) -> None:
        found[seed] = answer(engine, change(temperature="1"), seed)[0]

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(4)] == alone


def test_a_stop_string_is_neither_said_nor_passed(engine: TorchEngine) -> None:
    whole, _ = answer(engine, PROMPT)
    stop = whole.text[5:8]
    value, pieces = answer(engine, change(stop=(stop,)))
    assert value.text == "".join(pieces) == whole.text[: whole.text.index(stop)]
    assert value.finish == "stop"
    assert value.completion_tokens < whole.completion_tokens


def test_the_end_token_ends_it(model: Path) -> None:
    plain = TorchEngine(load_model(model), None, 128, 1)
    tokens, _ = answer(plain, PROMPT)
    first = plain._model.tokenizer(tokens.text)["input_ids"][0]
    object.__setattr__(plain._model, "ends", frozenset({first}))
    value, _ = answer(plain, PROMPT)
    assert (value.text, value.finish, value.completion_tokens) == ("", "stop", 1)


def test_the_context_is_the_limit(engine: TorchEngine) -> None:
    value, _ = answer(engine, change(max_tokens=0))
    assert value.prompt_tokens + value.completion_tokens == 128
    assert value.finish == "length"
    with pytest.raises(FallowError, match="room for 128") as caught:
        answer(engine, change(prompt="The old farmer. " * 100))
    assert caught.value.code == "E1903"


def test_nobody_wants_more(engine: TorchEngine) -> None:
    heard: list[str] = []

    def emit(piece: str) -> bool:
        heard.append(piece)
        return len(heard) < 3

    value = engine.answer(PROMPT, 1, emit)
    whole, _ = answer(engine, PROMPT)
    assert len(heard) == 3
    assert (value.text, value.finish) == ("".join(heard), CANCELLED)
    assert (value.prompt_tokens, value.completion_tokens) == (whole.prompt_tokens, sum(map(bool, heard)))
    assert whole.text.startswith(value.text)


def test_nobody_wants_even_the_first_word(engine: TorchEngine) -> None:
    with pytest.raises(FallowError) as caught:
        engine.answer(PROMPT, 1, lambda _: False)
    assert caught.value.code == "E1402"


def test_chat_goes_through_the_template(engine: TorchEngine) -> None:
    turns = (ChatTurn("user", "Where did he go?"),)
    value, _ = answer(engine, Generate(turns, "", 8))
    plain, _ = answer(engine, Generate((), "<|user|>Where did he go?<end><|assistant|>", 8))
    assert value == plain
    kept, engine._model.tokenizer.chat_template = engine._model.tokenizer.chat_template, None
    try:
        with pytest.raises(FallowError) as caught:
            answer(engine, Generate(turns, "", 8))
    finally:
        engine._model.tokenizer.chat_template = kept
    assert caught.value.code == "E1904"


def test_an_adapter_changes_the_answer(engine: TorchEngine, model: Path, tmp_path: Path) -> None:
    found = lora.inject(load_model(model).network, ("q_proj", "v_proj"), 4, 64)
    draw = np.random.default_rng(1)
    theta = {name: draw.standard_normal(tuple(p.shape)).astype(np.float32) for name, p in found.items()}
    lora.write_adapter(tmp_path, theta, "base", {"rank": 4, "alpha": 64, "targets": ("q_proj", "v_proj")})
    assert answer(TorchEngine(load_model(model), tmp_path, 0, 1), PROMPT)[0].text != answer(engine, PROMPT)[0].text


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.asarray([0.5, 0.3, 0.15, 0.05], dtype=np.float32))
    counts = Counter(choose(logits, SamplingSettings(1.0, 1.0), 7, position) for position in range(4000))
    assert [counts[token] / 4000 for token in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    assert {choose(logits, SamplingSettings(1.0, 0.7), 7, position) for position in range(500)} == {0, 1}
    assert {choose(logits, SamplingSettings(1.0, 0.0), 7, position) for position in range(500)} == {0}
    assert {choose(logits, SamplingSettings(0.01, 1.0), 7, position) for position in range(100)} == {0}
    assert choose(logits, SamplingSettings(0.0, 1.0), 7, 0) == 0


def test_turns_are_taken_in_order() -> None:
    turns, served = Turns(), list[int]()
    turns.__enter__()

    def wait(number: int) -> None:
        with turns:
            served.append(number)

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(5)]
    for number, thread in enumerate(threads):
        thread.start()
        while len(turns._waiting) < number + 2:
            pass
    turns.__exit__()
    for thread in threads:
        thread.join()
    assert served == [0, 1, 2, 3, 4]
