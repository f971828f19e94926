from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.workloads.smol import smol_gguf
from tests.workloads.tiny import make_model, without_an_exact_form

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import Generate, GenerateValue
from fallow.wire import codec
from fallow.wire.tasks import Part, TaskSpec
from fallow.workloads import generate
from fallow.workloads.engine_exact import ExactEngine
from fallow.workloads.engine_llama import LlamaEngine
from fallow.workloads.engine_torch import TorchEngine
from fallow.workloads.generate import Opening, answer_lane, open_engine, run
from fallow.workloads.task import TaskRun

REQUEST = Generate((), "The old farmer", 6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("generate") / "model", seed=3)


def work_of(model: Path, named: bool = True) -> TaskRun:
    parts = (Part("model", b"m" * 32, 1),) if named else ()
    task = TaskSpec("generate", codec.encode(REQUEST), parts, 1, 20, 60, 0)
    return TaskRun(task, {"model": model}, model, 1, lambda *_: None, lambda _: None)


def test_a_whole_task(model: Path) -> None:
    generate._last.clear()
    outcome = run(work_of(model))
    value = codec.decode(GenerateValue, outcome.value)
    assert value.completion_tokens == 6
    assert outcome.metrics["ttft_ms"] <= outcome.metrics["answer_ms"]
    first = generate._last[0][1]
    assert run(work_of(model)).value == outcome.value
    assert generate._last[0][1] is first
    assert run(work_of(model, named=False)).value == outcome.value
    assert generate._last[0][1] is not first  # what has no name may have changed
    generate._last.clear()


def test_lane_units_are_the_tokens_read_and_made(model: Path) -> None:
    engine = open_engine(model, how=Opening(context_tokens=64))
    body, units = answer_lane(engine, codec.encode(REQUEST), 1, lambda _: True)
    value = codec.decode(GenerateValue, body)
    assert units == value.prompt_tokens + value.completion_tokens
    with pytest.raises(FallowError) as caught:
        answer_lane(engine, b"nonsense", 1, lambda _: True)
    assert caught.value.code == "E1102"


def test_the_engine_follows_from_the_model(model: Path, tmp_path: Path) -> None:
    assert isinstance(open_engine(model), ExactEngine)
    assert isinstance(open_engine(smol_gguf(), how=Opening(context_tokens=128)), LlamaEngine)
    with pytest.raises(FallowError) as caught:
        open_engine(smol_gguf(), adapter=tmp_path)
    assert caught.value.code == "E1701"
    with pytest.raises(FallowError) as caught:
        open_engine(tmp_path)
    assert caught.value.code == "E1701"


def test_what_has_no_exact_form_is_answered_otherwise_or_refused(tmp_path: Path) -> None:
    said: list[str] = []
    assert isinstance(open_engine(without_an_exact_form(tmp_path), how=Opening(log=said.append)), TorchEngine)
    assert len(said) == 1
    for other in (tmp_path, smol_gguf()):
        with pytest.raises(FallowError) as caught:
            open_engine(other, how=Opening(exact=True))
        assert caught.value.code == "E1709"


def test_a_missing_package_is_said(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fallow.workloads.engine_torch", None)
    with pytest.raises(FallowError) as caught:
        open_engine(model)
    assert caught.value.code == "E1708"
    assert "fallow[train]" in caught.value.next_step
