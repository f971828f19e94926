"""Continuous batching of exact generation: all texts in flight take their next token in one pass over the model, a new
one joins at the next pass, and prompts are read in pieces beside the others' tokens. Nobody's company changes a bit of
anybody's answer (`numerics/exact/generation.py`), so what is together in a pass is a matter of speed alone.

Defends against: requests that would fill the memory with keys and values (a text waits until what it may need at most
is free), and prompts so long that others would wait for them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from fallow.errors import fail
from fallow.numerics.exact.generation import GrowingText, advance
from fallow.numerics.exact.llama import ExactLlama

PIECE_TOKENS = 256
"""How much of prompts is read in a pass when nobody is waiting for a next token."""
SHARED_PIECE_TOKENS = 64
"""How much when somebody is: about as long as a token of a few texts takes."""


@dataclass(eq=False)
class _Stream:
    """A text on its way. `take` hears each token and says whether another is wanted, `wanted` is asked before the first
    one; both are called on the batch's thread. `most_tokens` is what the text may grow to."""

    text: GrowingText
    most_tokens: int
    take: Callable[[int], bool]
    wanted: Callable[[], bool]
    served: int = 0
    error: Exception | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def reading(self) -> bool:
        return not self.text.made

    @property
    def left(self) -> int:
        """Tokens of the prompt that are still to be read."""
        return len(self.text.tokens) - self.text.read

    def end(self, error: Exception | None = None) -> None:
        self.error = error
        self.text.caches = []
        self.done.set()


class Batch:
    """Texts of one model in flight: at most `streams`, with at most `room_tokens` together. Works on a thread of its
    own, with `threads` CPU threads, for as long as there is something to do."""

    def __init__(self, model: ExactLlama, threads: int, streams: int, room_tokens: int) -> None:
        self._model, self._threads, self._streams, self._room = model, max(1, threads), max(1, streams), room_tokens
        self._guard = threading.Lock()
        self._waiting: deque[_Stream] = deque()
        self._active: list[_Stream] = []
        self._working = False
        self._passes = 0

    def run(self, text: GrowingText, most_tokens: int, take: Callable[[int], bool], wanted: Callable[[], bool]) -> None:
        """Continue `text` until `take`, which is told each new token, returns False. Other threads may be in here too.
        Raises E1402 when `wanted` returns False, which is asked until the prompt is read; and whatever `take` and
        `wanted` raise. `most_tokens` must not be more than the batch's room."""
        stream = _Stream(text, most_tokens, take, wanted)
        with self._guard:
            self._waiting.append(stream)
            if not self._working:
                self._working = True
                # no daemon: a thread that is deep in a library while the interpreter ends aborts the process
                threading.Thread(target=self._work, name="exact batch").start()
        stream.done.wait()
        if stream.error is not None:
            raise stream.error

    def _work(self) -> None:
        torch.set_num_threads(self._threads)  # each of Python's threads has a count of its own
        while self._gather():
            self._pass()

    def _gather(self) -> bool:
        """Let in whoever has room; False when nobody is left."""
        with self._guard:
            self._active = [stream for stream in self._active if not stream.done.is_set()]
            taken = sum(stream.most_tokens for stream in self._active)
            while self._waiting and len(self._active) < self._streams:
                taken += self._waiting[0].most_tokens
                if taken > self._room and self._active:
                    break
                self._active.append(self._waiting.popleft())
            self._working = bool(self._active)
            return self._working

    def _pass(self) -> None:
        for stream in self._active:
            if stream.reading:
                _attempt(stream, _still_wanted)
        active = [stream for stream in self._active if not stream.done.is_set()]
        talking = [stream for stream in active if not stream.reading]
        piece = SHARED_PIECE_TOKENS if talking else PIECE_TOKENS
        company = talking + self._readers([stream for stream in active if stream.reading], piece)
        if not company:
            return
        try:
            advance(self._model, [stream.text for stream in company], piece, mark=True)
        except Exception as error:  # noqa: BLE001 - the task boundary: told to all whose tokens were in the pass
            for stream in company:
                stream.end(error)
            return
        for stream in company:
            if stream.text.made:
                _attempt(stream, _hear)

    def _readers(self, reading: list[_Stream], piece: int) -> list[_Stream]:
        """Whose prompts are read in this pass, `piece` tokens in all: the one that has waited for longest, and others
        that can be read to their end beside it."""
        self._passes += 1
        chosen: list[_Stream] = []
        for stream in sorted(reading, key=lambda stream: stream.served):
            if chosen and stream.left > piece:
                continue
            chosen.append(stream)
            stream.served = self._passes
            piece -= min(piece, stream.left)
        return chosen


def _still_wanted(stream: _Stream) -> bool:
    if not stream.wanted():
        raise fail("E1402", "The answer was cancelled.")
    return True


def _hear(stream: _Stream) -> bool:
    return stream.take(stream.text.tokens[-1])


def _attempt(stream: _Stream, act: Callable[[_Stream], bool]) -> None:
    """Do `act`; the stream ends when it returns False or raises."""
    try:
        if not act(stream):
            stream.end()
    except Exception as error:  # noqa: BLE001 - the task boundary: raised again where the answer is waited for
        stream.end(error)
