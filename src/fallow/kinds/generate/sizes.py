"""How much a request can be, and what a worker must be given to answer: memory, reckoned from the model and the
context. As good as what is said of the model, and as in `kinds/train/sizes.py` held to what was measured."""

from __future__ import annotations

from fallow.kinds.generate.tasks import Generate
from fallow.kinds.kind import BASE_BYTES, FP32, INT16, grains
from fallow.units import MIB
from fallow.wire.local import ModelSize

LLAMA_BASE_BYTES = 320 * MIB
STREAMS = 4
"""How many answers a provider works on side by side (`node/provider/lanes.py`)."""
PIECE_TOKENS = 512
"""How much of a prompt is read at a time, at most."""

TURN_TOKENS = 64
"""What a chat template may add to a turn, beyond one token for each byte of it."""
TOOLS_TOKENS, TOOLS_FACTOR = 1_024, 4
"""What it may add to tools: how calls are made, and the blanks that it lays their schemas out with."""


def said_bytes(asked: Generate) -> int:
    """How much was said to the model."""
    turns = sum(len((turn.content + turn.more).encode()) for turn in asked.turns)
    return turns + len((asked.prompt + asked.resume + asked.tools).encode())


def most_read(asked: Generate) -> int:
    """The most tokens that a prompt can be: no tokenizer in use makes more than one token of a byte. An engine refuses
    what its template makes more of."""
    laid_out = TOOLS_TOKENS + TOOLS_FACTOR * len(asked.tools.encode()) if asked.tools else 0
    laid_out += sum(len(turn.more.encode()) for turn in asked.turns)
    return said_bytes(asked) + laid_out + TURN_TOKENS * (len(asked.turns) + 1)


def serve_bytes(size: ModelSize, context_tokens: int) -> int:
    """What a worker holds that serves with this context, all its streams full."""
    token = 2 * size.layers * size.kv_width
    cached = STREAMS * context_tokens
    if not size.parameters:  # a GGUF file, mapped: what llama.cpp packs anew for the processor, and caches in fp16
        packed = LLAMA_BASE_BYTES + size.stored_bytes
        return grains(packed + cached * token * INT16 + PIECE_TOKENS * size.vocabulary * FP32)
    working = PIECE_TOKENS * (FP32 * (8 * size.width + 4 * size.inner) + FP32 * 3 * size.heads * context_tokens)
    weights = size.parameters * (FP32 + INT16)
    # a cache grows by being copied: for a moment a layer is there twice, and freed pieces of other sizes lie between
    caches = cached * token * FP32 * 3 // 2
    return grains(BASE_BYTES + weights + caches + working + FP32 * size.vocabulary * STREAMS * 4)
