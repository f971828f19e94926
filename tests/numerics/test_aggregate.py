from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fallow.numerics import aggregate
from fallow.numerics.aggregate import MeanUpdate, SharedState
from fallow.numerics.compress import Packed, pack, products, unpack
from fallow.numerics.fingerprint import state_hash

SHAPES = {"w": (70, 70), "b": (5,)}


def updates(count: int, scale: float = 1e-3) -> list[dict[str, Packed]]:
    draw = np.random.default_rng(3)
    return [
        {name: pack((draw.standard_normal(shape) * scale).astype(np.float32)) for name, shape in SHAPES.items()}
        for _ in range(count)
    ]


def mean_of(some: list[dict[str, Packed]]) -> dict[str, np.ndarray]:
    mean = MeanUpdate(SHAPES)
    for update in some:
        mean.add(update)
    return dict(mean.mean())


@given(st.permutations(range(7)))
def test_the_order_of_updates_changes_no_bit(order: list[int]) -> None:
    some = updates(7)
    straight, turned = mean_of(some), mean_of([some[i] for i in order])
    assert all(straight[name].tobytes() == turned[name].tobytes() for name in SHAPES)


def test_a_floating_sum_would_depend_on_the_order() -> None:
    """What the integers are for: the same check fails for fp32 sums."""
    values = [unpack(update["w"]) for update in updates(7)]
    assert sum(values, np.float32(0)).tobytes() != sum(reversed(values), np.float32(0)).tobytes()  # type: ignore[attr-defined]


@pytest.mark.parametrize("scale", [1e-5, 1e-3, 200.0])
def test_the_mean_is_that_of_float64(scale: float) -> None:
    some = updates(5, scale)
    found = mean_of(some)
    for name in SHAPES:
        exact = np.mean([products(update[name]).reshape(SHAPES[name]) for update in some], axis=0)
        assert np.allclose(found[name], exact, rtol=1e-7, atol=1e-12)


def test_the_bounds_of_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no updates"):
        MeanUpdate(SHAPES).mean()
    monkeypatch.setattr(aggregate, "MAX_UPDATES", 2)
    with pytest.raises(ValueError, match="more than 2"):
        mean_of(updates(3))


def test_the_largest_sum_does_not_overflow() -> None:
    top = {"w": pack(np.full((2, 2), 1024.0, dtype=np.float32))}
    mean = MeanUpdate({"w": (2, 2)})
    mean.add(top)
    for sums in mean._sums.values():
        sums *= aggregate.MAX_UPDATES  # as if that many had been added
    mean.count = aggregate.MAX_UPDATES
    assert np.allclose(mean.mean()["w"], 1024.0, rtol=1e-6)


def test_the_outer_step_is_torchs_nesterov() -> None:
    draw = np.random.default_rng(5)
    start = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    state = SharedState.start(start)
    parameters = {name: torch.tensor(value) for name, value in start.items()}
    optimiser = torch.optim.SGD(parameters.values(), lr=0.7, momentum=0.5, nesterov=True)
    for update in updates(3, 0.1):
        gradient = mean_of([update])
        state.outer_step(gradient, 0.7, 0.5)
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(gradient[name])
        optimiser.step()
    for name, parameter in parameters.items():
        assert np.allclose(state.theta[name], parameter.numpy(), atol=1e-6)
        assert not np.array_equal(state.theta[name], start[name])


def test_a_state_is_its_own_copy() -> None:
    start = {"b": np.ones(5, dtype=np.float32)}
    state = SharedState.start(start)
    before = state_hash(state)
    start["b"][0] = 9
    assert state_hash(state) == before
