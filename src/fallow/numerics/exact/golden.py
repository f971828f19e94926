"""The golden self-test: a few results of exact arithmetic that were computed once and must come out the same
everywhere.

`python -m fallow.numerics.exact.golden` prints what differs, one name a line, and nothing when all is well. A provider
that does not reproduce them is not offered exact work. It is no proof (the vectors of `docs/spec` test each operator,
the audits every claim), but it finds a broken library, a miscompiled kernel or a processor that flushes subnormals,
before anybody's stake does."""

from __future__ import annotations

import sys

import torch
from blake3 import blake3
from torch import Tensor

from fallow.numerics.exact import draws
from fallow.numerics.exact.attention import Heads
from fallow.numerics.exact.blocks import Attention, Block, Gated, Norm
from fallow.numerics.exact.format import quantise
from fallow.numerics.exact.generation import GrowingText, Sampling, generate
from fallow.numerics.exact.linear import Affine, Weight
from fallow.numerics.exact.llama import ExactLlama
from fallow.numerics.exact.optimizers import ExactSchedule
from fallow.numerics.exact.rotary import frequencies
from fallow.numerics.exact.training import Rules, Trainer
from fallow.numerics.fingerprint import tensors_hash

VOCABULARY, WIDTH, INNER, HEADS = 96, 48, 80, Heads(4, 2, 12)
EXPECTED: dict[str, str] = {
    "product": "aba4306a3bc8f6c72cf02716e550b6520089bd2b93f3f9ca2f3179704daf3546",
    "subnormals": "740937716db26c07f970aeb1612e5f51ce13f66f14356175f4d3a38e53242477",
    "training": "73c2524faddc056ff1d5199218d66b05fd05cf1faebc1eb873eee9d31bf12664",
    "loss": "afa7d918a45950b45d87daaec78b49e7a32abc08226c3d43de81102d32d48cec",
    "greedy": "8da1f754888d83c12cf8ec2b277e2a53584cfe6656d9151ecc678687c3553a23",
    "drawn": "be8fbd5c4e5c9d25252ec04ac23f4ff76e4163b2a4389422b4089718c2276eb5",
}
"""BLAKE3, as hexadecimal digits."""


def computed() -> dict[str, str]:
    """The same on this machine. Takes less than a second."""
    found = {"product": _product(), "subnormals": _subnormals()}
    trainer = Trainer(_model(), Rules(ExactSchedule(0.01, 1, 4), decay=0.1, clip_norm=0.5))
    losses = [trainer.train([_tokens(step, 3, 40)]) for step in range(3)]
    found["training"] = trainer.state_hash().hex()
    found["loss"] = tensors_hash({"loss": torch.tensor(losses, dtype=torch.float64).numpy()}).hex()
    greedy, drawn = GrowingText([1, 2, 3]), GrowingText([5, 4], Sampling(0.8, 0.9, 20, 7))
    generate(trainer.model, [greedy, drawn], 12, mark=True)
    for name, text in (("greedy", greedy), ("drawn", drawn)):
        tokens = torch.tensor(text.tokens).numpy()
        found[name] = blake3(tensors_hash({"tokens": tokens}) + text.logits_hash()).hexdigest()
    return found


def differing() -> list[str]:
    """The names of what does not come out as it should."""
    found = computed()
    return [name for name in sorted(EXPECTED) if found.get(name) != EXPECTED[name]]


def _product() -> str:
    layer = Affine(Weight(_values(1, 300, 517)))
    out, _ = layer.forward(quantise(_values(2, 1, 70, 517)))
    return tensors_hash({"out": out.numpy()}).hex()


def _subnormals() -> str:
    tiny = _values(3, 64) * 2.0**-126
    return tensors_hash({"half": (tiny * 0.5).numpy(), "sum": (tiny * 0.25 + tiny * 0.125).numpy()}).hex()


def _model() -> ExactLlama:
    """Two layers with weights from the counter-based generator; everything is trained."""
    trainable: dict[str, Tensor] = {}

    def weight(name: str, *shape: int) -> Weight:
        trainable[name] = _values(100 + len(trainable), *shape) * 0.25
        return Weight(trainable[name], name)

    def norm(name: str) -> Norm:
        trainable[name] = 1.0 + _values(100 + len(trainable), WIDTH) * 0.125
        return Norm(trainable[name], 1e-5, name)

    def linear(name: str, outputs: int, inputs: int) -> Affine:
        return Affine(weight(name, outputs, inputs))

    embedding = weight("embedding", VOCABULARY, WIDTH)
    blocks: list[Block] = []
    for at in range(2):
        wide, narrow = HEADS.queries * HEADS.size, HEADS.keys * HEADS.size
        attention = Attention(
            norm(f"{at}.norm"), linear(f"{at}.q", wide, WIDTH), linear(f"{at}.k", narrow, WIDTH),
            linear(f"{at}.v", narrow, WIDTH), linear(f"{at}.o", WIDTH, wide), HEADS,
        )  # fmt: skip
        gate, up = linear(f"{at}.gate", INNER, WIDTH), linear(f"{at}.up", INNER, WIDTH)
        gated = Gated(norm(f"{at}.inner"), gate, up, linear(f"{at}.down", WIDTH, INNER))
        blocks.append(Block(attention, gated))
    last, head = norm("last"), Affine(embedding)
    return ExactLlama(embedding, blocks, last, head, HEADS, frequencies(HEADS.size, 10_000.0), trainable)


def _values(stream: int, *shape: int) -> Tensor:
    """Reproducible numbers between -1 and 1, fp32."""
    count = int(torch.tensor(shape).prod())
    return (draws.uniform(2026, stream, 0, torch.arange(count)) * 2.0 - 1.0).view(shape)


def _tokens(step: int, sequences: int, length: int) -> Tensor:
    count = sequences * length
    return (draws.uniform(2026, 50, step, torch.arange(count)) * VOCABULARY).long().view(sequences, length)


def main() -> int:
    """Print what differs; -> exit code 0 when nothing does."""
    names = differing()
    sys.stdout.write("".join(f"{name}\n" for name in names))
    return 1 if names else 0


if __name__ == "__main__":
    raise SystemExit(main())
