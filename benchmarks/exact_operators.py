"""What exactness costs outside of matrix products: each operator of a training step of a small Llama beside torch's
own in fp32, forward and backward together, in turns; and AdamW beside torch's fused one.

    python benchmarks/exact_operators.py [--rounds N]

Processor time of one thread, which other work on the machine disturbs little. Shapes are SmolLM2-135M's with 2,048
tokens (512 for the vocabulary's rows). Writes `benchmarks/results/exact_operators.json`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from _record import OURS, Figure, Record
from fallow.numerics.exact import activations, draws, kernels, losses, norms, rotary, softmax

TOKENS, WIDTH, INNER, HEADS, SIZE, WORDS = 2048, 576, 1536, 9, 64, 49152
Work = Callable[[], object]


def gradients(outputs: Tensor, inputs: tuple[Tensor, ...], dy: Tensor) -> object:
    return torch.autograd.grad(outputs, inputs, dy)


def gated() -> tuple[Work, Work]:
    gate, up, dy = (torch.randn(TOKENS, INNER) for _ in range(3))
    g, u = gate.clone().requires_grad_(), up.clone().requires_grad_()
    ours = lambda: (activations.silu_mul(gate, up), activations.silu_mul_backward(dy, gate, up))  # noqa: E731
    return ours, lambda: gradients(functional.silu(g) * u, (g, u), dy)


def normed() -> tuple[Work, Work]:
    x, w, dy = torch.randn(1, TOKENS, WIDTH), torch.randn(WIDTH), torch.randn(1, TOKENS, WIDTH)
    a, b = x.clone().requires_grad_(), w.clone().requires_grad_()

    def ours() -> object:
        y, r = norms.rms_norm(x, w, 1e-5)
        return y, norms.rms_norm_backward(dy, x, w, r), norms.rms_norm_weight_gradient(dy, x, r)

    return ours, lambda: gradients(functional.rms_norm(a, (WIDTH,), b, 1e-5), (a, b), dy)


def attended() -> tuple[Work, Work]:
    tokens = TOKENS // 4
    x, dp = torch.randn(4, HEADS, tokens, tokens), torch.randn(4, HEADS, tokens, tokens)
    span, scale = softmax.causal(tokens, 0), SIZE**-0.5
    mask = torch.zeros(tokens, tokens).masked_fill_(~span.visible(tokens), -torch.inf)
    a = x.clone().requires_grad_()

    def ours() -> object:
        p = softmax.softmax(x, span, scale=scale)
        return softmax.softmax_backward(p, dp, span, scale=scale)

    return ours, lambda: gradients(torch.softmax(a * scale + mask, -1), (a,), dp)


def turned() -> tuple[Work, Work]:
    x = torch.randn(1, TOKENS, HEADS, SIZE)
    cos, sin = rotary.tables(torch.arange(TOKENS), rotary.frequencies(SIZE, 10000.0))
    wide_cos, wide_sin = (torch.cat((table, table), -1)[:, None] for table in (cos, sin))

    def theirs() -> Tensor:
        first, second = x.chunk(2, -1)
        return x * wide_cos + torch.cat((-second, first), -1) * wide_sin

    return lambda: rotary.rotate(x, cos, sin), theirs


def lost() -> tuple[Work, Work]:
    logits, targets = torch.randn(512, WORDS), torch.randint(0, WORDS, (512,))
    a, one = logits.clone().requires_grad_(), torch.tensor(1.0)
    ours = lambda: losses.cross_entropy(logits, targets)  # noqa: E731
    return ours, lambda: gradients(functional.cross_entropy(a, targets, reduction="sum"), (a,), one)


def stepped() -> tuple[Work, Work]:
    p, g, m, v = torch.randn(5_000_000), torch.randn(5_000_000), torch.zeros(5_000_000), torch.zeros(5_000_000)
    parameter = torch.nn.Parameter(p.clone())
    parameter.grad = g
    theirs = torch.optim.AdamW([parameter], fused=True)
    settings = (0.9, 0.1, 0.95, 0.05, 1.0, 1e-8, 1e-3, 0.999)
    return lambda: kernels.adamw(p, m, v, g, settings), theirs.step


def noise() -> tuple[Work, Work]:
    positions = torch.tensor([5])
    return lambda: draws.gumbel_rows64(1, 2, positions, WORDS), lambda: -torch.empty(1, WORDS).exponential_().log()


OPERATORS = {
    "RMSNorm": normed, "SiLU(gate) * up": gated, "causal softmax": attended, "rotary": turned, "cross-entropy": lost,
    "AdamW, 5 M": stepped, "Gumbel noise, 49,152": noise,
}  # fmt: skip
STEP = ("RMSNorm", "SiLU(gate) * up", "causal softmax", "rotary", "cross-entropy", "AdamW, 5 M")


def timed(work: Work) -> float:
    start = time.thread_time()
    work()
    return (time.thread_time() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    record = Record(
        __file__, "exact operators that are no products take together at most 1.2 times torch's fp32", seed=1
    )
    ours, theirs = dict[str, list[float]](), dict[str, list[float]]()
    for name, make in OPERATORS.items():
        exact, plain = make()
        exact()
        plain()
        pairs = [(timed(exact), timed(plain)) for _ in range(arguments.rounds)]
        ours[name], theirs[name] = [one for one, _ in pairs], [other for _, other in pairs]
        record.add(Figure(OURS, name, "ms", ours[name], less=True))
        record.add(Figure("torch", name, "ms", theirs[name], version=torch.__version__))
    shares = [
        sum(ours[name][i] for name in STEP) / sum(theirs[name][i] for name in STEP) for i in range(arguments.rounds)
    ]
    record.add(Figure(OURS, "all of a step, of torch's time", "", shares, goal=1.2, less=True))
    record.write(
        {"median_ratio": {name: statistics.median(ours[name]) / statistics.median(theirs[name]) for name in ours}}
    )


if __name__ == "__main__":
    main()
