"""A transformer block of Llama's form: forward, and backward from a tape that holds int16 grids in place of fp32
activations where it can.

Source: docs/spec/exact-arithmetic.md, sections 15 to 17.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fallow.numerics.exact import attention, linear
from fallow.numerics.exact.activations import silu_mul, silu_mul_backward
from fallow.numerics.exact.attention import Heads, Seen
from fallow.numerics.exact.cache import Cache, attend_next
from fallow.numerics.exact.format import Grid, quantise
from fallow.numerics.exact.gradients import Gradients
from fallow.numerics.exact.linear import Affine
from fallow.numerics.exact.norms import rms_norm, rms_norm_backward, rms_norm_weight_gradient
from fallow.numerics.exact.rotary import rotate, rotate_back
from fallow.numerics.exact.softmax import Span

Angles = tuple[Tensor, Tensor]
"""Cosines and sines of each token's rotary angles, (tokens, size / 2) or (sequences, tokens, size / 2) fp32 both."""


@dataclass
class Norm:
    """RMSNorm. `weight`: (n,) fp32; `name` is what its gradient is called, None when it is frozen."""

    weight: Tensor
    epsilon: float
    name: str | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """-> the normed x, and what `backward` wants."""
        return rms_norm(x, self.weight.detach(), self.epsilon)

    def backward(self, dy: Tensor, x: Tensor, scale: Tensor, gradients: Gradients) -> Tensor:
        """-> dx; adds the weight's gradient."""
        if self.name is not None:
            gradients.add_entries(self.name, self.weight, rms_norm_weight_gradient(dy, x, scale))
        return rms_norm_backward(dy, x, self.weight.detach(), scale)


@dataclass
class AttentionTape:
    """What attention's backward pass wants. `middles` are the detours' of query, key, value, output."""

    x: Tensor
    scale: Tensor
    normed: Grid
    middles: tuple[Grid | None, Grid | None, Grid | None, Grid | None]
    seen: Seen
    mixed: Grid


@dataclass
class GatedTape:
    """What the feed-forward network's backward pass wants. `middles` are the detours' of gate, up, down."""

    x: Tensor
    scale: Tensor
    normed: Grid
    middles: tuple[Grid | None, Grid | None, Grid | None]
    gate: Tensor
    up: Tensor
    product: Grid


@dataclass
class Attention:
    """x + output(attention(norm(x)))."""

    norm: Norm
    query: Affine
    key: Affine
    value: Affine
    output: Affine
    heads: Heads

    def forward(self, x: Tensor, angles: Angles, span: Span) -> tuple[Tensor, AttentionTape]:
        """x: (sequences, tokens, width) fp32; span: see `attention.span`."""
        heads = self.heads
        h, scale = self.norm.forward(x)
        normed = quantise(h)
        q, q_middle = self.query.forward(normed)
        k, k_middle = self.key.forward(normed)
        v, v_middle = self.value.forward(normed)
        queries = quantise(attention.by_key_head(heads, _turned(q, heads.queries, angles)))
        keys = quantise(_heads_first(_turned(k, heads.keys, angles)))
        values = quantise(_heads_first(_split(v, heads.keys)))
        mixed, weights = attention.attend(heads, queries, keys, values, span)
        grid = quantise(attention.by_token(heads, mixed))
        y, o_middle = self.output.forward(grid)
        seen = Seen(queries, keys, values, weights, span)
        tape = AttentionTape(x, scale, normed, (q_middle, k_middle, v_middle, o_middle), seen, grid)
        return y.add_(x), tape

    def step(self, x: Tensor, angles: Angles, caches: list[tuple[Cache, int]]) -> Tensor:
        """The next tokens of several texts behind each other: x (1, tokens, width), of which each of `caches` gets as
        many as the number beside it says."""
        heads, h = self.heads, self.norm.forward(x)[0]
        q, k, v = linear.answers((self.query, self.key, self.value), h)
        q, k = _turned(q, heads.queries, angles), _turned(k, heads.keys, angles)
        mixed = attend_next(heads, q, k, _split(v, heads.keys), caches)
        return linear.answers((self.output,), mixed)[0].add_(x)

    def backward(
        self, dy: Tensor, angles: Angles, tape: AttentionTape, gradients: Gradients, *, want: bool = True
    ) -> Tensor | None:
        """-> dx, or None when nobody wants it; adds the parameters' gradients."""
        heads, (q_middle, k_middle, v_middle, o_middle) = self.heads, tape.middles
        d_mixed = _split(self.output.backward(dy, tape.mixed, o_middle, gradients), heads.queries)
        dq, dk, dv = attention.attend_backward(heads, attention.by_key_head(heads, d_mixed), tape.seen)
        dq = _turned_back(attention.by_token(heads, dq), heads.queries, angles)
        dk = _turned_back(_joined(dk.transpose(1, 2)), heads.keys, angles)
        dv = _joined(dv.transpose(1, 2))
        parts = ((self.query, dq, q_middle), (self.key, dk, k_middle), (self.value, dv, v_middle))
        if not want and self.norm.name is None:
            for layer, d, middle in parts:
                layer.learn(d, tape.normed, middle, gradients)
            return None
        first, second, third = (layer.backward(d, tape.normed, middle, gradients) for layer, d, middle in parts)
        dh = first.add_(second).add_(third)
        return self.norm.backward(dh, tape.x, tape.scale, gradients).add_(dy)


