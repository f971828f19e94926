"""Hugging Face folders whose models have no exact form, by transformers: our own decoding loop over a key-value cache,
an adapter merged into the weights.

Each stream is computed alone (batch 1, the prompt in pieces of fixed length), and streams take turns token by token. So
an answer's bits do not depend on what else runs, and sampling draws by position: equal requests give equal answers.
"""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from blake3 import blake3
from transformers import DynamicCache

from fallow.errors import fail
from fallow.kinds.generate.tasks import Generate, GenerateValue
from fallow.workloads import lora
from fallow.workloads.engines import Emit, SamplingSettings, StopWatch, read_sampling, too_long
from fallow.workloads.model import LoadedModel, be_reproducible
from fallow.workloads.shaping import guides_of, open_shaping
from fallow.workloads.speech import Speech, Telling, read_prompt

Logits = npt.NDArray[np.float32]
PIECE_TOKENS = 256
"""How much of a prompt is read in one turn; part of what makes results comparable."""
MAX_CONTEXT_TOKENS = 1 << 17


class TorchEngine:
    """A model in fp32 on `threads` CPU threads."""

    def __init__(self, model: LoadedModel, adapter: Path | None, context_tokens: int, threads: int) -> None:
        """Merge the adapter into the model. Errors: UsageError E1701 when it is none."""
        be_reproducible(threads)
        self._threads = threads
        self._model = model
        if adapter is not None:
            lora.merge_adapter(self._model.network, adapter)
        limit = min(self._model.context_tokens, MAX_CONTEXT_TOKENS)
        self.context_tokens = min(context_tokens, limit) if context_tokens else limit
        self._guides = guides_of(model)
        self._turn = Turns()

    def answer(self, request: Generate, seed: int, emit: Emit) -> GenerateValue:
        sampling = read_sampling(request)
        prompt, given = read_prompt(self._model.tokenizer, request)
        room = self.context_tokens - len(prompt)
        if room < 1:
            raise too_long(len(prompt), self.context_tokens)
        limit = min(request.max_tokens, room) if request.max_tokens else room
        shaping = open_shaping(self._guides, request, sampling, given)
        speech = Speech(self._model.tokenizer, prompt, StopWatch(request.stop))
        telling = Telling(speech, len(prompt), self._model.ends, limit, emit, shaping)
        logits, cache = self._read(prompt, emit)
        position = len(prompt)
        while not telling.over:
            token = choose(shaping.shaped(torch.from_numpy(logits)).numpy(), sampling, seed, position)
            shaping.take(token)
            if telling.take(token):
                logits, position = self._forward([token], cache), position + 1
        return telling.value()

    def _read(self, prompt: list[int], emit: Emit) -> tuple[Logits, DynamicCache]:
        """Run the prompt through the model; returns the logits after its last token."""
        cache, logits = DynamicCache(config=self._model.network.config), np.zeros(0, dtype=np.float32)
        for start in range(0, len(prompt), PIECE_TOKENS):
            if not emit(""):
                raise fail("E1402", "The answer was cancelled.")
            logits = self._forward(prompt[start : start + PIECE_TOKENS], cache)
        return logits, cache

    @torch.inference_mode()
    def _forward(self, tokens: list[int], cache: DynamicCache) -> Logits:
        with self._turn:
            torch.set_num_threads(self._threads)  # each of Python's threads has a count of its own
            found = self._model.network(
                input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            return cast(Logits, found.logits[0, -1].numpy())


def choose(logits: Logits, sampling: SamplingSettings, seed: int, position: int) -> int:
    """The next token after `logits` (vocabulary, fp32). With a temperature: the draw is a hash of `seed` and `position`
    (the token's place in prompt and answer), so that an answer that is cut and resumed elsewhere goes on the same
    way."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    wide = logits.astype(np.float64) / sampling.temperature
    weights = np.exp(wide - wide.max())
    order = np.argsort(-weights, kind="stable")
    sums = np.cumsum(weights[order])
    kept = min(int(np.searchsorted(sums, sampling.top_p * sums[-1], side="left")) + 1, len(sums))
    draw = blake3(f"fallow draw 1|{seed}|{position}".encode()).digest(length=8)
    mark = int.from_bytes(draw, "big") / 2.0**64 * sums[kept - 1]
    return int(order[min(int(np.searchsorted(sums, mark, side="right")), kept - 1)])


class Turns:
    """A lock that serves in order of asking, so that of several streams none waits for more than one turn of each."""

    def __init__(self) -> None:
        self._waiting: deque[threading.Event] = deque()
        self._guard = threading.Lock()

    def __enter__(self) -> None:
        mine = threading.Event()
        with self._guard:
            self._waiting.append(mine)
            first = self._waiting[0] is mine
        if not first:
            mine.wait()

    def __exit__(self, *_: object) -> None:
        with self._guard:
            self._waiting.popleft()
            if self._waiting:
                self._waiting[0].set()
