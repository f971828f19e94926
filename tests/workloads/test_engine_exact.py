from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from tests.workloads.tiny import make_model, without_an_exact_form

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import CANCELLED, ChatTurn, Generate, GenerateValue
from fallow.numerics.exact import routes
from fallow.numerics.exact.generation import GrowingText
from fallow.wire.codec import decode, encode
from fallow.workloads import batching, engine_exact, lora
from fallow.workloads.engine_exact import ExactEngine, exact_product
from fallow.workloads.engine_torch import TorchEngine
from fallow.workloads.model import load_model

PROMPT = Generate((), "The old farmer went to the", 24)
DRAWN = msgspec.structs.replace(PROMPT, temperature="1", top_p="0.95")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("engine") / "model", seed=3)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    found = lora.inject(load_model(model).network, ("q_proj", "v_proj"), 4, 64)
    draw = np.random.default_rng(1)
    theta = {name: draw.standard_normal(tuple(p.shape)).astype(np.float32) for name, p in found.items()}
    lora.write_adapter(folder, theta, "base", {"rank": 4, "alpha": 64, "targets": ("q_proj", "v_proj")})
    return folder


def open_exact(model: Path, adapter: Path | None = None, context: int = 128, threads: int = 1) -> ExactEngine:
    return ExactEngine(load_model(model), adapter, context, 8, threads)


@pytest.fixture(scope="module")
def engine(model: Path) -> ExactEngine:
    return open_exact(model)


def answer(engine: ExactEngine, request: Generate, seed: int = 1) -> tuple[GenerateValue, list[str]]:
    pieces: list[str] = []
    value = engine.answer(request, seed, lambda piece: pieces.append(piece) is None)
    return value, [piece for piece in pieces if piece]


def change(request: Generate = PROMPT, **settings: Any) -> Generate:
    return msgspec.structs.replace(request, **settings)


def test_greedy_is_what_fp32_says_and_its_logits_are_committed_to(engine: ExactEngine, model: Path) -> None:
    value, pieces = answer(engine, PROMPT)
    plain = TorchEngine(load_model(model), None, 128, 1).answer(PROMPT, 1, lambda _: True)
    assert msgspec.structs.replace(value, logits=b"") == plain
    assert "".join(pieces) == value.text
    assert len(value.logits) == 32


def test_company_pieces_and_joining_late_change_nothing(engine: ExactEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [change(DRAWN, prompt="The old farmer " * n, max_tokens=9) for n in (1, 4, 2, 7)]
    alone = [answer(engine, request, seed)[0] for seed, request in enumerate(requests)]
    monkeypatch.setattr(batching, "PIECE_TOKENS", 7)
    monkeypatch.setattr(batching, "SHARED_PIECE_TOKENS", 3)
    found: dict[int, GenerateValue] = {}

    def one(seed: int) -> None:
        found[seed] = answer(engine, requests[seed], seed)[0]

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(4)] == alone


def test_equal_seeds_give_equal_answers_and_others_do_not(engine: ExactEngine) -> None:
    first, _ = answer(engine, DRAWN, 1)
    assert answer(engine, DRAWN, 1)[0] == first
    other, _ = answer(engine, DRAWN, 2)
    assert (other.text, other.logits) != (first.text, first.logits)


