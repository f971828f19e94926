"""How near the gradients of exact training are to the truth, tensor by tensor, beside torch's fp32 and bf16.

`python benchmarks/exact_gradients.py tiny` and `small` take every parameter of a random model, `smol` the LoRA matrices
of SmolLM2-135M (those that start at zero are given small numbers, since else half of the gradients are zero). The
truth is float64 autograd of the transformers model on the same parameters and text; bf16 is torch's autocast. Writes
`results/exact_gradients_SUBJECT.json`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from _record import OURS, ROOT, Figure, Record
from exact_equality import SUBJECTS, converted, small_network
from fallow.numerics.exact.exactify import exactify
from fallow.numerics.exact.training import gradients_of
from fallow.workloads import lora
from fallow.workloads.model import load_model

TEXT = ROOT / "src" / "fallow" / "cli" / "demo_data" / "text.txt"
Found = dict[str, Tensor]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--model", default="", help="SmolLM2-135M as a Hugging Face folder (converted when absent)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    record = Record(
        __file__, "every tensor's exact gradient is nearer to float64 autograd's than torch's bf16 autocast's"
    )
    network, trained, tokens = start(options.subject, options.model)
    arms = {
        OURS: gradients_of(exactify(network, trained), tokens).means(),
        "torch fp32": autograd(network, trained, tokens),
        "torch bf16": autograd(network, trained, tokens, torch.autocast("cpu", torch.bfloat16)),
    }
    network.double()
    truth = autograd(network, trained, tokens)
    errors = {who: {name: distance(found[name], truth[name]) for name in truth} for who, found in arms.items()}
    cosines = {who: {name: cosine(found[name], truth[name]) for name in truth} for who, found in arms.items()}
    for who, found in arms.items():
        version = "" if who == OURS else torch.__version__
        whole = distance(joined(found, truth), joined(truth, truth))
        record.add(Figure(who, f"{options.subject}: relative error, whole gradient", "", [whole], version=version))
        each = list(errors[who].values())
        record.add(Figure(who, f"{options.subject}: relative error, a tensor", "", each, version=version))
        worst = [1.0 - min(cosines[who].values())]
        record.add(Figure(who, f"{options.subject}: 1 - cosine, the worst tensor", "", worst, version=version))
    ratio = max(errors[OURS][name] / errors["torch bf16"][name] for name in truth)
    what = f"{options.subject}: error of a tensor, times bf16's, at most"
    record.add(Figure(OURS, what, "times", [ratio], goal=1.0, less=True))
    record.write({"errors": errors, "cosines": cosines}, f"exact_gradients_{options.subject}")
    return 0


def start(subject: str, folder: str) -> tuple[Any, Found, Tensor]:
    """-> the transformers model, the parameters to take gradients of, and a batch of text."""
    sequences, length = SUBJECTS[subject]
    text = TEXT.read_text("utf-8")
    if subject != "smol":
        network = small_network(tiny=subject == "tiny")
        stream, trained = list(text.encode()), dict(network.named_parameters())
    else:
        loaded = load_model(Path(folder or converted()))
        network = loaded.network
        stream = loaded.tokenizer(text[:10_000])["input_ids"]
        trained = lora.inject(network, ("q_proj", "v_proj"), 8, 16)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in sorted(trained.items()):
                if "lora_B" in name:
                    words = torch.randint(-(1 << 20), 1 << 20, parameter.shape, generator=generator)
                    parameter.copy_(words.float() * (0.01 / (1 << 20)))
    return network, dict(trained), torch.tensor(stream[: sequences * length]).view(sequences, length)


def autograd(
    network: Any, trained: Mapping[str, Tensor], tokens: Tensor, how: AbstractContextManager[Any] | None = None
) -> Found:
    """The gradients of the mean loss by torch, as float64."""
    with how or nullcontext():
        logits = network(input_ids=tokens, use_cache=False).logits[:, :-1].reshape(-1, network.config.vocab_size)
    if logits.dtype == torch.bfloat16:
        logits = logits.float()
    loss = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].reshape(-1))
    grads = torch.autograd.grad(loss, list(trained.values()))
    return {name: grad.double() for name, grad in zip(trained, grads, strict=True)}


def joined(found: Found, order: Found) -> Tensor:
    return torch.cat([found[name].double().flatten() for name in order])


def distance(found: Tensor, true: Tensor) -> float:
    """Relative to the norm of the truth."""
    return float((found.double() - true).norm() / true.norm())


def cosine(found: Tensor, true: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(found.double().flatten(), true.flatten(), dim=0))


if __name__ == "__main__":
    sys.exit(main())
