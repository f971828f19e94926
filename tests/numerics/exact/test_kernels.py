"""The compiled operators against torch's operations, bit for bit, under every instruction set and number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from tests.numerics.exact.precision import bits, even
from torch import Tensor

from fallow.numerics.exact import activations, draws, functions, kernels, losses, native, norms, rotary, softmax

Results = tuple[Tensor, ...]
INF, NAN = float("inf"), float("nan")


def anything(count: int, seed: int) -> Tensor:
    """Random bits: every kind of binary32, and the usual sizes."""
    generator = torch.Generator().manual_seed(seed)
    wild = torch.randint(-(2**31), 2**31, (count,), generator=generator).to(torch.int32).view(torch.float32)
    edges = torch.tensor([0.0, -0.0, INF, -INF, NAN, 1e-45, -1e-45, 88.8, -104.0, 3e38, -3e38, 700.0, -745.2])
    return torch.cat([wild, even(-20, 20, count, seed), edges])


def rows(n: int, seed: int) -> Tensor:
    """(4, 7, n), some rows extreme."""
    x = even(-8, 8, 28 * n, seed).view(4, 7, n)
    x[0, 0, 0], x[0, 1, -1], x[0, 2, 0], x[0, 3] = NAN, INF, -INF, 0.0
    x[1, 0], x[1, 1], x[1, 2], x[1, 3] = x[1, 0] * 1e30, x[1, 1] * 1e-30, -INF, x[1, 3] * 1e-38
    return x


def gated() -> Results:
    dy, x = anything(5000, 2), anything(5000, 3)
    return activations.silu_mul(dy, x), *activations.silu_mul_backward(x.flip(0), dy, x)


def attention() -> Results:
    found: list[Tensor] = []
    for n in (7, 8, 33, 600):
        x, dp = rows(n, n), rows(n, n + 1)
        for span in (None, softmax.causal(7, n - 7), softmax.causal(7, n - 7, window=5)):
            p = softmax.softmax(x, span, scale=0.3)
            back = softmax.softmax_backward(p, dp, span, scale=0.7)
            assert torch.equal(bits(back), bits(softmax.softmax_backward(p, dp, scale=0.7)))
            found += [p, back]
    each = softmax.Span(torch.zeros(4, 7, dtype=torch.int64), torch.arange(28).view(4, 7) - 2)
    odd = softmax.Span(torch.tensor(-3), torch.arange(4)[:, None])
    return (*found, softmax.softmax(rows(9, 5), each), softmax.softmax(rows(9, 5), odd))


def cross_entropy() -> Results:
    found: list[Tensor] = []
    for n in (1, 9, 1000):
        x, targets = rows(n, n), torch.randint(0, n, (4, 7), generator=torch.Generator().manual_seed(n))
        targets[3, 3] = targets[0, 0] = losses.IGNORED
        found += [*losses.cross_entropy(x, targets), losses.token_losses(x, targets)]
        found += losses.cross_entropy(x.clone(), targets, overwrite=True)
    return tuple(found)


def rms_norm() -> Results:
    found: list[Tensor] = []
    for n in (1, 5, 64, 577):
        x, dy, weight = rows(n, n), rows(n, n + 2), even(-2, 2, n, n)
        y, r = norms.rms_norm(x, weight, 1e-5)
        found += [y, r, norms.rms_norm_backward(dy, x, weight, r), norms.rms_norm_weight_gradient(dy, x, r)]
    return tuple(found)


def turns() -> Results:
    x = even(-3, 3, 2 * 5 * 3 * 16, 1).view(2, 5, 3, 16)
    cos, sin = rotary.tables(torch.arange(5), rotary.frequencies(16, 10000.0))
    return (
        rotary.rotate(x, cos, sin),
        rotary.rotate_back(x, cos, sin),
        rotary.rotate(x.transpose(0, 1)[:2], cos[:2], sin[:2]),
    )


def noise() -> Results:
    positions = torch.tensor([0, 3, 2**32 - 1])
    return tuple(draws.gumbel_rows64(2**63 + 5, 77, positions, count) for count in (1, 30, 20_001))


OPERATORS: list[Callable[[], Results]] = [gated, attention, cross_entropy, rms_norm, turns, noise]


@pytest.fixture(params=native.ISAS)
def capped(request: pytest.FixtureRequest) -> Iterator[None]:
    with native.isa(request.param):
        yield


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.usefixtures("capped")
def test_the_same_bits_as_torch(operator: Callable[[], Results]) -> None:
    assert kernels.serve() or not native.available()
    ours = operator()
    with kernels.paused():
        wanted = operator()
    for i, (one, other) in enumerate(zip(ours, wanted, strict=True)):
        assert one.shape == other.shape
        assert torch.equal(
            bits(one) if one.is_floating_point() else one, bits(other) if other.is_floating_point() else other
        ), i


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_same_bits_with_any_number_of_threads(operator: Callable[[], Results]) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = operator()
        torch.set_num_threads(3)
        for one, other in zip(alone, operator(), strict=True):
            assert torch.equal(
                bits(one) if one.is_floating_point() else one, bits(other) if other.is_floating_point() else other
            )
    finally:
        torch.set_num_threads(before)


def test_adamw_is_torch_s_sequence() -> None:
    p, m, g = (even(-1, 1, 10_001, seed) for seed in (1, 2, 3))
    v = even(0, 1, 10_001, 4)
    g[:3] = torch.tensor([NAN, INF, 1e-30])
    b1, c1, b2, c2, down, eps, up, keep = settings = (0.9, 0.1, 0.95, 0.05, 1.7, 1e-8, 0.003, 0.9997)
    mean, square = m * b1 + g * c1, v * b2 + (g * g) * c2
    wanted = p * keep - (mean * up) / (functions.sqrt(square) * down + eps)
    if kernels.serve(p):
        kernels.adamw(p, m, v, g, settings)
        for one, other in zip((p, m, v), (wanted, mean, square), strict=True):
            assert torch.equal(bits(one), bits(other))


def test_other_tensors_are_not_served() -> None:
    assert not kernels.serve(torch.zeros(2, dtype=torch.float64))
    with kernels.paused():
        assert not kernels.serve(torch.zeros(2))


def test_shapes_must_agree() -> None:
    if native.available():
        with pytest.raises(ValueError, match="shapes differ"):
            kernels.silu_mul(torch.zeros(3), torch.zeros(4))
        with pytest.raises(ValueError, match="contiguous"):
            kernels.adamw(torch.zeros(4), torch.zeros(4), torch.zeros(8)[::2], torch.zeros(4), [0.0] * 8)
