"""How a model is trained when nobody says, and how much room its commitments get."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from tests.workloads.tiny import make_model

from fallow.kinds.train.trace import cut_for, trace_bytes_for
from fallow.numerics.exact.exactify import FORMS
from fallow.numerics.exact.format import MAX_SEQUENCES
from fallow.sdk.model_size import measure
from fallow.sdk.recipes import EXACT_BATCH, EXACT_FORMS, Arithmetic, arithmetic_for, settled
from fallow.wire.tasks import DEFAULT_TRACE_BYTES, Recipe
from fallow.workloads import lora
from fallow.workloads.model import load_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def chosen(recipe: Recipe | None, model: Path, arithmetic: Arithmetic = "auto") -> Recipe:
    found, size = settled(recipe, model, arithmetic)
    assert size == measure(model, found)
    return found


def of_form(folder: Path, form: str) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": form}))
    return folder


def test_models_of_llamas_form_are_trained_exactly_unless_said_otherwise(tmp_path: Path) -> None:
    for form in EXACT_FORMS:
        assert arithmetic_for(of_form(tmp_path, form), EXACT_BATCH) == "exact"
        assert arithmetic_for(of_form(tmp_path, form), EXACT_BATCH + 1) == "fp32"
    assert arithmetic_for(of_form(tmp_path, "gpt2")) == "fp32"
    (tmp_path / "config.json").write_text("nonsense")
    assert arithmetic_for(tmp_path) == "fp32"
    assert arithmetic_for(tmp_path / "nowhere") == "fp32"


def test_the_forms_are_those_of_exact_arithmetic() -> None:
    assert EXACT_FORMS == FORMS
    assert EXACT_BATCH == MAX_SEQUENCES


def test_what_is_said_holds_and_what_is_not_said_follows_the_model(tmp_path: Path) -> None:
    llama, other = of_form(tmp_path, "llama"), tmp_path / "nowhere"
    exact = Recipe("lora", arithmetic="exact")
    assert chosen(None, llama).arithmetic == "exact"
    assert chosen(Recipe("full"), llama).arithmetic == "exact"
    assert chosen(Recipe("full"), llama, "fp32").arithmetic == "fp32"
    assert chosen(None, other).arithmetic == "fp32"
    assert chosen(None, other, "exact").arithmetic == "exact"
    assert chosen(exact, other).arithmetic == "exact"
    assert chosen(exact, llama, "fp32").arithmetic == "fp32"
    assert chosen(Recipe("full", rounds=7), llama).rounds == 7


@pytest.mark.parametrize("method", ["lora", "full"])
def test_parameters_are_counted_as_they_are_trained(model: Path, method: str) -> None:
    recipe = Recipe(method, lora_rank=4)
    network = load_model(model).network
    names = dict(network.named_parameters())
    trained = lora.inject(network, recipe.lora_targets, 4, 8) if method == "lora" else names
    assert measure(model, recipe).trained == sum(p.numel() for p in trained.values())


def test_room_is_asked_for_as_the_model_needs_it_unless_the_recipe_says(model: Path, tmp_path: Path) -> None:
    recipe = Recipe("full", batch_sequences=2)
    found = chosen(recipe, model)
    parameters = measure(model, recipe).trained
    assert found.trace_bytes == trace_bytes_for(found, parameters) < DEFAULT_TRACE_BYTES
    assert cut_for(found, parameters).units == 2
    said = msgspec.structs.replace(recipe, trace_bytes=1_000)
    assert chosen(said, model).trace_bytes == 1_000
    assert chosen(recipe, model, "fp32").trace_bytes == DEFAULT_TRACE_BYTES
    assert chosen(recipe, of_form(tmp_path, "llama")).trace_bytes == DEFAULT_TRACE_BYTES
