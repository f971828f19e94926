"""What a worker must be given to answer: memory, reckoned from the model and the context. As good as what is said of
the model, and as in `kinds/train/sizes.py` held to what was measured."""

from __future__ import annotations

from fallow.kinds.kind import BASE_BYTES, FP32, INT16, grains
from fallow.units import MIB
from fallow.wire.local import ModelSize

LLAMA_BASE_BYTES = 320 * MIB
STREAMS = 4
"""How many answers a provider works on side by side (`node/provider/lanes.py`)."""
PIECE_TOKENS = 512
"""How much of a prompt is read at a time, at most."""


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
