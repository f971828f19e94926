"""Exact RMSNorm and its gradients. Source: docs/spec/exact-arithmetic.md, section 9.

Rows are vectors along the last dimension, at most 2^17 long. Weight gradients are one sequence's: the dimension before
the last runs over its tokens, and dimensions before that over sequences.
"""

from __future__ import annotations

from torch import Tensor

from fallow.numerics.exact import kernels
from fallow.numerics.exact.functions import divide, sqrt
from fallow.numerics.exact.gridsum import check_terms, gridsum, mean64, sequence_gradient, token_bound


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Rows as x / sqrt(mean(x^2) + eps) * weight: (..., n) and (n,) float32 to (..., n) float32, and each row's
    1 / sqrt(mean(x^2) + eps), (...) float64, which the gradients need."""
    check_terms(x.shape[-1])
    if kernels.serve(x, weight):
        return kernels.rms_norm(x, weight, eps)
    wide = x.double()
    r = 1.0 / sqrt(mean64(wide * wide) + eps)
    return ((wide * r[..., None]) * weight.double()).float(), r


def rms_norm_backward(dy: Tensor, x: Tensor, weight: Tensor, r: Tensor) -> Tensor:
    """The gradient of x, float32, given that of the output."""
    check_terms(x.shape[-1])
    if kernels.serve(dy, x, weight):
        return kernels.rms_norm_backward(dy, x, weight, r)
    wide = x.double()
    g = dy.double() * weight.double()
    a = divide((gridsum(g * wide) * r) * r, float(x.shape[-1]))
    return ((g - wide * a[..., None]) * r[..., None]).float()


def rms_norm_weight_gradient(dy: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """The gradient of the weight on the gradient grid: (..., T, n) to (..., n) int64, one for each sequence."""
    if kernels.serve(dy, x):
        return kernels.rms_norm_weight_gradient(dy, x, r, token_bound(x.shape[-2]))
    return sequence_gradient((dy.double() * x.double()) * r[..., None])
