"""Exact operators as torch modules and differentiable functions, to build models of any form with: linear layers,
embeddings, RMSNorm, attention, gated activations, cross-entropy.

Activations go through autograd as usual. Parameters have two ways: within `collecting`, their gradients are added as
integers to a `Gradients`, so that a batch may be cut and summed in any order; otherwise each backward pass rounds them
to fp32 and torch adds those up, which is exact for a batch that is one backward pass. Inputs are (sequences, tokens,
features) fp32. Source: docs/spec/exact-arithmetic.md, sections 15 and 16.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from fallow.numerics.exact import attention, linear
from fallow.numerics.exact.activations import silu_mul, silu_mul_backward
from fallow.numerics.exact.attention import Heads, Seen
from fallow.numerics.exact.format import gradient_mean, quantise
from fallow.numerics.exact.gradients import Gradients
from fallow.numerics.exact.losses import cross_entropy as token_losses
from fallow.numerics.exact.norms import rms_norm, rms_norm_backward, rms_norm_weight_gradient

_collectors: list[Gradients] = []


@contextmanager
def collecting(gradients: Gradients) -> Iterator[None]:
    """Inside, backward passes of this process add the gradients of parameters to `gradients`, and `.grad` stays as it
    is. A parameter is called by its module's `name`, see `name_parameters`."""
    _collectors.append(gradients)
    try:
        yield
    finally:
        _collectors.pop()


def name_parameters(root: nn.Module) -> None:
    """Tell every exact module in `root` what its parameters are called: torch's dotted names."""
    for name, module in root.named_modules():
        if isinstance(module, Linear | Embedding | RMSNorm):
            module.name = name


class _Operator(Protocol):
    def forward(self, *inputs: Tensor) -> tuple[Tensor, Any]: ...

    def backward(self, dy: Tensor, tape: Any) -> tuple[Tensor | None, ...]: ...


