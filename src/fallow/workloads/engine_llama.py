"""GGUF models by llama.cpp, in this process: continuous batching over several threads of ours, tokens by callback.

llama.cpp also opens an HTTP port on the loopback interface, which we do not use; it is locked with a random key.

Greedy answers are the same whether a stream runs alone or beside others (0 of 30 answers of 64 tokens differed). With a
temperature, equal seeds repeat an answer, but an answer that is resumed continues with other draws than one that was
never cut, since llama.cpp's generator is not indexed by position.

A guide is followed by llama.cpp's own llguidance, an older one, which goes on without any form where it cannot read a
grammar. So the grammar is read by ours first, and what llama.cpp says is followed by ours too before it is told. An
answer with a guide that is resumed is made again from its beginning, and where that comes out otherwise, it ends.
Penalties count the prompt's tokens too.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, cast

import msgspec
import xllamacpp as _xllamacpp

from fallow.errors import FallowError, fail
from fallow.kinds.generate.tasks import CANCELLED, Generate, GenerateValue
from fallow.workloads.engines import Emit, read_sampling, split_opening, too_long
from fallow.workloads.guide import BYTE_TOKENS, Guide, Guides, from_bytes, grammar_of
from fallow.workloads.model_files import not_a_model
from fallow.workloads.tools import read_messages, read_tools, without_tools

xllamacpp: Any = _xllamacpp  # a compiled module without types
DEFAULT_CONTEXT_TOKENS = 2048
MAX_SEED = 0xFFFFFFFF  # means "random" to llama.cpp


class LlamaEngine:
    """One GGUF model with `parallel` slots of `context_tokens` each, working on `threads` CPU threads."""

    def __init__(self, file: Path, context_tokens: int, parallel: int, threads: int) -> None:
        """Load the model. Errors: UsageError E1701 when llama.cpp cannot."""
        self.context_tokens = context_tokens or DEFAULT_CONTEXT_TOKENS
        settings: Any = xllamacpp.CommonParams()
        settings.model.path = str(file)
        settings.n_parallel = parallel
        settings.n_ctx = self.context_tokens * parallel
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = max(1, threads)
        settings.hostnames, settings.port = ["127.0.0.1"], 0
        settings.api_keys = [f"{random.SystemRandom().getrandbits(128):032x}"]
        settings.ui = False
        settings.verbosity = -1
        self._guides = Guides(from_bytes, BYTE_TOKENS)
        try:
            self._server: Any = xllamacpp.Server(settings)
        except (RuntimeError, ValueError, OSError) as error:
            raise not_a_model(file.name, f"llama.cpp cannot load it ({error})") from error
        # A server that is dropped before its loop has begun hangs forever in its destructor (seen in 2 of 6 tries with
        # xllamacpp 2026.10.11549). One token later the loop is certainly running, and the model known to work.
        self._server.handle_completions({"prompt": "a", "max_tokens": 1, "cache_prompt": False}, lambda _: False)

    def answer(self, request: Generate, seed: int, emit: Emit) -> GenerateValue:
        sampling = read_sampling(request)
        again = request.resume if request.guide else ""
        guide = self._guides.open(msgspec.structs.replace(request, resume=""))
        asked: dict[str, Any] = {
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": request.max_tokens + len(again.encode()) if request.max_tokens else -1,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "return_progress": True,  # tells the prompt's tokens before the end, which a cancelled answer has not
            # Whatever llama.cpp would add of its own is switched off: the request says what is sampled from. Where only
            # the likeliest token can be chosen, the samplers are spared the rest of the vocabulary.
            "top_k": 0 if sampling.temperature else 1,
            "min_p": 0.0,
            "seed": seed % MAX_SEED,
            "stop": list(request.stop),
            "repeat_last_n": self.context_tokens,
            "repeat_penalty": 1.0,
            "frequency_penalty": sampling.frequency_penalty,
            "presence_penalty": sampling.presence_penalty,
            "logit_bias": [[token, hundredths / 100] for token, hundredths in request.bias],
        }
        if guide is not None:
            asked["grammar"] = f"%llguidance {{}}\n{grammar_of(request)}"
        hearing = _Hearing(emit, guide, again, request.max_tokens)
        given = "" if again else request.resume
        if request.turns:
            turns, opening = split_opening(request)
            messages = without_tools(read_messages(turns), read_tools(request.tools))
            if opening + given:
                messages.append({"role": "assistant", "content": opening + given})
            self._server.handle_chat_completions({**asked, "messages": messages}, hearing.on_chunk)
        else:
            self._server.handle_completions({**asked, "prompt": request.prompt + given}, hearing.on_chunk)
        return hearing.value(self.context_tokens)


class _Hearing:
    """Collects what llama.cpp says about one request. Its callback must not raise, so errors wait for `value`.
    `again` is what was told before and is said again first; of what comes after it, at most `limit` tokens (0: no
    limit) are wanted."""

    def __init__(self, emit: Emit, guide: Guide | None, again: str, limit: int) -> None:
        self._emit, self._guide, self._again, self._limit = emit, guide, again, limit
        self._repeated = self._reread = self._made = 0
        self._refused: FallowError | None = None
        self._pieces: list[str] = []
        self._finish = ""
        self._usage: dict[str, Any] = {}
        self._prompt_tokens = 0
        self._error: dict[str, Any] | None = None
        self._unwanted = False

    def on_chunk(self, chunk: Any) -> bool:
        """Take one chunk; returns True to make llama.cpp stop."""
        if "error" in chunk:
            self._error = cast(dict[str, Any], chunk["error"])
            return True
        self._usage = chunk.get("usage") or self._usage
        if "prompt_progress" in chunk:
            self._prompt_tokens = int(chunk["prompt_progress"]["total"])
        for choice in chunk.get("choices") or ():
            piece = choice["delta"].get("content") if "delta" in choice else choice.get("text")
            self._finish = choice.get("finish_reason") or self._finish
            if piece:
                self._hear(piece)
        return self._unwanted or self._refused is not None or self._full

    @property
    def _full(self) -> bool:
        """As many tokens came after what was said again as are wanted."""
        return bool(self._again and self._limit) and self._made >= self._limit

    def _hear(self, piece: str) -> None:
        if self._guide is not None and not self._guide.take_text(piece):
            self._refused = fail("E1904", "llama.cpp cannot follow this guide.")
            return
        if left := self._again[self._repeated :]:
            said, piece = piece[: len(left)], piece[len(left) :]
            self._repeated, self._reread = self._repeated + len(said), self._reread + 1
            if not left.startswith(said):
                self._refused = fail("E1904", "Made again here, the answer does not begin as it did elsewhere.")
            if not piece:
                return
        self._made += 1
        self._pieces.append(piece)
        self._unwanted = not self._emit(piece)

    def value(self, context_tokens: int) -> GenerateValue:
        if self._unwanted:
            return GenerateValue("".join(self._pieces), CANCELLED, self._prompt_tokens, len(self._pieces))
        if self._refused is not None:
            raise self._refused
        if self._full:
            return GenerateValue("".join(self._pieces), "length", self._prompt_tokens + self._reread, self._made)
        if self._error is not None:
            raise _refused(self._error, context_tokens)
        if not self._finish:
            raise fail("E9001", "llama.cpp ended an answer without saying why.")
        made, read = int(self._usage.get("completion_tokens", 0)), int(self._usage.get("prompt_tokens", 0))
        if self._again:  # what was said again is charged as read
            made, read = self._made, read + made - self._made
        return GenerateValue("".join(self._pieces), "length" if self._finish == "length" else "stop", read, made)


def _refused(error: dict[str, Any], context_tokens: int) -> FallowError:
    if error.get("type") == "exceed_context_size_error":
        return too_long(int(error.get("n_prompt_tokens", 0)), context_tokens)
    return fail("E1904", f"The model refuses the request: {str(error.get('message', ''))[:300]}.")
