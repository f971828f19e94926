"""What a worker must be given to train: memory and time, reckoned from the model and the recipe.

The figures are upper bounds for the machines we measured on (`benchmarks/worker_memory.py` holds them to it), reckoned
from sizes that the job's owner says. What is said falsely harms the owner alone: too little, and the tasks run out of
memory or time and are not paid; too much, and fewer machines fit and ask for more. Does not count: the memory of cards,
and pages of files that are mapped, which the system can drop.
"""

from __future__ import annotations

from fallow.kinds.kind import BASE_BYTES, FP32, INT16, READ_BYTES_PER_S, grains
from fallow.kinds.train.trace import cut_for
from fallow.units import MIB
from fallow.wire.local import ModelSize
from fallow.wire.tasks import Recipe

WRITTEN_BYTES = 16
"""For each trained number, to disk: an update, a checkpoint, and the drafts of both."""
EXACT_BASE_BYTES = 192 * MIB
"""What exact arithmetic takes beyond that, whatever the model: room to put numbers on grids and to sum products in."""
INT64 = 8
TOKEN_BYTES = 16
"""What a token of the data takes while it is laid out in rows; a token has at least a byte."""
MOST_STEPS_CUT = 512
"""How a longer round is cut takes too long to find out here."""
START_S = 900
"""What every task may take beside reading and computing."""
MOST_S = 7 * 24 * 3_600
SLOW_FLOPS = 10_000_000_000
"""Of a machine that is slow and not yet broken: SmolLM2-135M with LoRA ran at eighteen times that on two cores."""
FLOPS_PER_PARAMETER = 8
"""A token trained on: two for each parameter on the way there, four on the way back, and the rest for attention."""


def train_s(recipe: Recipe, size: ModelSize, units: int) -> int:
    """How long a task of `units` may take, fetching and loading included."""
    attention = 12 * size.layers * size.width * recipe.sequence_tokens
    flops = units * (FLOPS_PER_PARAMETER * size.parameters + attention)
    return min(START_S + size.stored_bytes // READ_BYTES_PER_S + flops // SLOW_FLOPS, MOST_S)


def train_bytes(recipe: Recipe, size: ModelSize, data_bytes: int) -> int:
    """The weights; what is kept for each trained number; what a step of a batch holds at its widest; the tokens."""
    weights = size.parameters * (FP32 + (INT16 if recipe.exact else 0))
    step = _sequences_at_once(recipe, size) * recipe.sequence_tokens * _token_bytes(recipe, size)
    # the head's matrix is there once more while its products are summed
    exact = EXACT_BASE_BYTES + INT64 * size.vocabulary * size.width if recipe.exact else 0
    return grains(BASE_BYTES + weights + exact + size.trained * _state_width(recipe) + step + TOKEN_BYTES * data_bytes)


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
