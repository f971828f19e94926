from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.numerics.aggregate import MeanUpdate
from fallow.numerics.compress import BLOCK, MAX_MAGNITUDE, pack
from fallow.numerics.thin import NIBBLE_BLOCK, exact_products, pack_nibbles, pack_top, residual


def some_values(*shape: int, seed: int = 1, scale: float = 1e-3) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


@given(count=st.integers(0, 600), seed=st.integers(0, 99), scale=st.sampled_from([1e-40, 1e-6, 1.0, 200.0]))
def test_four_bits_err_by_half_a_step_at_most(count: int, seed: int, scale: float) -> None:
    values = some_values(count, seed=seed, scale=scale)
    packed = pack_nibbles(values)
    allowed = np.repeat(packed.scales, NIBBLE_BLOCK)[:count] * 0.5001 + 1e-38
    assert (np.abs(residual(values, packed)) <= allowed).all()
    assert packed.codes.size == -(-count // 2)


def test_the_largest_are_kept_and_of_equal_ones_the_first() -> None:
    values = np.zeros(BLOCK + 5, dtype=np.float32)
    values[[3, 9, 100, 4000]] = [-2.0, 1.0, -1.0, 1.0]
    values[BLOCK:] = [5, 4, -3, 2, 1]
    packed = pack_top(values, 3)
    assert packed.places.tolist() == [[3, 9, 100], [0, 1, 2]]
    assert packed.codes.tolist()[1] == [127, 102, -76]
    left = residual(values, packed)
    assert left[4000] == 1.0
    assert abs(left[3]) < 1e-8


@given(seed=st.integers(0, 99), kept=st.integers(1, 64))
def test_the_choice_is_that_of_a_stable_sort(seed: int, kept: int) -> None:
    values = np.round(some_values(BLOCK, seed=seed, scale=8.0)).astype(np.float32)  # many ties
    order = sorted(range(BLOCK), key=lambda i: (-abs(float(values[i])), i))[:kept]
    assert pack_top(values, kept).places[0].tolist() == sorted(order)


def test_keeping_all_is_int8() -> None:
    values = some_values(2, BLOCK)
    assert exact_products(pack_top(values, BLOCK)).tolist() == exact_products(pack(values)).tolist()


def test_all_kinds_add_up_to_the_same_mean_in_any_order() -> None:
    shape = (3, 1000)
    updates = [
        pack(some_values(*shape)),
        pack_nibbles(some_values(*shape, seed=2)),
        pack_top(some_values(*shape, seed=3), 9),
    ]
    found: list[np.ndarray] = []
    for order in itertools.permutations(updates):
        mean = MeanUpdate({"w": shape})
        for update in order:
            mean.add({"w": update})
        found.append(mean.mean()["w"])
    assert all((one == found[0]).all() for one in found)
    assert found[0].shape == shape


def test_error_feedback_loses_nothing_over_time() -> None:
    values, carried, sent = some_values(500), np.zeros(500, dtype=np.float32), np.zeros(500)
    for _ in range(200):
        packed = pack_top(values + carried, 20)
        carried = residual(values + carried, packed)
        sent += exact_products(packed)
    assert np.abs(sent / 200 - values).max() < 1.5e-4


@pytest.mark.parametrize("bad", [np.nan, np.inf, MAX_MAGNITUDE * 1.1])
def test_values_that_blew_up_are_refused(bad: float) -> None:
    values = some_values(10)
    values[3] = bad
    with pytest.raises(ValueError, match="not finite, or too large"):
        pack_nibbles(values)
    with pytest.raises(ValueError, match="not finite, or too large"):
        pack_top(values, 2)
    with pytest.raises(ValueError, match="cannot be kept"):
        pack_top(values, 0)
