from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.numerics.exact import reference_product as reference

from fallow.numerics.exact import format as formats
from fallow.numerics.exact import product, routes
from fallow.numerics.exact.format import Grid
from fallow.numerics.exact.routes import Route

ROUTES = list(Route)
SIZES = st.integers(1, 40)


def some(*shape: int, seed: int, wild: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    if wild:  # magnitudes all over, zeros, subnormals
        x = x * torch.exp2(torch.randint(-140, 60, shape, generator=generator).float())
        x[torch.rand(shape, generator=generator) < 0.2] = 0.0
    return x


def bits(x: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.isnan(x), torch.nan, x).view(torch.int32)


def exact_product(a: Grid, b: Grid) -> list[list[float]]:
    return [
        [reference.entry(left, right, up, down) for right, down in zip(b.q.tolist(), b.step.tolist(), strict=True)]
        for left, up in zip(a.q.tolist(), a.step.tolist(), strict=True)
    ]


@pytest.mark.parametrize("route", ROUTES)
@given(m=SIZES, k=st.integers(0, 70), n=SIZES, seed=st.integers(0, 2**32), wild=st.booleans())
def test_products_are_the_reference_s(route: Route, m: int, k: int, n: int, seed: int, wild: bool) -> None:
    a, b = formats.quantise(some(m, k, seed=seed, wild=wild)), formats.quantise(some(n, k, seed=seed + 1, wild=wild))
    with routes.use(route):
        c = product.product(a, b)
        folded = product.product_folded(a, Grid(b.q.mT.contiguous(), torch.ones(k)))
    assert torch.equal(bits(c), bits(torch.tensor(exact_product(a, b))))
    ones = Grid(b.q, torch.ones(n))
    assert torch.equal(bits(folded), bits(torch.tensor(exact_product(a, ones))))


@given(m=st.integers(1, 5), k=st.integers(1, 60), n=st.integers(1, 5), seed=st.integers(0, 2**32), wild=st.booleans())
def test_products_are_within_their_bound_of_the_truth(m: int, k: int, n: int, seed: int, wild: bool) -> None:
    x, y = some(m, k, seed=seed, wild=wild), some(n, k, seed=seed + 1, wild=wild)
    a, b = formats.quantise(x), formats.quantise(y)
    for row, up, found in zip(x.tolist(), a.step.tolist(), product.product(a, b).tolist(), strict=True):
        for column, down, c in zip(y.tolist(), b.step.tolist(), found, strict=True):
            left, right = [Fraction(v) for v in row], [Fraction(v) for v in column]
            exact = sum(p * q for p, q in zip(left, right, strict=True))
            u, v = Fraction(up) / 2, Fraction(down) / 2
            bound = u * sum(map(abs, right)) + v * sum(map(abs, left)) + k * u * v
            assert abs(Fraction(c) - exact) <= bound + abs(Fraction(c)) / 2**24 + Fraction(2) ** -150


@pytest.mark.parametrize("route", ROUTES)
def test_the_largest_sums_are_exact(route: Route) -> None:
    for k in (1, 31, 32, 33, 64, 1000, 4097):
        q = torch.full((3, k), formats.TOP, dtype=torch.int16)
        a, b = Grid(q, torch.ones(3)), Grid(torch.cat([q, -q]), torch.ones(6))
        with routes.use(route):
            c = product.product(a, b)
        expected = torch.tensor(float(k * formats.TOP**2), dtype=torch.float64).float()
        assert (c[:, :3] == expected).all() and (c[:, 3:] == -expected).all()


@pytest.mark.parametrize("route", ROUTES)
def test_zero_is_plus_zero_and_nan_spreads_along_its_row_only(route: Route) -> None:
    a = formats.quantise(torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, -0.0], [float("inf"), 1.0, 0.0]]))
    b = formats.quantise(torch.tensor([[-1.0, -1.0, 5.0], [0.0, 0.0, 0.0]]))
    with routes.use(route):
        c = product.product(a, b)
    assert bits(c[:2]).tolist() == [[0, 0], [0, 0]]
    assert torch.isnan(c[2]).all()


@pytest.mark.parametrize("route", ROUTES)
def test_a_row_s_bits_are_its_own(route: Route) -> None:
    """Not the batch, nor its order, nor the order of the terms, nor what else is in it."""
    a, b = formats.quantise(some(9, 50, seed=1)), formats.quantise(some(11, 50, seed=2))
    with routes.use(route):
        c = product.product(a, b)
        order = torch.randperm(50)
        assert torch.equal(product.product(Grid(a.q[:, order], a.step), Grid(b.q[:, order], b.step)), c)
        for row in range(9):
            assert torch.equal(product.product(Grid(a.q[row : row + 1], a.step[row : row + 1]), b), c[row : row + 1])


