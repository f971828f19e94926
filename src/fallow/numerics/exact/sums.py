"""Exact integer matrix products with torch's own matrix kernels: two ways, the same integers.

Source: docs/spec/exact-arithmetic.md, section 3.5.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

MAX_TERMS = 1 << 27
"""TOP^2 * 2^27 < 2^53: up to here every partial sum is exact in binary64."""
_INT8_TERMS = 1 << 17
"""126^2 * 2^17 < 2^31: up to here every partial sum of a product of digits fits int32."""
_INT8_MULTIPLE, _INT8_ROWS = 16, 32
"""CUDA's int8 kernels take sizes that are multiples of 8, and more than 16 rows."""

_torch_int_mm: Callable[[Tensor, Tensor], Tensor] = getattr(torch, "_int_mm")  # noqa: B009 (it has no other name)


def fp64(a: Tensor, b: Tensor) -> Tensor:
    """a: (..., m, k) and b: (..., k, n) int16, as float64. Any BLAS: no operation in it rounds."""
    # a sum of nothing but -0 (a negative times zero) is -0 in some libraries; adding +0 makes it +0
    return torch.matmul(a.double(), b.double()) + 0.0


def int8(a: Tensor, b: Tensor) -> Tensor:
    """The same by int8 products of digits, q = 128 high + low: high*high, low*low and (high+low)*(high+low)
    give the mixed terms with three products in place of four (Karatsuba); on CPUs four are taken."""
    shape = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    total = torch.zeros(*shape, a.shape[-2], b.shape[-1], dtype=torch.float64, device=a.device)
    if total.numel() and a.shape[-1]:
        lefts = a.expand(*shape, *a.shape[-2:]).reshape(-1, *a.shape[-2:])
        rights = b.expand(*shape, *b.shape[-2:]).reshape(-1, *b.shape[-2:])
        for out, left, right in zip(total.view(-1, *total.shape[-2:]), lefts, rights, strict=True):
            _int8_into(out, left, right)
    return total


def _int8_into(total: Tensor, a: Tensor, b: Tensor) -> None:
    for start in range(0, a.shape[1], _INT8_TERMS):
        part_a, part_b = a[:, start : start + _INT8_TERMS], b[start : start + _INT8_TERMS]
        (a_high, a_low), (b_high, b_low) = _digits(part_a), _digits(part_b)
        high, low = _int_mm(a_high, b_high).double(), _int_mm(a_low, b_low).double()
        if a.device.type == "cpu":
            # oneDNN without VNNI adds pairs of products in 16 bits, which saturate for digits beyond [-64, 63]
            mixed = _int_mm(a_high, b_low).double() + _int_mm(a_low, b_high).double()
        else:
            mixed = _int_mm(a_high + a_low, b_high + b_low).double() - high - low
        total += high * 2.0**14 + mixed * 2.0**7 + low


def _digits(q: Tensor) -> tuple[Tensor, Tensor]:
    high = (q + 64) >> 7
    return high.to(torch.int8), (q - (high << 7)).to(torch.int8)


def _int_mm(a: Tensor, b: Tensor) -> Tensor:
    """int8 (m, k) by (k, n) to int32, with zeros around where the kernel asks for them."""
    (m, k), n = a.shape, b.shape[1]
    if a.device.type == "cpu":
        return _torch_int_mm(a.contiguous(), b.contiguous())
    rows = max(-m % _INT8_MULTIPLE, _INT8_ROWS - m)
    a = functional.pad(a, (0, -k % _INT8_MULTIPLE, 0, rows))
    b = functional.pad(b, (0, -n % _INT8_MULTIPLE, 0, -k % _INT8_MULTIPLE))
    return _torch_int_mm(a, b)[:m, :n]
