from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.workloads.tiny import make_model

from fallow.errors import FallowError
from fallow.workloads.model import base_name, be_reproducible, convert_gguf, load_model
from fallow.workloads.model_files import inspect_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("made") / "model")


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def code_of(path: Path) -> str:
    with pytest.raises(FallowError) as caught:
        load_model(path)
    return caught.value.code


def edit(path: Path, **change: object) -> None:
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | change))


def test_it_loads_frozen_in_fp32_whatever_it_was_saved_in(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    save_file(halves, model / "model.safetensors", metadata={"format": "pt"})
    found = load_model(model)
    assert {p.dtype for p in found.network.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in found.network.parameters())
    assert found.context_tokens == 256
    assert found.ends == {found.tokenizer.eos_token_id}


def test_a_tensor_that_is_missing_is_not_made_up(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    assert code_of(model) == "E1701"


def test_a_tensor_of_another_shape(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(63)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    assert code_of(model) == "E1701"


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "no-such-model"},
        {"model_type": 7},
        {"hidden_size": "wide"},
        {"num_attention_heads": 0},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    ],
)
def test_a_config_that_makes_no_model(model: Path, change: dict[str, object]) -> None:
    edit(model / "config.json", **change)
    assert code_of(model) == "E1701"


def test_no_code_of_the_authors_is_run(model: Path, tmp_path: Path) -> None:
    """Attack: a model whose config asks to import a Python file that lies beside it."""
    (model / "evil.py").write_text(f"open({str(tmp_path / 'proof')!r}, 'w')\n")
    edit(model / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})
    assert code_of(model) == "E1701"
    assert not (tmp_path / "proof").exists()


def test_without_a_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text("{}")
    assert code_of(model) == "E1701"
    (model / "tokenizer.json").unlink()
    assert code_of(model) == "E1701"


def test_gguf_must_be_converted_first(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(100))
    assert code_of(tmp_path / "a.gguf") == "E1701"


def test_a_gguf_file_that_is_none(tmp_path: Path, model: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(100))
    for path in (tmp_path / "a.gguf", model):
        with pytest.raises(FallowError) as caught:
            convert_gguf(path, tmp_path / "out")
        assert caught.value.code == "E1701"
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.part").exists()


def test_the_name_of_a_base_model_is_never_a_path(model: Path) -> None:
    facts = inspect_model(model)
    assert base_name(facts, b"\xab" * 32) == "fallow/" + "ab" * 32
    edit(model / "config.json", _name_or_path=str(model))
    assert base_name(facts, b"\xab" * 32) == "fallow/" + "ab" * 32
    edit(model / "config.json", _name_or_path="org/name")
    assert base_name(facts, b"") == "org/name"


def test_threads_are_fixed() -> None:
    be_reproducible(1)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