class _Apply(torch.autograd.Function):
    """Runs an operator forward, and backward with the tape that it left."""

    @staticmethod
    def forward(ctx: Any, operator: _Operator, *inputs: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        y, ctx.tape = operator.forward(*(value.detach() for value in inputs))
        ctx.operator = operator
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, *ctx.operator.backward(dy.contiguous(), ctx.tape)


def _run(operator: _Operator, *inputs: Tensor) -> Tensor:
    return cast(Tensor, _Apply.apply(operator, *inputs))


class _Collected:
    """Where one backward pass puts the gradients of parameters."""

    def __init__(self) -> None:
        self._outer = bool(_collectors)
        self.gradients = _collectors[-1] if _collectors else Gradients()

    def give(self, name: str) -> Tensor | None:
        """What torch is told: nothing when the gradient went to a collector."""
        total = self.gradients.totals.get(name)
        return None if self._outer or total is None else gradient_mean(total, 1)


class Linear(nn.Module):
    """y = x W^T + b. `weight`: (out, in), started as torch's."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.name = ""
        start = nn.Linear(inputs, outputs, bias)
        self.weight = start.weight
        self.bias = start.bias if bias else None
        self._packed = linear.Weight(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x: (sequences, tokens, in) fp32."""
        bias = () if self.bias is None else (self.bias,)
        return _run(_LinearOperator(self), x, self.weight, *bias)

    def part(self) -> linear.Linear:
        """The layer as plain functions; what asks for no gradient gets no name."""
        if self._packed.parameter is not self.weight:
            self._packed = linear.Weight(self.weight)
        self._packed.name = f"{self.name}.weight" if self.weight.requires_grad else None
        wanted = self.bias is not None and self.bias.requires_grad
        return linear.Linear(self._packed, self.bias, f"{self.name}.bias" if wanted else None)


class _LinearOperator:
    def __init__(self, module: Linear) -> None:
        self._module, self._part = module, module.part()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        grid = quantise(inputs[0])
        return self._part.forward(grid)[0], grid

    def backward(self, dy: Tensor, tape: Any) -> tuple[Tensor | None, ...]:
        where, name = _Collected(), self._module.name
        dx = self._part.backward(dy, tape, None, where.gradients)
        bias = () if self._module.bias is None else (where.give(f"{name}.bias"),)
        return dx, where.give(f"{name}.weight"), *bias


class Embedding(nn.Module):
    """Rows of `weight` (count, size), started as torch's."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.name = ""
        self.weight = nn.Embedding(count, size).weight

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (sequences, tokens) int64."""
        return _run(_EmbeddingOperator(self, ids), self.weight)


class _EmbeddingOperator:
    def __init__(self, module: Embedding, ids: Tensor) -> None:
        self._module, self._ids = module, ids

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        return inputs[0][self._ids], None

    def backward(self, dy: Tensor, tape: Any) -> tuple[Tensor | None, ...]:
        where, name = _Collected(), f"{self._module.name}.weight"
        where.gradients.add_rows(name, self._module.weight, self._ids, dy)
        return (where.give(name),)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * weight."""

    def __init__(self, size: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.name, self.epsilon = "", epsilon
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """x: (sequences, tokens, size) fp32."""
        return _run(_NormOperator(self), x, self.weight)


class _NormOperator:
    def __init__(self, module: RMSNorm) -> None:
        self._module = module

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        x, weight = inputs
        y, scale = rms_norm(x, weight, self._module.epsilon)
        return y, (x, weight, scale)

    def backward(self, dy: Tensor, tape: Any) -> tuple[Tensor | None, ...]:
        x, weight, scale = tape
        where, name = _Collected(), f"{self._module.name}.weight"
        if self._module.weight.requires_grad:
            where.gradients.add_entries(name, weight, rms_norm_weight_gradient(dy, x, scale))
        return rms_norm_backward(dy, x, weight, scale), where.give(name)


def attend(heads: Heads, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention: queries (sequences, tokens, query heads, size), keys and values (sequences, tokens, key heads,
    size), turned already -> (sequences, tokens, query heads x size)."""
    return _run(_AttendOperator(heads), queries, keys, values)


class _AttendOperator:
    def __init__(self, heads: Heads) -> None:
        self._heads = heads

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        queries = quantise(attention.by_key_head(self._heads, inputs[0]))
        keys, values = (quantise(x.transpose(1, 2).contiguous()) for x in inputs[1:])
        span = attention.span(self._heads, inputs[0].shape[1], 0, inputs[0].device)
        mixed, weights = attention.attend(self._heads, queries, keys, values, span)
        return attention.by_token(self._heads, mixed), Seen(queries, keys, values, weights, span)

    def backward(self, dy: Tensor, tape: Any) -> tuple[Tensor | None, ...]:
        heads = self._heads
        split = dy.view(*dy.shape[:2], heads.queries, heads.size)
        dq, dk, dv = attention.attend_backward(heads, attention.by_key_head(heads, split), tape)
        return attention.by_token(heads, dq).view(split.shape), dk.transpose(1, 2), dv.transpose(1, 2)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    return _run(_GateOperator(), gate, up)


class _GateOperator:
    def forward(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        return silu_mul(*inputs), inputs

    def backward(self, dy: Tensor, tape: Any) -> tuple[Tensor | None, ...]:
        return silu_mul_backward(dy, *tape)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Each token's loss, fp32, of logits (..., vocabulary) and targets (...) int64, -100 for none. Sum them, and divide
    in the optimiser's step: a mean would put the batch's size into every gradient."""
    return _run(_LossOperator(targets), logits)


class _LossOperator:
    def __init__(self, targets: Tensor) -> None:
        self._targets = targets

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        return token_losses(inputs[0], self._targets)

    def backward(self, dy: Tensor, tape: Any) -> tuple[Tensor | None, ...]:
        return (tape * dy[..., None],)
