"""Sums that do not depend on the order of their terms. Source: docs/spec/exact-arithmetic.md, sections 4, 5 and 3.4."""

from __future__ import annotations

import torch
from torch import Tensor

from fallow.numerics.exact.format import GRADIENT_BITS, GRADIENT_LIMIT, POISON
from fallow.numerics.exact.functions import divide, power_of_two

SUM_BITS = 36
"""The grid of `gridsum`: 2^36 steps up to the largest term, so 2^17 terms stay below 2^53."""
_LEAST, _MOST = -900, 900
_TOKEN_BITS = 22
"""T tokens' terms are clamped to 2^(22 - log2 T): their sum on the gradient grid stays below 2^62."""


def gridsum(terms: Tensor, bits: int = SUM_BITS) -> Tensor:
    """The sum along the last dimension, float64 in and out, equal whatever the order of the terms.

    Within `n * 2^-bits * max |term|` of the exact sum. NaN where a term is not finite (or 2^900 and more), 0 where all
    are below 2^-900. Raises ValueError for more than 2^(53 - bits) terms.
    """
    check_terms(terms.shape[-1], bits)
    if terms.shape[-1] == 0:
        return terms.new_zeros(terms.shape[:-1])
    largest = terms.abs().amax(-1)
    exponent = (largest.view(torch.int64) >> 52) - 1023
    tiny, sound = exponent < _LEAST, exponent < _MOST
    exponent = exponent.clamp(_LEAST, _MOST)
    points = torch.round(terms * power_of_two(bits - 1 - exponent)[..., None])
    # adding +0 settles the sign of a sum of nothing but -0
    total = (points.sum(-1) + 0.0) * power_of_two(exponent + 1 - bits)
    return torch.where(sound, torch.where(tiny, 0.0, total), torch.nan)


def check_terms(count: int, bits: int = SUM_BITS) -> None:
    """Raise ValueError where the sum of so many terms could pass 2^53 steps."""
    if count > 1 << (53 - bits):
        raise ValueError(f"at most 2^{53 - bits} terms fit a grid of {bits} bits, not {count}")


def mean64(terms: Tensor) -> Tensor:
    """`gridsum` divided by the number of terms, float64."""
    return divide(gridsum(terms), float(terms.shape[-1]))


def sequence_gradient(terms: Tensor) -> Tensor:
    """One sequence's gradient of a parameter that meets every token: (..., T, n) float64, a term for each token, to
    (..., n) int64 multiples of 2^-40, T at most 2^17. NaN gives POISON. Infinite and huge terms are clamped."""
    tokens = terms.shape[-2]
    bound = token_bound(tokens)
    points = torch.round(terms.clamp(-bound, bound) * 2.0**GRADIENT_BITS)
    total = torch.nan_to_num(points).to(torch.int64).sum(-2)
    return torch.where(torch.isnan(terms).any(-2), POISON, clamp_to_grid(total))


def token_bound(tokens: int) -> float:
    """What one token's term is clamped to in a sequence of so many: 2^(22 - ceil(log2 T)). Raises ValueError beyond
    2^17."""
    depth = (max(tokens, 1) - 1).bit_length()
    if depth > 17:
        raise ValueError(f"a sequence has at most 2^17 tokens, not {tokens}")
    return 2.0 ** (_TOKEN_BITS - depth)


def clamp_to_grid(total: Tensor) -> Tensor:
    """A sequence's int64 sum, brought within the limit of the gradient grid."""
    limit = int(GRADIENT_LIMIT) << GRADIENT_BITS
    return total.clamp(-limit, limit)
