"""Hugging Face folders of Llama's form, in exact arithmetic: the same answer, and the same logits to the last bit, on
every machine, in any company, resumed anywhere. Its values commit to the logits.

An adapter is added to the weights: `W + scale * B A`, where B A is an exact product and the rest two rounded binary32
operations. Source: docs/spec/exact-arithmetic.md, section 21.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fallow.errors import fail
from fallow.kinds.generate.tasks import Generate, GenerateValue
from fallow.numerics.exact.cache import Cache
from fallow.numerics.exact.exactify import exactify
from fallow.numerics.exact.format import quantise
from fallow.numerics.exact.generation import GrowingText, Sampling
from fallow.numerics.exact.product import product
from fallow.workloads import lora
from fallow.workloads.batching import Batch
from fallow.workloads.engines import Emit, StopWatch, read_sampling, too_long
from fallow.workloads.model import LoadedModel
from fallow.workloads.shaping import guides_of, open_shaping
from fallow.workloads.speech import Speech, Telling, read_prompt

MAX_CONTEXT_TOKENS = 1 << 17
CACHE_BYTES = 2 << 30
"""What the keys and values of all texts may take, and so a text alone: a constant, since how far a text may go is part
of its answer."""


class ExactEngine:
    """A model on `threads` CPU threads, with up to `parallel` answers in flight."""

    def __init__(
        self, model: LoadedModel, adapter: Path | None, context_tokens: int, parallel: int, threads: int
    ) -> None:
        """Takes the model over: its matrices are kept as grids, half as large, and their fp32 is given back. Errors:
        UsageError E1709, before anything was changed, when the model has no exact form; E1701 when the adapter is
        none."""
        exact = exactify(model.network, {})
        if not exact.blocks:
            raise fail("E1709", "A model without layers has no exact form.")
        if adapter is not None:
            lora.merge_adapter(model.network, adapter, exact_product)
        exact.keep_grids()
        self._tokenizer, self._ends = model.tokenizer, model.ends
        self._guides = guides_of(model)
        room = CACHE_BYTES // (len(exact.blocks) * Cache.token_bytes(exact.heads))
        limit = min(model.context_tokens, MAX_CONTEXT_TOKENS, room)
        self.context_tokens = min(context_tokens, limit) if context_tokens else limit
        self._batch = Batch(exact, threads, parallel, room)

    def answer(self, request: Generate, seed: int, emit: Emit) -> GenerateValue:
        """`emit` is called from the thread of the batch."""
        sampling = read_sampling(request)
        prompt, given = read_prompt(self._tokenizer, request)
        room = self.context_tokens - len(prompt)
        if room < 1:
            raise too_long(len(prompt), self.context_tokens)
        limit = min(request.max_tokens, room) if request.max_tokens else room
        shaping = open_shaping(self._guides, request, sampling, given)
        speech = Speech(self._tokenizer, prompt, StopWatch(request.stop))
        telling = Telling(speech, len(prompt), self._ends, limit, emit, shaping)
        text = GrowingText(prompt, Sampling(sampling.temperature, sampling.top_p, seed=seed), shaping)
        if not telling.over:
            self._batch.run(text, len(prompt) + limit, telling.take, lambda: emit(""))
        return telling.value(text.logits_hash())


def exact_product(up: Tensor, down: Tensor) -> Tensor:
    """The product of (n, rank) and (rank, k) matrices, both put on grids along rank."""
    return product(quantise(up), quantise(down.mT.contiguous()))
