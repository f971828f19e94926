"""Answers of language models are done again whole: the same tokens from the same logits, or they are false."""

from __future__ import annotations

import msgspec

from fallow.kinds.generate.tasks import CANCELLED, Generate, GenerateValue
from fallow.kinds.replay import (
    ClaimedWork,
    Difference,
    LinkDraw,
    NoReplay,
    Piece,
    Replay,
    ReplayPlan,
    Report,
    Shortened,
)
from fallow.units import GIB
from fallow.wire import codec
from fallow.wire.messages import EXACT
from fallow.wire.tasks import MAX_PARAMS_BYTES, MAX_VALUE_BYTES


class GenerateReplay(Replay):
    """A receipt does not say how large its model is."""

    def plan(self, claimed: ClaimedWork, draw: LinkDraw) -> ReplayPlan | NoReplay:
        task, output, numerics, lane = claimed
        asked = codec.decode(Generate, task.params, MAX_PARAMS_BYTES)
        value = codec.decode(GenerateValue, output.value, MAX_VALUE_BYTES)
        if value.finish == CANCELLED:
            return NoReplay("E1504", "The answer was cut short by whoever asked, and where depends on the moment.")
        if not value.logits and numerics in ("", EXACT):
            what = "The answer came from an engine whose bits differ between machines (a GGUF file's, or fp32)."
            return NoReplay("E1504", what, "fallow serve FOLDER   # a model folder of Llama's form is answered exactly")
        made, tokens = value.completion_tokens, value.prompt_tokens + value.completion_tokens
        named, shortened = not lane or any(part.name == "model" for part in task.inputs), None
        if lane and value.finish == "length" and made != asked.max_tokens:
            params = codec.encode(msgspec.structs.replace(asked, max_tokens=made))
            untold = f"that it had to end after {made:,} tokens: ask your node, which knows"
            shortened = Shortened(msgspec.structs.replace(task, params=params), tokens, untold)
        where, words = EXACT if value.logits else numerics, _words(value, named=named)
        return ReplayPlan((Piece(task, output),), where, tokens, words, 0, named, shortened)

    def compared(self, piece: Piece, value: bytes) -> list[Difference]:
        claimed, mine = (codec.decode(GenerateValue, one, MAX_VALUE_BYTES) for one in (piece.expected.value, value))
        fields = ("text", "finish", "prompt_tokens", "completion_tokens", "logits")
        return [
            Difference(f"the answer's {field}", _shown(getattr(claimed, field)), _shown(getattr(mine, field)))
            for field in fields
        ]

    def ram_bytes(self, model_bytes: int) -> int:
        """A file of 16-bit numbers is twice as large when it is loaded, and for a while on grids too."""
        return GIB + 4 * model_bytes


def _words(value: GenerateValue, *, named: bool) -> Report:
    what = f"{value.prompt_tokens:,} tokens read, {value.completion_tokens:,} made"
    redone = f"the whole answer: {what}{', with the logits of each' if value.logits else ''}"
    rest = () if named else ("that this was the model: the receipt of a streamed answer does not name it",)
    proves = "The model gives exactly this answer to this prompt with this seed."
    return Report(redone, (*rest, "whether the answer is true or the model any good"), proves, {})


def _shown(value: str | int | bytes) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)[:4_000]
