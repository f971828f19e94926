"""Cross-entropy: near the truth, the gradient autograd's, the total the same in any split."""

from __future__ import annotations

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.numerics.exact.precision import bits, even, rows, ulp
from torch.nn import functional

from fallow.numerics.exact import format as formats
from fallow.numerics.exact import losses


def batch(tokens: int, words: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    targets = torch.randint(0, words, (tokens,), generator=torch.Generator().manual_seed(seed))
    return even(-15, 15, tokens * words, seed).view(tokens, words), targets


@given(st.integers(1, 5), st.integers(1, 300), st.integers(0, 1000))
def test_losses_and_gradient(tokens: int, words: int, seed: int) -> None:
    logits, targets = batch(tokens, words, seed)
    wide = logits.double().requires_grad_()
    truth = functional.cross_entropy(wide, targets, reduction="none")
    got, gradient = losses.cross_entropy(logits, targets)
    assert ((got.double() - truth).abs() <= truth.abs() * 2.0**-23.9 + words * 2.0**-33 + 2.0**-23).all()
    (slope,) = torch.autograd.grad(truth.sum(), wide)
    assert (gradient.double() - slope).abs().max() <= 2.0**-24 + words * 2.0**-33
    assert torch.equal(bits(losses.token_losses(logits, targets)), bits(got))


@given(rows(1000.0, 12), st.data())
def test_each_row_is_within_its_bound(row: list[float], data: st.DataObject) -> None:
    logits, target = torch.tensor([row]), data.draw(st.integers(0, len(row) - 1))
    loss, d = losses.cross_entropy(logits, torch.tensor([target]))
    weights = [mpmath.exp(x) for x in logits[0].tolist()]
    total = mpmath.fsum(weights)
    exact = mpmath.log(total / weights[target])
    grid = len(row) * 2.0**-33
    assert abs(loss.item() - exact) <= 0.501 * ulp(exact) + 2.0**-24 + grid
    for place, (found, weight) in enumerate(zip(d[0].tolist(), weights, strict=True)):
        p = weight / total
        slope = p - (place == target)
        assert abs(found - slope) <= abs(slope) * 2.0**-24 + p * (2.0**-23 + grid + 2.0**-40) + 2.0**-149


def test_ignored_tokens_add_nothing_whatever_their_logits() -> None:
    logits, targets = batch(4, 30, 1)
    clean = losses.cross_entropy(logits, targets)
    logits[2], targets[2] = torch.nan, losses.IGNORED
    got, gradient = losses.cross_entropy(logits, targets)
    assert got[2] == 0
    assert not gradient[2].any()
    others = torch.tensor([0, 1, 3])
    assert torch.equal(bits(got[others]), bits(clean[0][others]))
    assert torch.equal(bits(gradient[others]), bits(clean[1][others]))
    assert losses.total_loss(got) == losses.total_loss(clean[0][others])


@pytest.mark.parametrize("target", [-1, 30, 2**40])
def test_a_target_outside_the_vocabulary_is_refused(target: int) -> None:
    logits, targets = batch(2, 30, 1)
    targets[1] = target
    with pytest.raises(ValueError, match="vocabulary of 30"):
        losses.cross_entropy(logits, targets)


@given(st.lists(st.floats(0, 2000, width=32), min_size=1, max_size=30), st.integers(0, 30))
def test_totals_of_parts_add_up(values: list[float], cut: int) -> None:
    one = torch.tensor(values)
    whole = losses.total_loss(one)
    assert whole == losses.total_loss(one[:cut]) + losses.total_loss(one[cut:])
    assert whole.item() * 2.0**-32 == pytest.approx(one.clamp(max=1024).double().sum().item())


def test_nan_is_told() -> None:
    logits, targets = batch(2, 30, 1)
    logits[0, 3] = torch.nan
    got, gradient = losses.cross_entropy(logits, targets)
    assert torch.isnan(got).tolist() == [True, False]
    assert torch.isnan(gradient[0]).all()
    assert losses.total_loss(got) == formats.POISON


def test_a_sure_token_costs_nothing() -> None:
    logits = torch.full((1, 5), -3e38)
    logits[0, 1] = 3e38
    got, gradient = losses.cross_entropy(logits, torch.tensor([1]))
    assert got.item() == 0
    assert not gradient.any()
