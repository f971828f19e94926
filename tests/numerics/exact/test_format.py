from __future__ import annotations

import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.numerics.exact import reference_product as reference

from fallow.numerics.exact import format as formats
from fallow.numerics.exact import kernels
from fallow.numerics.exact.format import GRADIENT_LIMIT, MAX_ENTRIES, MAX_SEQUENCES, POISON, TOP

ANY_BITS = st.integers(0, 2**32 - 1)
NEAR_THE_TOP = st.builds(
    lambda exponent, offset: struct.unpack("<I", struct.pack("<f", 8127 * 2.0**exponent))[0] + offset,
    st.integers(-125, 114), st.integers(-2, 2),
)  # fmt: skip
VECTORS = st.lists(st.one_of(ANY_BITS, NEAR_THE_TOP, st.just(0), st.just(1 << 31)), min_size=1, max_size=40)


def of_bits(bits: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.array(bits, dtype=np.uint32).view(np.float32).copy())


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return torch.equal(left.nan_to_num(-7.0), right.nan_to_num(-7.0))


@given(bits=VECTORS)
def test_grids_are_the_reference_s(bits: list[int]) -> None:
    x = of_bits(bits)
    q, step = reference.grid(x.tolist())
    grid = formats.quantise(x[None])
    assert grid.q[0].tolist() == q
    assert reference.to_bits(grid.step.item()) == reference.to_bits(step)


@given(bits=VECTORS, data=st.data())
def test_folding_is_a_binary32_product_first(bits: list[int], data: st.DataObject) -> None:
    fold = [2.0 ** data.draw(st.integers(-112, 116)) for _ in bits]
    x = of_bits(bits)
    q, step = reference.grid(x.tolist(), fold)
    grid = formats.quantise(x[None], torch.tensor(fold))
    assert grid.q[0].tolist() == q
    assert reference.to_bits(grid.step.item()) == reference.to_bits(step)


@given(bits=VECTORS)
def test_the_error_is_half_a_step_and_nothing_clips(bits: list[int]) -> None:
    x = of_bits(bits)
    grid = formats.quantise(x[None])
    if torch.isfinite(x).all():
        assert grid.q.abs().max() <= TOP
        error = (grid.values()[0].double() - x.double()).abs().max()
        assert error <= grid.step.double() / 2
        assert error <= max(x.double().abs().max() / TOP, 2.0**-113)
    else:
        assert torch.isnan(grid.step).all() and (grid.q == 0).all() and torch.isnan(grid.values()).all()


@given(bits=VECTORS, shift=st.lists(st.integers(-20, 20), min_size=1, max_size=8))
def test_two_grids_keep_twice_the_bits_whatever_is_folded_in(bits: list[int], shift: list[int]) -> None:
    x = of_bits([word & 0xBFFFFFFF for word in bits])[None]  # below 2, so that no fold overflows
    fold = torch.exp2(torch.tensor([shift[i % len(shift)] for i in range(x.shape[-1])]).float())
    first, rest = formats.quantise_twice(x, fold)
    folded = x * fold
    error = (first.values().double() + rest.values().double() - folded.double()).abs()
    assert (error <= folded.abs().max().double() * 2.0**-25 + 2.0**-113).all()
    assert torch.equal(formats.quantise(first.values()).values(), first.values())


def test_columns_are_rows_of_the_transpose() -> None:
    x, fold = torch.randn(3, 5, 7), torch.exp2(torch.randint(-9, 9, (3, 5)).float())
    columns = formats.quantise_columns(x, fold)
    rows = formats.quantise(x.mT.contiguous(), fold)
    assert columns.q.shape == (3, 7, 5)
    assert torch.equal(columns.q, rows.q) and torch.equal(columns.step, rows.step)


def test_views_and_empty_vectors() -> None:
    x = torch.randn(6, 10)
    assert torch.equal(formats.quantise(x[:, ::2]).q, formats.quantise(x[:, ::2].contiguous()).q)
    empty = formats.quantise(torch.zeros(3, 0))
    assert empty.q.shape == (3, 0) and empty.step.tolist() == [0, 0, 0]
    assert formats.quantise(torch.zeros(0, 4)).q.shape == (0, 4)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError):
        formats.quantise(torch.zeros(2, 2, dtype=torch.float64))
    with pytest.raises(TypeError):
        formats.quantise(torch.zeros(2, 2), torch.ones(2, dtype=torch.float64))


def test_the_gradient_grid_clamps_and_poisons() -> None:
    g = torch.tensor([0.0, 2.0**-40, 1.5 * 2.0**-40, 2.5 * 2.0**-40, 1e9, -math.inf, math.nan], dtype=torch.float64)
    limit = int(GRADIENT_LIMIT) << 40
    assert formats.onto_gradient_grid(g).tolist() == [0, 1, 2, 2, limit, -limit, POISON]


def test_a_full_batch_cannot_reach_poison_by_adding() -> None:
    limit = int(GRADIENT_LIMIT) << 40
    assert MAX_ENTRIES * limit < 2**63 <= (MAX_ENTRIES + 1) * limit
    assert 3 * MAX_SEQUENCES <= MAX_ENTRIES


@given(order=st.permutations(range(6)))
def test_totals_do_not_depend_on_order_and_poison_stays(order: list[int]) -> None:
    limit = int(GRADIENT_LIMIT) << 40
    entries = torch.tensor(
        [[5, limit, 1], [7, limit, 2], [-3, -limit, POISON], [1, limit, POISON], [0, 4, 5], [9, 9, 9]]
    )
    total = torch.zeros(3, dtype=torch.int64)
    for index in order:
        formats.accumulate(total, entries[index])
    assert total.tolist() == [19, 2 * limit + 13, POISON]
    mean = formats.gradient_mean(total, 3)
    assert mean[0].item() == np.float32(19 * 2.0**-40 / 3) and math.isnan(mean[2].item())


@pytest.mark.parametrize("shape", [(0,), (3,), (64, 300)])
@pytest.mark.parametrize("tokens", [1, 3, 1016])
def test_a_mean_in_c_has_the_bits_of_torchs_operations(shape: tuple[int, ...], tokens: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    total = torch.randint(-(2**63), 2**63 - 1, shape, generator=generator)
    total = total >> torch.randint(0, 62, shape, generator=generator)
    total.flatten()[::5] = POISON
    fast = formats.gradient_mean(total.mT if total.dim() > 1 else total, tokens)
    with kernels.paused():
        slow = formats.gradient_mean(total.mT if total.dim() > 1 else total, tokens)
    assert torch.equal(fast.contiguous().view(torch.int32), slow.contiguous().view(torch.int32))
