"""Sizes of models from their headers."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workloads.smol import smol_gguf
from tests.workloads.tiny import make_model

from fallow.sdk.model_size import measure, trained
from fallow.wire.local import ModelSize
from fallow.wire.tasks import Recipe
from fallow.workloads.lora import inject
from fallow.workloads.model import load_model
from fallow.workloads.model_files import inspect_model

LORA = Recipe(method="lora", lora_rank=4)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))


def test_a_folder(tiny: Path) -> None:
    facts = inspect_model(tiny)
    found = measure(tiny, LORA)
    assert found == ModelSize(facts.size_bytes, facts.parameters, found.trained, 2, 64, 128, found.vocabulary, 32, 4)
    assert found.vocabulary == load_model(tiny).network.config.vocab_size
    network: Any = load_model(tiny).network
    parameters = inject(network, LORA.lora_targets, LORA.lora_rank, LORA.lora_alpha)
    assert found.trained == sum(parameter.numel() for parameter in parameters.values())
    assert measure(tiny, Recipe(method="full")).trained == facts.parameters
    assert measure(tiny).trained == 0


def test_a_gguf_file() -> None:
    file = smol_gguf()
    size = file.stat().st_size
    assert measure(file, LORA) == ModelSize(size, 0, 0, 30, 576, 1_536, 49_152, 192, 9)


def test_only_matrices_that_end_in_a_target_are_counted() -> None:
    shapes = {"a.q_proj.weight": (4, 6), "a.xq_proj.weight": (4, 6), "a.q_proj.bias": (4,), "q_proj.weight": (9,)}
    assert trained(shapes, LORA) == 4 * 10


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), b"x" * 100])
def test_what_is_no_model_has_no_size(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    assert measure(file) == measure(tmp_path) == measure(tmp_path / "nothing") == ModelSize()


@given(cut=st.integers(4, 3_000), junk=st.binary(min_size=1, max_size=8))
def test_a_spoilt_header_raises_nothing(cut: int, junk: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("g") / "model.gguf"
    with smol_gguf().open("rb") as stream:
        head = stream.read(3_000)
    file.write_bytes(head[:cut] + junk + head[cut + len(junk) :])
    measure(file)


def test_measuring_needs_no_tensor_libraries() -> None:
    script = "import sys, fallow.sdk.model_size; sys.exit(bool({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
