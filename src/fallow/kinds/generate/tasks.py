"""What a generate task is asked and what it answers."""

from __future__ import annotations

from typing import Annotated

import msgspec

from fallow.wire.documents import U64
from fallow.wire.tasks import MAX_PARAMS_BYTES, MAX_VALUE_BYTES, Decimal, Name


class ChatTurn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Who spoke, and what was said."""

    role: Name
    content: Annotated[str, msgspec.Meta(max_length=MAX_PARAMS_BYTES)]


class Generate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One completion. Either `turns` (chat, through the model's own template) or `prompt` is set. Sampling is seeded
    by the task's seed and each token's position; temperature "0" is greedy. `resume` holds the text already
    sent by a provider that went away: it is taken as given and continued."""

    turns: Annotated[tuple[ChatTurn, ...], msgspec.Meta(max_length=1024)]
    prompt: Annotated[str, msgspec.Meta(max_length=MAX_PARAMS_BYTES)]
    max_tokens: U64
    temperature: Decimal = "0"
    top_p: Decimal = "1"
    stop: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=1000)], ...], msgspec.Meta(max_length=16)] = ()
    resume: Annotated[str, msgspec.Meta(max_length=MAX_PARAMS_BYTES)] = ""


CANCELLED = "cancelled"


class GenerateValue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """The value of a generate task. `finish` is "stop", "length", or CANCELLED for one that was stopped because nobody
    wanted more: it holds what had been made by then. Token counts follow the model's tokenizer, but for a cancelled
    answer: its `completion_tokens` are the pieces of text that were told, of at least one token each, so that whoever
    heard them can count them. `logits` commits to what the tokens were chosen from: a hash over the logits before each
    token that was made here, in order (docs/spec/exact-arithmetic.md, section 21), or b"" from engines whose bits
    differ between machines."""

    text: Annotated[str, msgspec.Meta(max_length=MAX_VALUE_BYTES)]
    finish: Name
    prompt_tokens: U64
    completion_tokens: U64
    logits: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
