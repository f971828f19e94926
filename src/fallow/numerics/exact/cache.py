"""The keys and values that texts have so far, and attention of new tokens over them.

Where the compiled kernels serve, a cache lies packed as they read it: a token costs the reading of the cache, and
nothing is packed again. Elsewhere it is grids, and `attention.attend` serves. The bits are the same. Source:
docs/spec/exact-arithmetic.md, section 16.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fallow.numerics.exact import attention, native, routes
from fallow.numerics.exact.attention import Heads
from fallow.numerics.exact.bindings import Kept, kept_room
from fallow.numerics.exact.format import Grid, quantise


class Cache:
    """What a text has in one layer. Doubles its room when it is full."""

    def __init__(self, heads: Heads, device: torch.device) -> None:
        self._heads, self._device = heads, device
        self.length = 0
        self.kept = kept_room(heads.keys, heads.size, 0) if routes.compiled(device) is not None else None
        self._keys, self._values = self._room(0), self._room(0)

    @staticmethod
    def token_bytes(heads: Heads) -> int:
        """The memory that a token takes, the room that doubling leaves free counted."""
        return 2 * heads.keys * (2 * -(-heads.size // 32) * 32 + 4) * 2

    def reserve(self, tokens: int) -> Kept:
        """Make room for as many more tokens; the packed cache."""
        assert self.kept is not None
        wanted = self.length + tokens
        if wanted > self.kept.room:
            self.kept = self.kept.grown(max(64, 1 << (wanted - 1).bit_length()))
        return self.kept

    def append(self, keys: Grid, values: Grid) -> tuple[Grid, Grid]:
        """Take in the next tokens, grids (1, key heads, tokens, size); returns all so far. For a cache of grids."""
        assert self.kept is None
        start, self.length = self.length, self.length + keys.q.shape[2]
        if self.length > self._keys.q.shape[2]:
            room = max(64, 1 << (self.length - 1).bit_length())
            self._keys, self._values = self._moved(self._keys, room, start), self._moved(self._values, room, start)
        for mine, new in ((self._keys, keys), (self._values, values)):
            mine.q[:, :, start : self.length] = new.q
            mine.step[:, :, start : self.length] = new.step
        return self._first(self._keys), self._first(self._values)

    def _room(self, tokens: int) -> Grid:
        shape = (1, self._heads.keys, tokens)
        return Grid(
            torch.zeros((*shape, self._heads.size), dtype=torch.int16, device=self._device),
            torch.zeros(shape, dtype=torch.float32, device=self._device),
        )

    def _moved(self, old: Grid, room: int, length: int) -> Grid:
        new = self._room(room)
        new.q[:, :, :length] = old.q[:, :, :length]
        new.step[:, :, :length] = old.step[:, :, :length]
        return new

    def _first(self, grid: Grid) -> Grid:
        return Grid(grid.q[:, :, : self.length], grid.step[:, :, : self.length])


def attend_next(heads: Heads, q: Tensor, k: Tensor, v: Tensor, caches: Sequence[tuple[Cache, int]]) -> Tensor:
    """The next tokens of several texts behind each other, of which each of `caches` gets as many as the number beside
    it says. `q`: (1, tokens, query heads, size), `k` and `v`: (1, tokens, key heads, size), turned already, fp32. ->
    the mixed values, (1, tokens, query heads x size) fp32."""
    kernels = native.kernels() if all(cache.kept is not None for cache, _ in caches) else None
    if kernels is None:
        return _by_grids(heads, q, k, v, caches)
    texts = [(cache.reserve(count), cache.length, count) for cache, count in caches]
    shape = (heads.keys, heads.group, heads.size)
    mixed = kernels.attend(texts, (q, k, v), shape, heads.window, heads.scale, native.cap())
    for cache, count in caches:
        cache.length += count
    return mixed.view(*q.shape[:2], heads.queries * heads.size)


def _by_grids(heads: Heads, q: Tensor, k: Tensor, v: Tensor, caches: Sequence[tuple[Cache, int]]) -> Tensor:
    mixed: list[Tensor] = []
    start = 0
    for cache, count in caches:
        part = slice(start, start + count)
        start += count
        keys, values = (quantise(x[:, part].transpose(1, 2).contiguous()) for x in (k, v))
        all_keys, all_values = cache.append(keys, values)
        span = attention.span(heads, count, cache.length - count, q.device)
        queries = quantise(attention.by_key_head(heads, q[:, part]))
        mixed.append(attention.by_token(heads, attention.attend(heads, queries, all_keys, all_values, span)[0]))
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, 1)
