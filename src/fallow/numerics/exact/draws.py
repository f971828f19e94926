"""Random numbers that are a function of where they are used, not of when. Source: docs/spec/exact-arithmetic.md,
section 13.

A draw is named by (seed, stream, position, index): `seed` 64 bits for the run, `stream` 32 bits for the purpose,
`position` 32 bits for the place (a token's position, a step), `index` below 2^34 for the element (a token of the
vocabulary, an entry of a tensor). Any subset may be drawn in any order, on any device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fallow.numerics.exact import kernels
from fallow.numerics.exact.functions import log64

_WORD = (1 << 32) - 1
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 of Salmon et al. (2011): four words in int64 tensors, key = (low, high) word of the seed."""
    a, b, c, d = counter
    low, high = seed & _WORD, seed >> 32 & _WORD
    for _ in range(_ROUNDS):
        # int64 products wrap, which leaves the low 64 bits right; masking after the shift drops the copied sign
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = ((right >> 32) & _WORD) ^ b ^ low, right & _WORD, ((left >> 32) & _WORD) ^ d ^ high, left & _WORD
        low, high = (low + _KEY_STEPS[0]) & _WORD, (high + _KEY_STEPS[1]) & _WORD
    return a, b, c, d


def words(seed: int, stream: int, position: Tensor | int, index: Tensor) -> Tensor:
    """32 random bits each for draws named by `index` and `position`, int64 tensors that broadcast: int64 in [0,
    2^32)."""
    index, place = torch.broadcast_tensors(index, torch.as_tensor(position, device=index.device))
    block = index >> 2
    counter = (block & _WORD, place & _WORD, torch.full_like(block, stream & _WORD), block >> 32)
    four = torch.stack(philox(counter, seed), -1)
    return four.gather(-1, (index & 3)[..., None])[..., 0]


def uniform(seed: int, stream: int, position: Tensor | int, index: Tensor) -> Tensor:
    """Uniform in (0, 1), float32: odd multiples of 2^-24."""
    return (words(seed, stream, position, index) >> 9).float() * 2.0**-23 + 2.0**-24


def uniform64(seed: int, stream: int, position: Tensor | int, index: Tensor) -> Tensor:
    """Uniform in (0, 1), float64: odd multiples of 2^-33."""
    return words(seed, stream, position, index).double() * 2.0**-32 + 2.0**-33


def gumbel64(seed: int, stream: int, position: Tensor | int, index: Tensor) -> Tensor:
    """-log(-log(u)) of `uniform64`, float64, in [-3.14, 22.88]."""
    return -log64(-log64(uniform64(seed, stream, position, index)))


def gumbel_rows64(seed: int, stream: int, positions: Tensor, count: int) -> Tensor:
    """`gumbel64` of indices 0 to count - 1 at each of (rows,) positions: (rows, count)."""
    if positions.device.type == "cpu" and kernels.serve():
        return kernels.gumbel64(seed, stream, positions, count)
    return gumbel64(seed, stream, positions[:, None], torch.arange(count, device=positions.device))
