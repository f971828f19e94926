"""Answers of language models: whole, or streamed on lanes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fallow.errors import FallowError, fail
from fallow.kinds.generate.replay import GenerateReplay
from fallow.kinds.generate.sizes import TURN_TOKENS, most_read, said_bytes, serve_bytes
from fallow.kinds.generate.tasks import CANCELLED, ChatTurn, Generate, GenerateValue
from fallow.kinds.kind import LLAMA, TENSORS, Input, Kind, Setting, text_of
from fallow.kinds.lane import Asked, LaneSide
from fallow.units import GIB
from fallow.wire.codec import decode, encode, recall
from fallow.wire.local import LaneJob, ServeJob, Work
from fallow.wire.tasks import MAX_PARAMS_BYTES, MAX_VALUE_BYTES, TaskOutput, TaskSpec

LANE_UNITS = 2_048
"""Tokens that a task is reckoned with where only its limit is known."""
REFERENCE_PARAMETERS = 135_000_000
"""Speeds are told for a language model of this size."""
FLOPS_A_PARAMETER = 2


class GenerateLane(LaneSide):
    """Streams of text. A unit is a token that was read or made."""

    program = "fallow.workloads.generate:open_lane"

    def most_units(self, params: bytes) -> int:
        asked = decode(Generate, params, MAX_PARAMS_BYTES)
        if not asked.max_tokens:
            raise fail("E1904", "A generate task on a lane must say max_tokens.")
        return most_read(asked) + asked.max_tokens

    def usual_units(self, work: ServeJob | LaneJob) -> int:
        return work.context_tokens or LANE_UNITS if isinstance(work, ServeJob) else LANE_UNITS

    def resumed(self, params: bytes, text: str, pieces: int) -> bytes:
        asked = decode(Generate, params, MAX_PARAMS_BYTES)
        left = max(1, asked.max_tokens - pieces)
        return encode(msgspec.structs.replace(asked, resume=asked.resume + text, max_tokens=left))

    def fits(self, asked: Asked, value: bytes, units: int) -> bool:
        try:
            answer, question = decode(GenerateValue, value, MAX_VALUE_BYTES), decode(Generate, asked.params)
        except FallowError:
            return False
        return (
            answer.completion_tokens <= question.max_tokens
            and answer.prompt_tokens <= most_read(question)
            and units == metered(answer)
            and (asked.streamed is None or answer.text == asked.streamed)  # what is claimed is what was told
            and (answer.finish != CANCELLED or _fairly_cancelled(asked, answer))
            # Attack: the right text by a cheaper model or none, with nothing said about the logits.
            and len(answer.logits) in ((32,) if asked.exact else (0, 32))
        )

    def cut_short(self, value: bytes) -> bool:
        return recall(GenerateValue, value).finish == CANCELLED


class GenerateKind(Kind):
    """One completion of one model. A unit is a token."""

    name = "generate"
    unit = "tokens"
    depth = 2
    usual_ram_bytes = 2 * GIB
    usual_s = 900
    price_ucr = 500
    same_everywhere = False
    proves_exact = True
    extras = (TENSORS, LLAMA)
    program = "fallow.workloads.generate:run"
    inputs = (Input("model", "a model folder or GGUF file"),)
    settings = (Setting("max_tokens", 128, "per answer"),)
    lane = GenerateLane()
    replay = GenerateReplay()

    def read(self, line: str, settings: Mapping[str, int]) -> bytes:
        return encode(Generate((ChatTurn("user", line),), "", settings["max_tokens"]))

    def units(self, params: bytes) -> int:
        asked = decode(Generate, params, MAX_PARAMS_BYTES)
        return said_bytes(asked) + TURN_TOKENS * max(1, len(asked.turns)) + asked.max_tokens

    def speed(self, flops: int) -> int:
        return max(flops // (FLOPS_A_PARAMETER * REFERENCE_PARAMETERS), 1)

    def ram_bytes(self, work: Work) -> int:
        if not isinstance(work, ServeJob) or not work.size.stored_bytes:
            return self.usual_ram_bytes
        return serve_bytes(work.size, work.context_tokens)

    def well_formed(self, task: TaskSpec, output: TaskOutput) -> bool:
        try:
            decode(GenerateValue, output.value, MAX_VALUE_BYTES)
        except FallowError:
            return False
        return True

    def shown(self, value: bytes) -> str:
        try:
            return recall(GenerateValue, value).text
        except FallowError:
            return text_of(value)

    def exact(self, work: Work) -> bool:
        return isinstance(work, ServeJob) and work.exact


def metered(value: GenerateValue) -> int:
    """What an answer on a lane is metered at."""
    return value.prompt_tokens + value.completion_tokens


def _fairly_cancelled(asked: Asked, value: GenerateValue) -> bool:
    """Whether we asked for the answer to be cut short, and what was made is metered at no more than was told. Checks by
    doing it again leave such answers out, since nobody else would stop at the same word: the meter must be one that we
    can read ourselves. Does not defend against: a provider that counts the prompt of a cancelled answer up to a token
    for each byte."""
    told = asked.pieces if asked.streamed is not None else len(value.text.encode())
    return asked.unwanted and value.completion_tokens <= told