@pytest.mark.parametrize("request_", [PROMPT, DRAWN])
def test_a_resumed_answer_goes_on_the_same_way_wherever_it_was_cut(
    engine: ExactEngine, request_: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is the same as if it had not been cut, and so is the commitment to the rest's logits, whoever makes
    it."""
    texts: list[GrowingText] = []
    run = engine._batch.run
    monkeypatch.setattr(engine._batch, "run", lambda text, *rest: (texts.append(text), run(text, *rest)))
    tried = 0
    for seed in range(6):
        whole, pieces = answer(engine, request_, seed)
        made = texts[-1].tokens
        for count in range(1, len(pieces), 3):
            begun = "".join(pieces[:count])
            tokens = engine._tokenizer(PROMPT.prompt + begun)["input_ids"]
            if tokens != made[: len(tokens)] or len(tokens) == len(made):
                continue  # read in one go, this beginning is other tokens than those that it was made of
            rest = change(request_, resume=begun, max_tokens=24 - (len(tokens) - whole.prompt_tokens))
            value, _ = answer(engine, rest, seed)
            tried += 1
            assert begun + value.text == whole.text
            assert value.logits not in (b"", whole.logits)
            assert answer(engine, rest, seed)[0] == value
    assert tried


WAYS: list[dict[str, str]] = [
    {"FALLOW_EXACT_ISA": "portable"},
    {"FALLOW_EXACT_ISA": "avx2"},
    {"FALLOW_EXACT_NATIVE": "0"},
    {"FALLOW_EXACT_NATIVE": "0", "FALLOW_EXACT_ROUTE": "int8"},
]
ELSEWHERE = """
import sys
from pathlib import Path
from fallow.wire.codec import decode, encode
from fallow.kinds.generate.tasks import Generate
from fallow.workloads.engine_exact import ExactEngine
from fallow.workloads.model import load_model
model, adapter, threads, request = sys.argv[1:]
engine = ExactEngine(load_model(Path(model)), Path(adapter) if adapter else None, 128, 1, int(threads))
value = engine.answer(decode(Generate, bytes.fromhex(request)), 5, lambda _: True)
sys.stdout.write(encode(value).hex())
"""


@pytest.mark.parametrize("way", WAYS, ids=lambda way: " ".join(way.values()))
def test_an_auditor_on_another_machine_gets_the_same_value(model: Path, adapter: Path, way: dict[str, str]) -> None:
    value, _ = answer(open_exact(model, adapter), DRAWN, 5)
    told = [sys.executable, "-c", ELSEWHERE, str(model), str(adapter), "2", encode(DRAWN).hex()]
    done = subprocess.run(told, env=os.environ | way, check=True, capture_output=True, text=True)
    assert decode(GenerateValue, bytes.fromhex(done.stdout)) == value


def test_another_models_logits_are_not_these(engine: ExactEngine, model: Path, tmp_path: Path) -> None:
    """A model whose weights differ by next to nothing says the same, and is found out."""
    cheap = load_model(model)
    with torch.no_grad():
        cheap.network.model.layers[1].mlp.down_proj.weight[0, 0] += 2.0**-8
    value, _ = answer(ExactEngine(cheap, None, 128, 1, 1), PROMPT)
    honest, _ = answer(engine, PROMPT)
    assert value.text == honest.text
    assert value.logits != honest.logits


def test_a_stop_string_is_neither_said_nor_passed(engine: ExactEngine) -> None:
    whole, _ = answer(engine, DRAWN)
    stop = whole.text[5:8]
    value, pieces = answer(engine, change(DRAWN, stop=(stop,)))
    assert value.text == "".join(pieces) == whole.text[: whole.text.index(stop)]
    assert value.finish == "stop"
    assert value.completion_tokens < whole.completion_tokens


def test_the_end_token_ends_it(model: Path) -> None:
    made = open_exact(model)
    tokens, _ = answer(made, PROMPT)
    made._ends = frozenset({made._tokenizer(tokens.text)["input_ids"][0]})
    value, _ = answer(made, PROMPT)
    assert (value.text, value.finish, value.completion_tokens) == ("", "stop", 1)


def test_the_context_is_the_limit_and_so_is_memory(
    engine: ExactEngine, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, _ = answer(engine, change(max_tokens=0))
    assert value.prompt_tokens + value.completion_tokens == 128
    assert value.finish == "length"
    with pytest.raises(FallowError, match="room for 128") as caught:
        answer(engine, change(prompt="The old farmer. " * 100))
    assert caught.value.code == "E1903"
    monkeypatch.setattr(engine_exact, "CACHE_BYTES", 40 * 1024)
    assert 0 < open_exact(model).context_tokens < 128


@pytest.mark.parametrize("words", [1, 3])
def test_nobody_wants_more(engine: ExactEngine, model: Path, words: int) -> None:
    heard: list[str] = []

    def emit(piece: str) -> bool:
        heard.extend([piece] if piece else [])
        return len(heard) < words

    value = engine.answer(DRAWN, 1, emit)
    whole, _ = answer(engine, DRAWN)
    assert (value.text, value.finish) == ("".join(heard), CANCELLED)
    assert (value.prompt_tokens, value.completion_tokens) == (whole.prompt_tokens, words)
    assert whole.text.startswith(value.text)


def test_nobody_wants_even_the_first_word(engine: ExactEngine) -> None:
    with pytest.raises(FallowError) as caught:
        engine.answer(PROMPT, 1, lambda _: False)
    assert caught.value.code == "E1402"


def test_what_emit_raises_ends_that_answer_alone(engine: ExactEngine) -> None:
    def emit(piece: str) -> bool:
        if piece:
            raise ZeroDivisionError
        return True

    with pytest.raises(ZeroDivisionError):
        engine.answer(PROMPT, 1, emit)
    assert answer(engine, PROMPT)[0].completion_tokens == 24


def test_chat_goes_through_the_template(engine: ExactEngine) -> None:
    value, _ = answer(engine, Generate((ChatTurn("user", "Where did he go?"),), "", 8))
    plain, _ = answer(engine, Generate((), "<|user|>Where did he go?<end><|assistant|>", 8))
    assert value == plain


def test_doing_it_again_tells_the_truth_from_anything_else(model: Path, adapter: Path) -> None:
    value, _ = answer(open_exact(model, adapter), DRAWN, 9)
    assert answer(open_exact(model, adapter, threads=2), DRAWN, 9)[0] == value
    assert answer(open_exact(model), DRAWN, 9)[0] != value
    assert answer(open_exact(model, adapter), DRAWN, 8)[0] != value


def test_an_adapter_is_added_exactly(model: Path, adapter: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    up, down = torch.randn(64, 4, generator=generator), torch.randn(4, 96, generator=generator)
    product = exact_product(up, down)
    assert (product - up @ down).norm() < 3e-4 * (up @ down).norm()
    with routes.use("fp64"):
        assert torch.equal(exact_product(up, down), product)
    value, _ = answer(open_exact(model, adapter), PROMPT)
    assert value.text == TorchEngine(load_model(model), adapter, 128, 1).answer(PROMPT, 1, lambda _: True).text
    assert value.text != answer(open_exact(model), PROMPT)[0].text


def test_a_model_without_layers_is_none_of_exact_form(model: Path) -> None:
    bare = load_model(model)
    bare.network.model.layers = torch.nn.ModuleList()
    with pytest.raises(FallowError) as caught:
        ExactEngine(bare, None, 128, 1, 1)
    assert caught.value.code == "E1709"


def test_a_model_without_an_exact_form_is_left_as_it_was(tmp_path: Path) -> None:
    other = load_model(without_an_exact_form(tmp_path))
    with pytest.raises(FallowError) as caught:
        ExactEngine(other, None, 0, 1, 1)
    assert caught.value.code == "E1709"
    assert all(parameter.numel() for parameter in other.network.parameters())


def test_its_matrices_are_kept_once(model: Path) -> None:
    loaded = load_model(model)
    held = sum(parameter.numel() for parameter in loaded.network.parameters())
    embedding = loaded.network.model.embed_tokens.weight.numel()
    ExactEngine(loaded, None, 0, 1, 1)
    left = sum(parameter.numel() for parameter in loaded.network.parameters())
    assert left < embedding + 1000 < held