@dataclass
class Gated:
    """x + down(silu(gate(h)) * up(h)), h = norm(x)."""

    norm: Norm
    gate: Affine
    up: Affine
    down: Affine

    def forward(self, x: Tensor) -> tuple[Tensor, GatedTape]:
        """x: (sequences, tokens, width) fp32."""
        h, scale = self.norm.forward(x)
        normed = quantise(h)
        gate, g_middle = self.gate.forward(normed)
        up, u_middle = self.up.forward(normed)
        grid = quantise(silu_mul(gate, up))
        y, d_middle = self.down.forward(grid)
        return y.add_(x), GatedTape(x, scale, normed, (g_middle, u_middle, d_middle), gate, up, grid)

    def step(self, x: Tensor) -> Tensor:
        """`forward` without a tape."""
        gate, up = linear.answers((self.gate, self.up), self.norm.forward(x)[0])
        return linear.answers((self.down,), silu_mul(gate, up))[0].add_(x)

    def backward(self, dy: Tensor, tape: GatedTape, gradients: Gradients) -> Tensor:
        """-> dx; adds the parameters' gradients."""
        g_middle, u_middle, d_middle = tape.middles
        d_product = self.down.backward(dy, tape.product, d_middle, gradients)
        d_gate, d_up = silu_mul_backward(d_product, tape.gate, tape.up)
        dh = self.gate.backward(d_gate, tape.normed, g_middle, gradients)
        dh = dh.add_(self.up.backward(d_up, tape.normed, u_middle, gradients))
        return self.norm.backward(dh, tape.x, tape.scale, gradients).add_(dy)


@dataclass
class Block:
    """One layer."""

    attention: Attention
    gated: Gated

    def linears(self) -> tuple[Affine, ...]:
        """All its linear layers."""
        a, g = self.attention, self.gated
        return a.query, a.key, a.value, a.output, g.gate, g.up, g.down


def _split(x: Tensor, heads: int) -> Tensor:
    """(sequences, tokens, heads x size) -> (sequences, tokens, heads, size)."""
    return x.view(*x.shape[:-1], heads, -1)


def _turned(x: Tensor, heads: int, angles: Angles) -> Tensor:
    """(sequences, tokens, heads x size), each head turned: (sequences, tokens, heads, size)."""
    return rotate(_split(x, heads), *angles)


def _turned_back(dy: Tensor, heads: int, angles: Angles) -> Tensor:
    return _joined(rotate_back(_split(dy, heads), *angles))


def _joined(x: Tensor) -> Tensor:
    return x.flatten(-2)


def _heads_first(x: Tensor) -> Tensor:
    """(sequences, tokens, heads, size) -> (sequences, heads, tokens, size)."""
    return x.transpose(1, 2).contiguous()
