"""What a worker must be given for a job's work, reckoned from the model, the recipe and the context: memory, and time.

The figures are upper bounds for the machines we measured on (`benchmarks/worker_memory.py` holds them to it), reckoned
from sizes that the job's owner says. What is said falsely harms the owner alone: too little, and the tasks run out of
memory or time and are not paid; too much, and fewer machines fit and ask for more. Work of which nothing is said gets
what its kind always got. Pure.

Does not count: the memory of cards, and pages of files that are mapped, which the system can drop.
"""

from __future__ import annotations

from fallow.kinds.train.trace import cut_for
from fallow.units import GIB, MIB
from fallow.wire.local import ModelSize, ServeJob, TrainJob, Work
from fallow.wire.tasks import Recipe

RAM_BYTES = {"echo": 256 * MIB, "generate": 2 * GIB, "train": 3 * GIB}
"""What a worker of a kind is given where nothing is known of the model."""
DEFAULT_RAM_BYTES = GIB
TIMEOUT_S = {"echo": 60, "generate": 900, "train": 3_600}
DEFAULT_TIMEOUT_S = 900
"""What a task of a kind may take at least."""

BASE_BYTES = 400 * MIB
"""Python with the tensor libraries and a tokenizer."""
EXACT_BASE_BYTES = 192 * MIB
"""What exact arithmetic takes beyond that, whatever the model: room to put numbers on grids and to sum products in."""
LLAMA_BASE_BYTES = 320 * MIB
GRAIN_BYTES = 64 * MIB
MOST_BYTES = 1 << 50
FP32, INT16, INT64 = 4, 2, 8
MOST_STEPS_CUT = 512
"""How a longer round is cut takes too long to find out here."""
STREAMS = 4
"""How many answers a provider works on side by side (`node/provider/lanes.py`)."""
PIECE_TOKENS = 512
"""How much of a prompt is read at a time, at most."""
MOST_S = 7 * 24 * 3_600
READ_BYTES_PER_S = 1_000_000
"""At which a model is reckoned to be fetched: a home's line of 8 Mbit/s."""
SLOW_FLOPS = 10_000_000_000
"""Of a machine that is slow and not yet broken: SmolLM2-135M with LoRA ran at eighteen times that on two cores."""
FLOPS_PER_PARAMETER = 8
"""A token trained on: two for each parameter on the way there, four on the way back, and the rest for attention."""


def ram_bytes(work: Work, kind: str) -> int:
    """What each provider of the job is asked for. Never more than MOST_BYTES, whatever was said."""
    if isinstance(work, TrainJob) and work.size.parameters:
        need = _train_bytes(work.recipe, work.size, work.data_bytes)
    elif isinstance(work, ServeJob) and work.size.stored_bytes:
        need = _serve_bytes(work.size, work.context_tokens)
    else:
        return RAM_BYTES.get(kind, DEFAULT_RAM_BYTES)
    return min(-(-need // GRAIN_BYTES) * GRAIN_BYTES, MOST_BYTES)


def timeout_s(work: Work, kind: str, units: int) -> int:
    """How long a task of `units` may take, fetching and loading included."""
    least = TIMEOUT_S.get(kind, DEFAULT_TIMEOUT_S)
    if not isinstance(work, TrainJob) or not work.size.parameters:
        return least
    size = work.size
    flops = units * (FLOPS_PER_PARAMETER * size.parameters + _attention_flops(size, work.recipe.sequence_tokens))
    needed = DEFAULT_TIMEOUT_S + size.stored_bytes // READ_BYTES_PER_S + flops // SLOW_FLOPS
    return min(max(least, needed), MOST_S)


def lease_ms(work: Work, kind: str, largest_units: int, usual_ms: int) -> int:
    """A lease's term: the usual one, or as long as two of the job's largest tasks may take."""
    longest_s = timeout_s(work, kind, largest_units)
    return usual_ms if longest_s <= TIMEOUT_S.get(kind, DEFAULT_TIMEOUT_S) else max(usual_ms, 2 * longest_s * 1_000)


def _attention_flops(size: ModelSize, tokens: int) -> int:
    return 12 * size.layers * size.width * tokens


# memory ---------------------------------------------------------------------------------------------------------------


def _train_bytes(recipe: Recipe, size: ModelSize, data_bytes: int) -> int:
    """The weights; what is kept for each trained number; what a step of a batch holds at its widest; the tokens."""
    weights = size.parameters * (FP32 + (INT16 if recipe.exact else 0))
    step = _sequences_at_once(recipe, size) * recipe.sequence_tokens * _token_bytes(recipe, size)
    # the head's matrix is there once more while its products are summed
    exact = EXACT_BASE_BYTES + INT64 * size.vocabulary * size.width if recipe.exact else 0
    return BASE_BYTES + weights + exact + size.trained * _state_width(recipe) + step + INT64 * data_bytes


def _sequences_at_once(recipe: Recipe, size: ModelSize) -> int:
    """A batch; in exact arithmetic the part of it between two sums that are committed to."""
    if not recipe.exact or recipe.inner_steps > MOST_STEPS_CUT:
        return recipe.batch_sequences
    return -(-recipe.batch_sequences // cut_for(recipe, size.trained).units)


def _state_width(recipe: Recipe) -> int:
    """Bytes for each trained number beside the model's own: the shared state with its momentum, the gradient, the two
    moments, and what is on its way to a file; in exact arithmetic the sums of gradients are int64, and states are put
    together to be hashed."""
    shared, moments, gradient = 2 * FP32, 2 * FP32, INT64 + FP32 if recipe.exact else FP32
    start = 2 * FP32 if recipe.method == "lora" else 0
    files = (4 if recipe.exact else 2) * FP32
    return shared + start + moments + gradient + files


def _token_bytes(recipe: Recipe, size: ModelSize) -> int:
    """What a token of the batch holds until the way back: some vectors in each layer, in exact arithmetic also its
    attention to each other token, and its logits several times over."""
    layer = FP32 * (16 * size.width + 6 * size.inner)
    if recipe.exact:
        layer += FP32 * size.heads * recipe.sequence_tokens
    return size.layers * layer + (8 if recipe.exact else 5) * FP32 * size.vocabulary


def _serve_bytes(size: ModelSize, context_tokens: int) -> int:
    token = 2 * size.layers * size.kv_width
    cached = STREAMS * context_tokens
    if not size.parameters:  # a GGUF file, mapped: what llama.cpp packs anew for the processor, and caches in fp16
        return LLAMA_BASE_BYTES + size.stored_bytes + cached * token * INT16 + PIECE_TOKENS * size.vocabulary * FP32
    working = PIECE_TOKENS * (FP32 * (8 * size.width + 4 * size.inner) + FP32 * 3 * size.heads * context_tokens)
    weights = size.parameters * (FP32 + INT16)
    # a cache grows by being copied: for a moment a layer is there twice, and freed pieces of other sizes lie between
    return BASE_BYTES + weights + cached * token * FP32 * 3 // 2 + working + FP32 * size.vocabulary * STREAMS * 4