@pytest.mark.parametrize("route", ROUTES)
def test_batches_are_their_parts(route: Route) -> None:
    a, b = formats.quantise(some(2, 3, 5, 8, seed=1)), formats.quantise(some(2, 3, 7, 8, seed=2))
    v = formats.quantise(some(2, 3, 8, 6, seed=3))
    with routes.use(route):
        c, f = product.product(a, b), product.product_folded(a, v)
        assert c.shape == (2, 3, 5, 7) and f.shape == (2, 3, 5, 6)
        for i in range(2):
            for j in range(3):
                one = Grid(a.q[i, j], a.step[i, j])
                assert torch.equal(c[i, j], product.product(one, Grid(b.q[i, j], b.step[i, j])))
                assert torch.equal(f[i, j], product.product_folded(one, Grid(v.q[i, j], v.step[i, j])))


@pytest.mark.parametrize("route", ROUTES)
def test_weights_serve_both_directions(route: Route) -> None:
    w, x, dy = some(12, 20, seed=1), some(5, 20, seed=2), some(5, 12, seed=3)
    with routes.use(route):
        weights, grid = product.Weights(w), formats.quantise(w)
        a, back = formats.quantise(x), formats.quantise(dy, weights.step)
        assert torch.equal(product.product(a, weights), product.product(a, grid))
        assert torch.equal(product.product_folded(back, weights), product.product_folded(back, grid))
        assert torch.allclose(product.product(a, weights), x @ w.T, atol=5e-3)
        assert torch.allclose(product.product_folded(back, weights), dy @ w, atol=5e-3)


@pytest.mark.parametrize("route", ROUTES)
@given(m=st.integers(0, 9), n=st.integers(1, 70), k=st.integers(1, 70))
def test_weights_are_their_grid_whatever_they_held_before(route: Route, m: int, n: int, k: int) -> None:
    w, x, dy = some(n, k, seed=n), some(m, k, seed=m), some(m, n, seed=k)
    with routes.use(route):
        weights = product.Weights(some(n, k, seed=k))
        product.product_folded(formats.quantise(dy, weights.step), weights)  # both ways are packed, then written over
        weights.update(w)
        grid, a, back = formats.quantise(w), formats.quantise(x), formats.quantise(dy, weights.step)
        assert torch.equal(weights.grid.q, grid.q) and torch.equal(weights.step, grid.step)
        assert torch.equal(product.product(a, weights), product.product(a, grid))
        assert torch.equal(product.linear(x, weights), product.product(a, grid))
        assert torch.equal(product.product_folded(back, weights), product.product_folded(back, grid))
        with pytest.raises(ValueError, match="not a matrix"):
            weights.update(some(n + 1, k, seed=1))


def test_weights_move_between_routes() -> None:
    w, x = some(40, 33, seed=1), some(3, 33, seed=2)
    results: list[torch.Tensor] = []
    for made in ROUTES:
        with routes.use(made):
            weights = product.Weights(w)
        for used in ROUTES:
            with routes.use(used):
                results.append(product.linear(x, weights))
    assert all(torch.equal(one, results[0]) for one in results)


@pytest.mark.parametrize("route", ROUTES)
@given(split=st.permutations(range(4)), cut=st.integers(0, 4))
def test_gradients_do_not_depend_on_micro_batches_or_order(route: Route, split: list[int], cut: int) -> None:
    dy, x = some(4, 6, 5, seed=1), formats.quantise(some(4, 6, 3, seed=2))
    whole, parts = torch.zeros(5, 3, dtype=torch.int64), torch.zeros(5, 3, dtype=torch.int64)
    product.add_gradient(whole, dy, x)
    with routes.use(route):
        for part in (split[:cut], split[cut:]):
            product.add_gradient(parts, dy[part], Grid(x.q[part], x.step[part]))
    assert torch.equal(whole, parts)
    plain = torch.einsum("stn,stk->nk", dy, x.values())
    assert torch.allclose(whole.double() * 2.0**-40, plain.double(), atol=1e-2)


@pytest.mark.parametrize("route", ROUTES)
def test_gradients_are_poisoned_where_they_are_not_numbers(route: Route) -> None:
    dy, x = some(2, 6, 5, seed=1), some(2, 6, 3, seed=2)
    dy[1, 2, 4] = float("nan")
    total = torch.zeros(5, 3, dtype=torch.int64)
    with routes.use(route):
        product.add_gradient(total, dy, formats.quantise(x))
        product.add_gradient(total, dy[:1], formats.quantise(x[:1]))
    assert (total[4] == formats.POISON).all() and (total[:4] != formats.POISON).all()


def test_what_does_not_fit_is_refused() -> None:
    a, b = formats.quantise(some(2, 5, seed=1)), formats.quantise(some(2, 6, seed=1))
    with pytest.raises(ValueError, match="no product"):
        product.product(a, b)
    with pytest.raises(ValueError, match="no product"):
        product.product(Grid(a.q.int(), a.step), a)


def test_a_vector_of_zeros_takes_no_range_where_it_is_folded() -> None:
    b = formats.quantise(torch.tensor([[0.0, 0.0], [2.0**-20, 2.0**-21]]))
    a = torch.tensor([[1.0, 0.75]])
    assert product.product_folded(formats.quantise(a, b.step), b).tolist() == [[0.75 * 2.0**-20, 0.75 * 2.0**-21]]
