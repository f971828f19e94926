"""The compiled kernels, instruction set by instruction set, against torch's integers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fallow.numerics.exact import format as formats
from fallow.numerics.exact import native
from fallow.numerics.exact.bindings import Kernels

CAPS = range(len(native.ISAS))
TOP = formats.TOP


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    """Every machine that runs the tests has a C compiler; without one, this is where it is said."""
    found = native.kernels()
    assert found is not None, native.reason()
    return found


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def integers(*shape: int, seed: int) -> torch.Tensor:
    return torch.randint(-TOP, TOP + 1, shape, dtype=torch.int16, generator=torch.Generator().manual_seed(seed))


def exact(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.long() @ b.long().mT).float()


def multiplied(kernels: Kernels, a: torch.Tensor, b: torch.Tensor, cap: int) -> torch.Tensor:
    return kernels.product(a, torch.ones(a.shape[:-1]), b, None, cap=cap)


@pytest.mark.parametrize("cap", CAPS)
@given(m=st.integers(1, 30), n=st.integers(1, 70), k=st.integers(1, 150), layout=st.integers(0, 3))
def test_products_of_all_shapes_and_layouts(kernels: Kernels, cap: int, m: int, n: int, k: int, layout: int) -> None:
    a, b = integers(m, k, seed=m), integers(n, k, seed=n)
    a[::3], b[::3] = TOP, -TOP
    left = a.mT.contiguous().mT if layout & 1 else a
    right = b.mT.contiguous().mT if layout & 2 else b
    assert torch.equal(multiplied(kernels, left, right, cap), exact(a, b))
    packed = kernels.pack(right, cap), n
    assert torch.equal(kernels.product(left, torch.ones(m), None, None, packed, cap=cap), exact(a, b))


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize(("m", "n", "k"), [(7, 33, 2049), (500, 3, 4100), (13, 40, 9000), (1, 1, 1 << 18)])
def test_products_longer_than_the_caches_parts(kernels: Kernels, cap: int, m: int, n: int, k: int) -> None:
    a, b = integers(m, k, seed=1), integers(n, k, seed=2)
    a[0], b[0] = TOP, -TOP
    assert torch.equal(multiplied(kernels, a, b, cap), exact(a, b))


@pytest.mark.parametrize("cap", CAPS)
@given(seed=st.integers(0, 999), layout=st.booleans())
def test_stretches_of_zeros_add_nothing(kernels: Kernels, cap: int, seed: int, layout: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = integers(20, 330, seed=seed), integers(40, 330, seed=seed + 1)
    for start in range(0, 330, 32):
        a[:, start : start + 32] *= (torch.rand(20, 1, generator=generator) < 0.2).short()
    left = a.mT.contiguous().mT if layout else a
    assert torch.equal(multiplied(kernels, left, b, cap), exact(a, b))


@pytest.mark.parametrize("cap", CAPS)
@given(seed=st.integers(0, 999), n=st.integers(1, 100))
def test_what_is_not_visible_is_zero(kernels: Kernels, cap: int, seed: int, n: int) -> None:
    a, b = integers(20, 64, seed=seed), integers(n, 64, seed=seed + 1)
    visible = torch.randint(0, n + 3, (20,), generator=torch.Generator().manual_seed(seed)).int()
    out = kernels.product(a, torch.ones(20), b, torch.ones(n), visible=visible, cap=cap)
    assert torch.equal(out, exact(a, b) * (torch.arange(n) < visible[:, None]))
    assert not torch.signbit(out[out == 0]).any()


@pytest.mark.parametrize("cap", CAPS)
def test_batches_with_any_strides(kernels: Kernels, cap: int) -> None:
    keys = integers(2, 90, 3, 64, seed=1).transpose(1, 2)[:, :, :77]  # a cache's tokens, heads inside
    queries = integers(2, 3, 5, 64, seed=2)
    assert torch.equal(multiplied(kernels, queries, keys, cap), exact(queries, keys))
    one = integers(9, 64, seed=3)
    assert torch.equal(multiplied(kernels, queries, one, cap), exact(queries, one))
    assert torch.equal(multiplied(kernels, one.expand(2, 3, 9, 64), keys, cap), exact(one, keys))
    apart = integers(2, 3, 10, 128, seed=4)[:, :, ::2, ::2]
    assert torch.equal(multiplied(kernels, apart, keys, cap), exact(apart, keys))


@pytest.mark.parametrize("cap", CAPS)
def test_threads_do_not_matter(kernels: Kernels, cap: int, one_thread: None) -> None:
    a, b = integers(130, 600, seed=1), integers(200, 600, seed=2)
    dy, x = torch.randn(3, 64, 130), integers(3, 64, 70, seed=3)
    step = torch.exp2(torch.randint(-5, 5, (3, 64)).float() - 20)
    results: list[list[torch.Tensor]] = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        total = torch.zeros(130, 70, dtype=torch.int64)
        kernels.add_gradient(total, dy, x, step, cap)
        results.append([multiplied(kernels, a, b, cap), total, *kernels.quantise_columns(dy, step, cap)])
    for other in results[1:]:
        assert all(torch.equal(left, right) for left, right in zip(results[0], other, strict=True))


@pytest.mark.parametrize("cap", CAPS)
@given(sequences=st.integers(1, 3), tokens=st.integers(1, 40), n=st.integers(1, 200), k=st.integers(1, 40))
def test_gradients_of_all_shapes(kernels: Kernels, cap: int, sequences: int, tokens: int, n: int, k: int) -> None:
    generator = torch.Generator().manual_seed(n)
    dy = torch.randn(sequences, tokens, n, generator=generator) * 2.0 ** (n % 50 - 20)
    dy[:, :, 0] = 0.0
    if n % 7 == 0:
        dy[0, 0, n // 2] = float("inf")
    x = integers(sequences, tokens, k, seed=k)
    step = torch.exp2(torch.arange(float(tokens)) - 30).expand(sequences, tokens)
    total = torch.arange(n * k).view(n, k) << 40
    expected = total.clone()
    kernels.add_gradient(total, dy, x, step, cap)
    for one in range(sequences):
        a = formats._onto_grids((dy[one] * step[one][:, None]).mT.contiguous())
        g = (a.q.long() @ x[one].long()).double() * a.step.double()[:, None]
        formats.accumulate(expected, formats.onto_gradient_grid(g))
    assert torch.equal(total, expected)


@pytest.mark.parametrize("cap", CAPS)
@given(
    rows=st.integers(1, 5), k=st.integers(1, 70), n=st.integers(1, 70), folded=st.booleans(), seed=st.integers(0, 10**6)
)
def test_grids_of_any_bits(kernels: Kernels, cap: int, rows: int, k: int, n: int, folded: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-(2**31), 2**31, (rows, k, n), generator=generator).int().view(torch.float32)
    x[0] = torch.randn(k, n, generator=generator)
    fold = torch.exp2(torch.randint(-112, 117, (rows, k), generator=generator).float()) if folded else None
    q, step = kernels.quantise_columns(x, fold, cap)
    there = formats._onto_grids(formats._times(x, fold if fold is None else fold[..., None]).mT.contiguous())
    assert torch.equal(q, there.q) and torch.equal(step.nan_to_num(-1.0), there.step.nan_to_num(-1.0))
    turned = x.mT.contiguous()
    q, step = kernels.quantise(turned, fold, cap)
    assert torch.equal(q, there.q) and torch.equal(step.nan_to_num(-1.0), there.step.nan_to_num(-1.0))


def test_what_does_not_fit_is_refused(kernels: Kernels) -> None:
    a, b = integers(3, 8, seed=1), integers(4, 9, seed=2)
    with pytest.raises(ValueError, match="b does not fit"):
        multiplied(kernels, a, b, 3)
    with pytest.raises(ValueError, match="a does not fit"):
        multiplied(kernels, a.int(), a, 3)
    with pytest.raises(ValueError, match="packed does not fit"):
        kernels.product(a, torch.ones(3), None, None, (kernels.pack(b, 3), 99), cap=3)
    with pytest.raises(ValueError, match="visible does not fit"):
        kernels.product(a, torch.ones(3), a, None, visible=torch.ones(2).int(), cap=3)
    with pytest.raises(ValueError, match="total does not fit"):
        kernels.add_gradient(torch.zeros(2, 2), torch.zeros(1, 1, 2), integers(1, 1, 2, seed=1), torch.ones(1, 1), 3)


def test_every_instruction_set_has_its_name(kernels: Kernels) -> None:
    names = [kernels.isa(cap) for cap in CAPS]
    assert names[0] == "portable"
    assert all(native.ISAS.index(name) <= cap for cap, name in enumerate(names))
