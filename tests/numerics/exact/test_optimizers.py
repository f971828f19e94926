from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.numerics.exact.precision import rows
from torch import Tensor

from fallow.numerics.exact import kernels
from fallow.numerics.exact.optimizers import ExactAdamW, ExactSchedule, clip, gradient_norm, power


def some(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def test_adamw_is_torchs_to_rounding() -> None:
    ours, theirs = {"w": some(1, 7, 5)}, torch.nn.Parameter(some(1, 7, 5))
    mine = ExactAdamW(ours)
    peer = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for step in range(20):
        gradient = some(step, 7, 5, scale=10.0 ** (step % 5 - 2))
        mine.step({"w": gradient}, 0.01, 0.1)
        theirs.grad = gradient.clone()
        peer.step()
    assert torch.allclose(ours["w"], theirs.detach(), rtol=1e-5, atol=1e-6)


STEPS = st.lists(
    st.tuples(*(rows(2.0**k, 1).map(lambda row: row[0]) for k in (20, 50, 40)), st.floats(0.0, 2.0**80, width=32)),
    min_size=1, max_size=9,
)  # fmt: skip
"""Parameters, gradients, means and mean squares of any size, subnormals among them."""


@given(STEPS, st.integers(0, 10**6), st.sampled_from([0.0, 0.1]))
def test_a_step_of_adamw_is_within_its_bound(state: list[tuple[float, ...]], steps: int, decay: float) -> None:
    p, g, m, v = (torch.tensor(column) for column in zip(*state, strict=True))
    start, wide = p.double(), (g.double(), m.double(), v.double())
    optimizer = ExactAdamW({"w": p})
    optimizer.restore({"step": torch.tensor([steps]), "mean/w": m, "square/w": v})
    optimizer.step({"w": g}, 0.01, decay)
    mean = wide[1] * 0.9 + wide[0] * (1 - 0.9)
    below = (wide[2] * 0.95 + wide[0] ** 2 * (1 - 0.95)).sqrt() / math.sqrt(1 - 0.95 ** (steps + 1)) + 1e-8
    up = 0.01 / (1 - 0.9 ** (steps + 1))
    exact = start * (1 - 0.01 * decay) - up * mean / below
    reach = up * (wide[1].abs() * 0.9 + wide[0].abs() * (1 - 0.9)) / below
    assert ((p.double() - exact).abs() <= start.abs() * 2.0**-22 + reach * 2.0**-20 + 2.0**-120).all()


@given(st.lists(rows(2.0**100, 30), min_size=1, max_size=4))
def test_the_norm_is_within_its_bound(parts: list[list[float]]) -> None:
    tensors = {str(i): torch.tensor(part) for i, part in enumerate(parts)}
    numbers = [Fraction(value) for tensor in tensors.values() for value in tensor.tolist()]
    found, exact = Fraction(gradient_norm(tensors)) ** 2, sum(value**2 for value in numbers)
    assert abs(found - exact) <= exact * (len(numbers) * Fraction(2) ** -36 + Fraction(2) ** -49)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_in_c_gives_the_bits_of_torchs_operations(decay: float) -> None:
    def stepped() -> list[Tensor]:
        parameter = some(1, 3001)
        version = parameter._version
        optimizer = ExactAdamW({"w": parameter})
        for step in range(3):
            optimizer.step({"w": some(step, 3001)}, 0.01, decay)
        assert parameter._version > version
        return [parameter, *optimizer.state().values()]

    fast = stepped()
    with kernels.paused():
        assert all(torch.equal(one, other) for one, other in zip(stepped(), fast, strict=True))


@given(st.permutations(list(range(12))), st.integers(-60, 60))
def test_the_norm_depends_on_no_order(order: list[int], scale: int) -> None:
    rows = some(3, 12, 5) * torch.logspace(-6, 6, 12, base=2)[:, None] * 2.0**scale
    whole = gradient_norm({"a": rows})
    assert gradient_norm({str(i): rows[i] for i in order}) == whole
    assert whole == pytest.approx(float(rows.double().norm()), rel=1e-8)


def test_norms_of_nothing_and_of_what_is_not_finite() -> None:
    assert gradient_norm({}) == gradient_norm({"a": torch.zeros(3)}) == 0.0
    assert math.isnan(gradient_norm({"a": torch.tensor([1.0, math.nan]), "b": torch.ones(2)}))
    assert math.isnan(gradient_norm({"a": torch.tensor([math.inf])}))
    assert gradient_norm({"a": torch.full((4,), 2.0**127)}) == 2.0**128
    assert gradient_norm({"a": torch.full((4,), 2.0**-149)}) == 2.0**-148


@pytest.mark.parametrize("size", [1, 7, 8191, 40_000])
@pytest.mark.parametrize("scale", [1.0, 2.0**-140, 2.0**100])
def test_the_norm_in_c_is_that_of_torchs_operations(size: int, scale: float) -> None:
    gradients = {"a": some(size, size) * scale, "b": some(2, 3, size).mT * (scale * 0.01)}
    fast = gradient_norm(gradients)
    with kernels.paused():
        assert gradient_norm(gradients) == fast > 0


def test_clipping_brings_the_norm_to_its_limit_and_leaves_small_ones() -> None:
    gradients = {"a": some(1, 50), "b": some(2, 3)}
    before = {name: g.clone() for name, g in gradients.items()}
    assert clip(gradients, 1000.0) == clip(gradients, 0.0) == gradient_norm(before)
    assert all(torch.equal(gradients[n], before[n]) for n in before)
    clip(gradients, 0.5)
    assert gradient_norm(gradients) == pytest.approx(0.5, rel=1e-6)


@given(st.floats(0.0, 1.0), st.integers(0, 5000))
def test_powers(base: float, exponent: int) -> None:
    assert power(base, exponent) == pytest.approx(base**exponent, rel=1e-12, abs=1e-300)


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    schedule = ExactSchedule(0.5, 10, 110)
    assert [schedule.rate(step) for step in (0, 9)] == [0.05, 0.5]
    for step in range(10, 200):
        done = min(1.0, (step - 10) / 100)
        assert schedule.rate(step) == pytest.approx(0.5 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done))), rel=1e-12)
    assert ExactSchedule(1.0, 0, 0).rate(0) > 0


def test_a_state_of_other_parameters_is_refused() -> None:
    optimizer = ExactAdamW({"w": torch.zeros(3)})
    with pytest.raises(ValueError, match="other parameters"):
        optimizer.restore(ExactAdamW({"v": torch.zeros(3)}).state())
    with pytest.raises(ValueError, match="impossible"):
        optimizer.restore(optimizer.state() | {"step": torch.tensor([-1])})
