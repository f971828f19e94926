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


def span(heads: Heads, tokens: int, past: int, device: torch.device, starts: Tensor | None = None) -> Span:
    """Which keys each query of `tokens` tokens may see that follow `past` others, in the order of `by_key_head`. With
    `starts`, (sequences, tokens), none before the place that it says."""
    one = causal(tokens, past, window=heads.window, device=device)
    if starts is None:
        return Span(one.start.repeat(heads.group), one.stop.repeat(heads.group))
    start = torch.maximum(one.start, starts).repeat(1, heads.group)
    return Span(start[:, None], one.stop.repeat(heads.group))


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
