"""Rotary embeddings: transformers' frequencies and turns, exactly undone."""

from __future__ import annotations

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.numerics.exact.precision import bits, even, rows, worst
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from fallow.numerics.exact import rotary

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}


@pytest.mark.parametrize("base", [10000, 100000, 500000])
def test_frequencies_are_powers_of_the_base(base: int) -> None:
    index = torch.arange(32).float()
    assert worst(rotary.frequencies(64, base), lambda i: mpmath.mpf(base) ** (-2 * i / 64), index) <= 0.50001


@pytest.mark.parametrize("scaling", [LLAMA3, LINEAR])
def test_scaled_frequencies_are_those_of_transformers(scaling: dict[str, object]) -> None:
    base = float(str(scaling["rope_theta"]))
    config = LlamaConfig(
        hidden_size=2048, num_attention_heads=32, max_position_embeddings=131072, rope_parameters=dict(scaling)
    )
    wanted, factor = ROPE_INIT_FUNCTIONS[str(scaling["rope_type"])](config, torch.device("cpu"))
    got = rotary.frequencies(64, base, scaling)
    assert factor == 1.0
    assert (got.double() / wanted.double() - 1).abs().max() < 3e-7


def test_no_scaling_is_the_default_kind() -> None:
    assert torch.equal(rotary.frequencies(8, 10000.0), rotary.frequencies(8, 10000.0, {"rope_type": "default"}))


@pytest.mark.parametrize(
    "scaling", [{"rope_type": "yarn", "factor": 2.0}, {"rope_type": "linear"}, {"type": "dynamic"}]
)
def test_what_has_no_exact_form_is_refused(scaling: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="rotary scaling"):
        rotary.frequencies(8, 10000.0, scaling)


def test_tables_hold_cosines_and_sines_of_one_product() -> None:
    inverse = rotary.frequencies(16, 10000.0)
    positions = torch.tensor([0, 1, 2, 1000, 8191, 131071])
    cos, sin = rotary.tables(positions, inverse)
    angles = (positions.float()[:, None] * inverse).flatten()
    assert worst(cos.flatten(), mpmath.cos, angles) <= 0.50001
    assert worst(sin.flatten(), mpmath.sin, angles) <= 0.50001
    assert cos[0].tolist() == [1.0] * 8


def test_a_turn_is_that_of_transformers_to_the_bit() -> None:
    q, k = even(-2, 2, 2 * 5 * 3 * 16, 1).view(2, 5, 3, 16), even(-2, 2, 2 * 5 * 16, 2).view(2, 5, 1, 16)
    cos, sin = rotary.tables(torch.arange(5), rotary.frequencies(16, 10000.0))
    twice_cos, twice_sin = (torch.cat((table, table), -1)[None] for table in (cos, sin))
    wanted = apply_rotary_pos_emb(q.transpose(1, 2), k.transpose(1, 2), twice_cos, twice_sin)
    for x, y in zip((q, k), wanted, strict=True):
        assert torch.equal(bits(rotary.rotate(x, cos, sin)), bits(y.transpose(1, 2)))


@given(rows(2.0**100, 8), st.integers(0, 2**20), st.booleans())
def test_each_turn_is_within_its_bound(row: list[float], position: int, back: bool) -> None:
    x = torch.tensor((row + [0.0] * 8)[:8]).view(1, 1, 8)
    inverse = rotary.frequencies(8, 10000.0)
    cos, sin = rotary.tables(torch.tensor([position]), inverse)
    y = (rotary.rotate_back if back else rotary.rotate)(x, cos, sin).flatten().tolist()
    numbers = [mpmath.mpf(v) for v in x.flatten().tolist()]
    for i, angle in enumerate((torch.tensor(float(position)) * inverse).tolist()):
        c, s = mpmath.cos(angle), mpmath.sin(-angle if back else angle)
        for place, a, b in ((i, numbers[i] * c, -numbers[i + 4] * s), (i + 4, numbers[i + 4] * c, numbers[i] * s)):
            assert abs(y[place] - (a + b)) <= 3 * 2.0**-24 * (abs(a) + abs(b)) + 2.0**-147


def test_the_gradient_is_autograd_s() -> None:
    x, dy = even(-2, 2, 320, 1).view(2, 5, 2, 16), even(-2, 2, 320, 2).view(2, 5, 2, 16)
    cos, sin = rotary.tables(torch.arange(5), rotary.frequencies(16, 10000.0))
    wide = x.double().requires_grad_()
    (truth,) = torch.autograd.grad(rotary.rotate(wide, cos.double(), sin.double()), wide, dy.double())
    assert (rotary.rotate_back(dy, cos, sin).double() - truth).abs().max() < 5e-7
