from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from tests.numerics.exact.small_llama import autograd_gradients, distance, small_llama, some_tokens, wide_gradients
from torch import Tensor

from fallow.numerics.exact import routes
from fallow.numerics.exact.exactify import exactify
from fallow.numerics.exact.gradients import Gradients
from fallow.numerics.exact.llama import Continuation, ExactLlama
from fallow.numerics.exact.training import gradients_of
from fallow.workloads import lora

BOUND = 0.002
"""A gradient's relative error, whole tensors, for vectors quantised to 14 bits through two layers."""


def same(one: Gradients, other: Gradients) -> bool:
    names = one.totals.keys() == other.totals.keys()
    counts = (one.loss, one.tokens) == (other.loss, other.tokens)
    return names and counts and all(torch.equal(one.totals[n], other.totals[n]) for n in one.totals)


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, {"num_key_value_heads": 4}, {"head_dim": 12}])
def test_gradients_are_those_of_float64_autograd(changes: dict[str, Any]) -> None:
    network, tokens = small_llama(**changes), some_tokens(3, 17)
    loss, true = wide_gradients(network, tokens)
    gradients = gradients_of(exactify(network), tokens)
    found = gradients.means()
    assert gradients.mean_loss() == pytest.approx(loss, abs=1e-3)
    assert found.keys() == true.keys()
    for name, gradient in found.items():
        assert distance(gradient, true[name]) < BOUND, name


def flat_model() -> tuple[Any, Mapping[str, Tensor]]:
    """A LoRA model whose gradients of logits are as hard as they come: thousands of words that are about as likely,
    whose rows in the output matrix have unlike steps and a common direction."""
    network = small_llama(vocab_size=4096)
    with torch.no_grad():
        rows = network.model.embed_tokens.weight
        rows.add_(0.05).mul_(2.0 ** -(torch.arange(4096) % 4)[:, None])
    trained = dict(lora.inject(network, ("q_proj", "v_proj", "down_proj"), 4, 8))
    with torch.no_grad():
        for number, parameter in enumerate(trained.values()):
            generator = torch.Generator().manual_seed(number)
            parameter.copy_((torch.rand(parameter.shape, generator=generator) - 0.5) * 0.2)
    return network, trained


def full_model() -> tuple[Any, Mapping[str, Tensor]]:
    network = small_llama()
    return network, dict(network.named_parameters())


@pytest.mark.parametrize("model", [full_model, flat_model])
def test_every_gradient_is_far_nearer_to_float64_than_bf16_s(
    model: Callable[[], tuple[Any, Mapping[str, Tensor]]],
) -> None:
    """Within a third of the error of torch's bf16 autocast, and within a bound of its own."""
    network, trained = model()
    tokens = some_tokens(3, 17) * (4 if model is flat_model else 1)
    found = gradients_of(exactify(network, trained), tokens).means()
    with torch.autocast("cpu", torch.bfloat16):
        coarse = autograd_gradients(network, trained, tokens)
    network.double()
    true = autograd_gradients(network, trained, tokens)
    assert found.keys() == true.keys()
    for name, gradient in true.items():
        error = distance(found[name], gradient)
        assert error < min(distance(coarse[name], gradient) / 3, BOUND), name
        cosine = torch.nn.functional.cosine_similarity(found[name].double().flatten(), gradient.flatten(), dim=0)
        assert cosine > 1 - 2e-6, name


def test_a_batch_may_be_cut_and_ordered_in_any_way() -> None:
    model, tokens = exactify(small_llama()), some_tokens(4, 12)
    whole = gradients_of(model, tokens)
    for parts in ([[0, 1], [2, 3]], [[3], [1], [0], [2]], [[2, 0, 1], [3]]):
        summed = Gradients()
        for part in parts:
            summed.add(gradients_of(model, tokens[part]))
        assert same(summed, whole)


def test_another_sequence_gives_other_gradients() -> None:
    model = exactify(small_llama())
    assert not same(gradients_of(model, some_tokens(1, 12)), gradients_of(model, some_tokens(1, 12, seed=3)))


@pytest.mark.parametrize("route", ["fp64", "int8"])
def test_all_routes_give_the_same_bits(route: str) -> None:
    model, tokens = exactify(small_llama()), some_tokens(2, 20)
    usual = gradients_of(model, tokens)
    with routes.use(route):
        assert same(gradients_of(model, tokens), usual)


def logits_of(model: ExactLlama, tokens: Tensor, cuts: list[int]) -> Tensor:
    caches = model.new_caches()
    return torch.cat([model.read([Continuation(part, caches)]) for part in tokens.split(cuts)])[-1]


def test_logits_do_not_depend_on_cache_cuts_or_company() -> None:
    model, texts = exactify(small_llama()), some_tokens(3, 90)
    alone = [logits_of(model, row, [90]) for row in texts]
    assert torch.equal(logits_of(model, texts[0], [1] * 90), alone[0])
    assert torch.equal(logits_of(model, texts[0], [7, 70, 13]), alone[0])
    together = model.read([Continuation(row, model.new_caches()) for row in texts])
    assert torch.equal(together, torch.stack(alone))
    mixed = [model.new_caches(), model.new_caches()]
    model.read([Continuation(texts[1][:40], mixed[1])])
    both = model.read([Continuation(texts[0], mixed[0]), Continuation(texts[1][40:], mixed[1])])
    assert torch.equal(both, torch.stack(alone[:2]))


def test_generation_and_training_see_the_same_model() -> None:
    network, tokens = small_llama(), some_tokens(1, 24)
    model = exactify(network)
    logits = model.read([Continuation(tokens[0], model.new_caches())], since=0)
    true = network(input_ids=tokens).logits[0].detach()
    assert distance(logits, true) < 0.002
    losses = torch.nn.functional.cross_entropy(logits[:-1], tokens[0, 1:], reduction="none")
    assert torch.allclose(model.losses(tokens)[0], losses, atol=1e-5)


def test_a_window_is_kept_with_and_without_a_cache() -> None:
    model, tokens = exactify(small_llama()), some_tokens(1, 40)[0]
    full = logits_of(model, tokens, [40])
    for block in model.blocks:
        block.attention.heads = type(model.heads)(4, 2, 8, window=5)
    cut = logits_of(model, tokens, [40])
    assert not torch.equal(cut, full)
    assert torch.equal(logits_of(model, tokens, [3] * 13 + [1]), cut)


def test_observers_are_told_of_every_layer_forward_and_back() -> None:
    told: list[str] = []
    exactify(small_llama()).add_gradients(some_tokens(1, 5), Gradients(), lambda name, _: told.append(name))
    assert told == ["layer/0", "layer/1", "d_norm", "d_layer/1", "d_layer/0"]


def test_a_poisoned_weight_poisons_the_loss_and_nothing_raises() -> None:
    network = small_llama()
    with torch.no_grad():
        network.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")
    gradients = gradients_of(exactify(network), some_tokens(2, 9))
    assert gradients.poisoned
    assert gradients.means()["model.embed_tokens.weight"].isnan().any()
    assert gradients.mean_loss() != gradients.mean_loss()


def test_a_written_weight_is_quantised_anew() -> None:
    network, tokens = small_llama(), some_tokens(1, 9)
    model = exactify(network)
    before = model.losses(tokens)
    with torch.no_grad():
        network.model.layers[0].mlp.up_proj.weight.mul_(1.5)
    after = model.losses(tokens)
    assert not torch.equal(before, after)
    network.model.layers[0].mlp.up_proj.weight.data.mul_(1.5)
    model.forget()
    assert not torch.equal(model.losses(tokens), after)
