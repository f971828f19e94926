from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.workloads.tiny import make_model

from fallow.errors import FallowError
from fallow.workloads import lora
from fallow.workloads.model import load_model

SETTINGS = {"rank": 4, "alpha": 8, "targets": ("q_proj", "v_proj")}
TOKENS = torch.arange(12)[None]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("lora") / "model")


def trained(model: Path, folder: Path) -> torch.Tensor:
    """Write an adapter that does something; returns the logits of the model that it came from."""
    network = load_model(model).network
    found = lora.inject(network, ("q_proj", "v_proj"), 4, 8)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in found.values():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
        logits = network(input_ids=TOKENS).logits
    lora.write_adapter(folder, {name: p.detach().numpy() for name, p in found.items()}, "base", SETTINGS)
    return logits


def test_at_the_start_it_changes_nothing_and_is_the_same_everywhere(model: Path) -> None:
    plain, detoured, again = (load_model(model).network for _ in range(3))
    found = lora.inject(detoured, ("q_proj", "v_proj"), 4, 8)
    torch.manual_seed(99)
    other = lora.inject(again, ("q_proj", "v_proj"), 4, 8)
    assert sorted(found) == sorted(other)
    assert len(found) == 8
    assert all(torch.equal(found[name], other[name]) for name in found)
    assert len({p.detach().numpy().tobytes() for name, p in found.items() if "lora_A" in name}) == 4
    with torch.no_grad():
        assert torch.equal(plain(input_ids=TOKENS).logits, detoured(input_ids=TOKENS).logits)


def test_a_merged_adapter_means_the_same_as_its_detours(model: Path, tmp_path: Path) -> None:
    logits = trained(model, tmp_path / "adapter")
    merged = load_model(model).network
    with torch.no_grad():
        before = merged(input_ids=TOKENS).logits
        lora.merge_adapter(merged, tmp_path / "adapter")
        assert torch.allclose(merged(input_ids=TOKENS).logits, logits, atol=1e-4)
    assert not torch.allclose(before, logits, atol=1e-2)


def test_equal_adapters_have_equal_bytes(model: Path, tmp_path: Path) -> None:
    trained(model, tmp_path / "one")
    trained(model, tmp_path / "two")
    for name in (lora.ADAPTER_FILE, lora.CONFIG_FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_start_is_uniform_within_its_bound() -> None:
    draws = lora._uniform("name", 10_000, 0.25)
    assert np.abs(draws).max() <= 0.25
    assert abs(float(draws.mean())) < 0.01
    assert float(draws.std()) == pytest.approx(0.25 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("how", ["cut", "shape", "unpaired", "elsewhere", "dora", "rank", "config", "missing", "alpha"])
def test_adapters_that_do_not_fit(model: Path, tmp_path: Path, how: str) -> None:
    folder = tmp_path / "adapter"
    trained(model, folder)
    weights, config = folder / lora.ADAPTER_FILE, json.loads((folder / lora.CONFIG_FILE).read_text())
    tensors = load_file(weights)
    name = min(tensors)
    if how == "cut":
        weights.write_bytes(weights.read_bytes()[:-3])
    elif how == "shape":
        save_file(tensors | {name: torch.zeros(4, 63)}, weights)
    elif how == "unpaired":
        save_file({k: v for k, v in tensors.items() if k != name}, weights)
    elif how == "elsewhere":
        save_file({k.replace("layers.0", "layers.9"): v for k, v in tensors.items()}, weights)
    elif how == "missing":
        weights.unlink()
    elif how == "config":
        (folder / lora.CONFIG_FILE).write_text("{")
    else:
        config |= {"dora": {"use_dora": True}, "rank": {"r": 0}, "alpha": {"lora_alpha": None}}[how]
        (folder / lora.CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(FallowError) as caught:
        lora.merge_adapter(load_model(model).network, folder)
    assert caught.value.code == "E1701"
