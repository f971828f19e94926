"""What a training would read: the data as the model will see it, before anything is spent. The workers do the same with
the same function (`data.prepare`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fallow.data.read import DataFacts
from fallow.errors import fail
from fallow.workloads.data import Rendering, prepare
from fallow.workloads.hf_folder import read_tokenizer
from fallow.workloads.model_files import inspect_model
from fallow.workloads.rendering import shown

LEAST_TOKENS, MOST_TOKENS = 128, 1_024
"""Between these a sequence's length is chosen when nobody says."""


@dataclass(frozen=True)
class DataSurvey:
    """What was read (`facts`), and what becomes of it: `sequences` of `length` tokens. `tokens` are those of all
    documents, of which `learned` are to be predicted. `cut` documents are longer than a sequence; `unlearned` ones have
    nothing to learn; `several` chats are told in several sequences since the template changes earlier answers; `opens`
    answers do not begin, and `endless` ones do not end, as the template and the model have it. `example` is the first
    document in parts, each with whether it is learned."""

    facts: DataFacts
    length: int
    sequences: int
    tokens: int
    learned: int
    cut: int
    unlearned: int
    several: int
    opens: int
    endless: int
    example: tuple[tuple[str, bool], ...]


def survey(data: Path, model: Path, length: int, loss: str) -> DataSurvey:
    """Look at all of `data` through the tokenizer and the chat template of the folder `model`. A `length` of 0 is
    chosen so that nearly all documents that are to stay whole do. Errors: as `data.prepare`; E1701 when the folder has
    no tokenizer that can be read, E1707 for a `length` beyond the model's context."""
    context = inspect_model(model).context_tokens or max(MOST_TOKENS, length)
    if length > context:
        what = f"Sequences of {length} tokens are longer than the {context} that the model can take in."
        raise fail("E1707", what, cause="The model's context is shorter.", next_step=f"--length {context}")
    made = prepare(data, read_tokenizer(model), Rendering(length, loss), (LEAST_TOKENS, min(context, MOST_TOKENS)))
    packed, heard = made.packed, made.heard
    return DataSurvey(
        facts=made.facts,
        length=made.length,
        sequences=len(packed.rows),
        tokens=made.tokens,
        learned=made.learned,
        cut=packed.cut,
        unlearned=packed.unlearned,
        several=heard.several,
        opens=heard.opens,
        endless=heard.endless,
        example=tuple(shown(heard.first)) if heard.first else (),
    )
