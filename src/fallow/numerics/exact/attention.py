"""Causal attention with grouped heads on exact products. With or without a cache, in one piece or in many: the same
bits, because a query's row is quantised over the keys that it may see and over nothing else.

Layout: queries (sequences, key heads, group x tokens, size), keys and values (sequences, key heads, tokens, size): the
query heads that share a key head lie behind each other. Source: docs/spec/exact-arithmetic.md, section 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fallow.numerics.exact.format import Grid, quantise, quantise_columns
from fallow.numerics.exact.product import product, product_folded
from fallow.numerics.exact.softmax import Span, causal, softmax, softmax_backward


@dataclass(frozen=True)
class Heads:
    """`queries` heads share `keys` key heads; a head has `size` entries. A query sees the `window` last tokens up to
    its own, all of them when 0."""

    queries: int
    keys: int
    size: int
    window: int = 0

    @property
    def group(self) -> int:
        return self.queries // self.keys

    @property
    def scale(self) -> float:
        """1 / sqrt(size): two rounded binary64 operations."""
        return 1.0 / math.sqrt(self.size)


@dataclass
class Seen:
    """What the backward pass wants: the grids of queries, keys and values, and the weights of the keys, fp32."""

    queries: Grid
    keys: Grid
    values: Grid
    weights: Tensor
    span: Span


def span(heads: Heads, tokens: int, past: int, device: torch.device) -> Span:
    """Which keys each query of `tokens` tokens may see that follow `past` others, in the order of `by_key_head`."""
    one = causal(tokens, past, window=heads.window, device=device)
    return Span(one.start.repeat(heads.group), one.stop.repeat(heads.group))


def by_key_head(heads: Heads, x: Tensor) -> Tensor:
    """(sequences, tokens, query heads, size) -> (sequences, key heads, group x tokens, size)."""
    sequences, tokens = x.shape[:2]
    return (
        x.view(sequences, tokens, heads.keys, heads.group, heads.size)
        .permute(0, 2, 3, 1, 4)
        .reshape(sequences, heads.keys, heads.group * tokens, heads.size)
    )


def by_token(heads: Heads, x: Tensor) -> Tensor:
    """The way back: -> (sequences, tokens, query heads x size)."""
    sequences, tokens = x.shape[0], x.shape[2] // heads.group
    split = x.view(sequences, heads.keys, heads.group, tokens, heads.size)
    return split.permute(0, 3, 1, 2, 4).reshape(sequences, tokens, heads.queries * heads.size)


def attend(heads: Heads, queries: Grid, keys: Grid, values: Grid, seen: Span) -> tuple[Tensor, Tensor]:
    """Grids of queries (sequences, key heads, group x tokens, size), keys and values (sequences, key heads, keys,
    size); `seen` as `span` gives it. -> the mixed values (as queries) and the weights (..., keys), fp32."""
    visible = seen.stop.to(torch.int32)
    weights = softmax(product(queries, keys, visible), seen, scale=heads.scale)
    return product_folded(quantise(weights, values.step), values), weights


def attend_backward(heads: Heads, d_mixed: Tensor, seen: Seen) -> tuple[Tensor, Tensor, Tensor]:
    """-> the gradients at queries, keys and values, in their layouts, fp32."""
    d_grid = quantise(d_mixed)
    d_values = product_folded(quantise_columns(seen.weights, d_grid.step), d_grid)
    d_weights = product(d_grid, seen.values, seen.span.stop.to(torch.int32))
    d_scores = softmax_backward(seen.weights, d_weights, seen.span, scale=heads.scale)
    d_queries = product_folded(quantise(d_scores, seen.keys.step), seen.keys)
    d_keys = product_folded(quantise_columns(d_scores, seen.queries.step), seen.queries)
    return d_queries, d_keys, d_values


class Cache:
    """The keys and values that a sequence has so far in one layer, as grids (1, key heads, room, size). Doubles its
    room when it is full."""

    def __init__(self, heads: Heads, device: torch.device) -> None:
        self._heads, self._device = heads, device
        self.length = 0
        self._keys, self._values = self._room(0), self._room(0)

    @staticmethod
    def token_bytes(heads: Heads) -> int:
        """The memory that a token takes in one layer, the room that doubling leaves free counted."""
        return 2 * heads.keys * (2 * heads.size + 4) * 2

    def _room(self, tokens: int) -> Grid:
        shape = (1, self._heads.keys, tokens)
        return Grid(
            torch.zeros((*shape, self._heads.size), dtype=torch.int16, device=self._device),
            torch.zeros(shape, dtype=torch.float32, device=self._device),
        )

    def append(self, keys: Grid, values: Grid) -> tuple[Grid, Grid]:
        """Take in the next tokens; returns all so far."""
        start, self.length = self.length, self.length + keys.q.shape[2]
        if self.length > self._keys.q.shape[2]:
            room = max(64, 1 << (self.length - 1).bit_length())
            self._keys, self._values = self._moved(self._keys, room, start), self._moved(self._values, room, start)
        for mine, new in ((self._keys, keys), (self._values, values)):
            mine.q[:, :, start : self.length] = new.q
            mine.step[:, :, start : self.length] = new.step
        return self._first(self._keys), self._first(self._values)

    def rewind(self, length: int) -> None:
        """Forget all after the first `length` tokens."""
        self.length = min(self.length, length)

    def _moved(self, old: Grid, room: int, length: int) -> Grid:
        new = self._room(room)
        new.q[:, :, :length] = old.q[:, :, :length]
        new.step[:, :, :length] = old.step[:, :, :length]
        return new

    def _first(self, grid: Grid) -> Grid:
        return Grid(grid.q[:, :, : self.length], grid.step[:, :, : self.length])
