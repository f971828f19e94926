"""The elementary functions against mpmath, at hard points, and at the edges of binary32."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.numerics.exact.precision import ANY_BITS, Real, bits, even, of_bits, spread, worst
from torch import Tensor

from fallow.numerics.exact import functions as f

INF, NAN = float("inf"), float("nan")
BOUND = 0.50001
"""ulps of binary32; the specification promises it of every function here."""
RIGHT_ANGLES = torch.cat(
    [(torch.arange(1, 1500) * torch.pi / 2).float(), torch.tensor([4194303.75, 3141592.75, 646567.5])]
)

CASES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Real], Real], Tensor]] = {
    "exp": (f.exp64, mpmath.exp, torch.cat([even(-104, 88.73, 2500, 1), spread(-12, 1.9, 500, 2)])),
    "log": (f.log64, mpmath.log, torch.cat([spread(-45, 38.5, 1500, 3).abs(), even(0.9, 1.1, 1500, 4)])),
    "sin": (lambda x: f.sincos64(x)[0], mpmath.sin, torch.cat([spread(-44, 6.6, 1500, 12), RIGHT_ANGLES])),
    "cos": (lambda x: f.sincos64(x)[1], mpmath.cos, torch.cat([spread(-44, 6.6, 1500, 13), RIGHT_ANGLES])),
}


def rounded(name: str, x: Tensor) -> Tensor:
    """What an operator makes of a function of binary32 numbers: one rounding to binary32."""
    return CASES[name][0](x.double()).float()


@pytest.mark.parametrize("name", CASES)
def test_within_the_bound(name: str) -> None:
    _, truth, inputs = CASES[name]
    assert worst(rounded(name, inputs), truth, inputs) <= BOUND


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("exp", [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (1e38, INF), (-1e38, 0.0), (NAN, NAN)]),
        ("log", [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-1.0, NAN), (-INF, NAN), (NAN, NAN)]),
        ("sin", [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (4194305.0, NAN), (NAN, NAN)]),
        ("cos", [(0.0, 1.0), (-0.0, 1.0), (-INF, NAN), (-4194305.0, NAN), (NAN, NAN)]),
    ],
)
def test_edges(name: str, pairs: list[tuple[float, float]]) -> None:
    inputs, wanted = torch.tensor(pairs).T
    assert torch.equal(bits(rounded(name, inputs)), bits(wanted))


DOMAIN: dict[str, tuple[float, float]] = {"log": (1e-45, INF), "sin": (-(2.0**22), 2.0**22)}
DOMAIN["cos"] = DOMAIN["sin"]


@given(name=st.sampled_from(sorted(CASES)), words=ANY_BITS)
def test_any_bits(name: str, words: list[int]) -> None:
    _, truth, _ = CASES[name]
    x, (low, high) = of_bits(words), DOMAIN.get(name, (-INF, INF))
    y = rounded(name, x)
    inside = torch.isfinite(x) & (x >= low) & (x <= high)
    assert worst(y[inside], truth, x[inside]) <= BOUND
    assert torch.isnan(y[torch.isnan(x)]).all()


def test_the_sine_is_odd_to_the_bit() -> None:
    inputs = CASES["sin"][2]
    assert torch.equal(bits(rounded("sin", -inputs)), bits(-rounded("sin", inputs)))


@pytest.mark.parametrize("name", CASES)
def test_an_element_does_not_depend_on_its_neighbours(name: str) -> None:
    inputs = CASES[name][2][:37]
    alone = torch.cat([rounded(name, inputs[i : i + 1]) for i in range(len(inputs))])
    assert torch.equal(bits(rounded(name, inputs)), bits(alone))


def test_a_quotient_is_rounded_once() -> None:
    x = even(-5, 5, 1000, 23)
    assert torch.equal(f.divide(x, 3.0), torch.tensor([value / 3.0 for value in x.double().tolist()]).float())


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_square_roots_are_correctly_rounded(kind: torch.dtype) -> None:
    x = torch.cat([spread(-44, 38, 5000, 24).abs(), torch.tensor([0.0, 4.0, INF])]).to(kind)
    # a binary32's root, rounded to binary64 and then to binary32, is correctly rounded: 53 >= 2 * 24 + 2
    wanted = torch.tensor([math.sqrt(value) for value in x.tolist()], dtype=torch.float64).to(kind)
    assert torch.equal(bits(f.sqrt(x)), bits(wanted))
    assert f.sqrt(torch.tensor(4.0, dtype=kind)).shape == ()
    assert torch.isnan(f.sqrt(torch.tensor([-1.0, NAN], dtype=kind))).all()


# Fused, from a vector library, or with an order of their own: not the same on two machines.
NAMES = "sqrt rsqrt exp expm1 log log1p log2 pow sin cos tanh sigmoid erf softmax logsumexp addcmul addcdiv lerp"
INEXACT = re.compile(rf"(?:torch|functional)\.(?:{NAMES.replace(' ', '|')})_?\(|\.(?:{NAMES.replace(' ', '|')})_?\(\)")
ALLOWED = {"functions.py": ["torch.sqrt("]}


def test_nothing_here_calls_a_function_that_differs_between_machines() -> None:
    folder = Path(f.__file__).parent
    found = [
        f"{path.name}:{number}: {call}"
        for path in sorted(folder.glob("*.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for call in INEXACT.findall(line)
        if call not in ALLOWED.get(path.name, [])
    ]
    assert not found, "use exact.functions: " + "; ".join(found)
