from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.workloads.tiny import make_model

from fallow.errors import FallowError
from fallow.workloads.model_files import inspect_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("made") / "model")


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def code_of(path: Path) -> str:
    with pytest.raises(FallowError) as caught:
        inspect_model(path)
    return caught.value.code


def test_a_whole_model(model: Path) -> None:
    facts = inspect_model(model)
    assert (facts.layout, facts.architecture, facts.has_tokenizer) == ("hf", "LlamaForCausalLM", True)
    assert facts.context_tokens == 256
    assert facts.parameters == 97_088
    assert facts.size_bytes == (model / "model.safetensors").stat().st_size
    assert inspect_model(model / "config.json").folder == model


def test_what_is_no_model(tmp_path: Path, model: Path) -> None:
    assert code_of(tmp_path / "nowhere") == "E2003"
    (tmp_path / "empty").mkdir()
    assert code_of(tmp_path / "empty") == "E1701"
    (tmp_path / "text.txt").write_text("hello")
    assert code_of(tmp_path / "text.txt") == "E1701"
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert code_of(model) == "E1701"


@pytest.mark.parametrize("cut", [0, 4, 8, 20, 5000, -1])
def test_truncated_weights(model: Path, cut: int) -> None:
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:cut])
    assert code_of(model) == "E1701"


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b"{}",
        json.dumps({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": {"dtype": "?", "shape": [1], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": 1}).encode(),
        b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1e308], "data_offsets": [0, 4]}}',
        json.dumps({"a": {"dtype": "F32", "shape": [10**308] * 60_000, "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}).encode(),
        b"\xff\xfe",
    ],
)
def test_hostile_headers(model: Path, header: bytes) -> None:
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    assert code_of(model) == "E1701"


def test_a_header_that_claims_to_be_endless(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\xff" * 8 + b"{}")
    assert code_of(model) == "E1701"


@pytest.mark.parametrize("config", ["", "{", "[]", "[" * 100_000])
def test_a_broken_config(model: Path, config: str) -> None:
    (model / "config.json").write_text(config)
    assert code_of(model) == "E1701"


def test_shards_by_index_and_one_that_is_missing(model: Path) -> None:
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-1.safetensors"}}
    (model / "model.safetensors").rename(model / "part-1.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert inspect_model(model).parameters == 97_088
    index["weight_map"]["b"] = "part-2.safetensors"
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert code_of(model) == "E1701"


def test_an_index_that_leads_out_of_the_folder(model: Path) -> None:
    (model.parent / "outside.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    for name in ("../outside.safetensors", str(model.parent / "outside.safetensors")):
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        assert code_of(model) == "E1701"


def test_gguf_by_its_first_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "one.gguf").write_bytes(b"GGUF1234")
    assert inspect_model(folder).layout == inspect_model(folder / "one.gguf").layout == "gguf"
    (folder / "two.gguf").write_bytes(b"no")
    assert inspect_model(folder).weights == (folder / "one.gguf",)
    (folder / "two.gguf").write_bytes(b"GGUF")
    assert code_of(folder) == "E1701"
