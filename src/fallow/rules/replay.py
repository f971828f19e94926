"""What of a receipt's work its owner does again, and what it proves when it agrees.

A round in exact arithmetic is a chain of links (`kinds/train/trace.py`): some are drawn here, after the fact, by
whoever doubts. A finishing task, a check, and an answer are done again whole. What each must give is in the receipt, so
the verdict is a comparison of hashes, and this module says in words what was compared and what was not.

Defends against: receipts that ask for work or memory without end, that name foreign programs, or one input twice.
Whether a receipt's signatures hold is for `wire/receipt_checks.py`, before this. Does not defend against: a cheat in
what was not drawn, for which the probabilities are given; a task that was wrong from the start."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import NamedTuple

import msgspec

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import CANCELLED, Generate, GenerateValue
from fallow.kinds.registry import kind_named
from fallow.kinds.train.tasks import TrainAudit, TrainChecked, TrainFinish, TrainParams, TrainRound
from fallow.kinds.train.trace import (
    MAX_LINKS_DRAWN,
    Link,
    Trace,
    audit_task,
    expected_answer,
    link_at,
    read_trace,
    unit_rows,
)
from fallow.rules import economics, trust
from fallow.wire import codec
from fallow.wire.documents import Order
from fallow.wire.messages import EXACT
from fallow.wire.receipts import LaneWork, Receipt
from fallow.wire.tasks import MAX_PARAMS_BYTES, MAX_VALUE_BYTES, Recipe, TaskOutput, TaskSpec

ALL_LINKS = 1 << 16
"""More links than any round has."""
DEFAULT_LINKS = 2
MOST = {"inner_steps": 1_000_000, "batch_sequences": 4_096, "sequence_tokens": 1 << 20}
"""A recipe beyond this is no recipe (`workloads/train.py` refuses it, too)."""
MAX_TOKENS = 1 << 28
"""What is done again at most: days on one machine."""
MAX_INPUTS = 4_096
MAX_NAMED = 6
SKIPPED = economics.SKIPPED


class NoReplay(NamedTuple):
    """Why a receipt's work is not done again: it cannot be (E1504), or its contents make no sense (E1707)."""

    code: str
    what: str
    next_step: str = ""


class Piece(NamedTuple):
    """A task for this machine, and what it gives if the receipt is true. `links` are those that it does again."""

    task: TaskSpec
    expected: TaskOutput
    links: tuple[int, ...] = ()


class ReplayPlan(NamedTuple):
    """What is done again. `numerics` is EXACT, or the class of machines that can. `chain` is set when links of a round
    are drawn, and then `round`, too. `names_inputs` is false for a lane's answer: its receipt does not say of which
    model it is. `tokens` are read or made on the way. `shortened` is set for a lane's answer that ended before the
    limit that was asked for: the task of an answer that ends there; `ends_at` is the context that this fills."""

    pieces: tuple[Piece, ...]
    numerics: str
    tokens: int
    chain: Trace | None = None
    round: TrainRound | None = None
    names_inputs: bool = True
    shortened: TaskSpec | None = None
    ends_at: int = 0

    @property
    def drawn(self) -> tuple[int, ...]:
        """The links, of all pieces."""
        return tuple(index for piece in self.pieces for index in piece.links)


class Difference(NamedTuple):
    """Something that came out otherwise than claimed; `where` in words, the rest in hex, or as text for an answer."""

    where: str
    expected: str
    found: str


class Report(NamedTuple):
    """What was done again, what was not checked, and what agreement proves, in sentences. `odds` has the probability,
    as text, with which a cheat of that kind would have been found."""

    redone: str
    not_checked: tuple[str, ...]
    proves: str
    odds: dict[str, str]


def plan(receipt: Receipt, links: int, seed: bytes) -> ReplayPlan | NoReplay:
    """What to do again for a receipt that holds: `links` of a round's links, drawn by `seed`, or the whole of anything
    else. Raises nothing, whatever the receipt says."""
    try:
        numerics = codec.decode(Order, receipt.order.body).numerics
        if isinstance(receipt.work, LaneWork):
            kind = codec.decode(Order, receipt.order.body).kind
            work, ram = receipt.work, kind_named(kind).usual_ram_bytes
            inputs = work.checked_as.inputs if work.checked_as is not None else ()
            task = TaskSpec(kind, work.params, inputs, work.seed, work.units, 0, ram)
            output = TaskOutput(work.value, ())
        else:
            task, output = receipt.work.task, receipt.work.output
        if len({part.name for part in task.inputs}) != len(task.inputs):
            return NoReplay("E1707", "The receipt's task names one input twice.")
        if task.kind == "generate":
            return _answer(task, output, numerics, lane=isinstance(receipt.work, LaneWork))
        if task.kind == "train":
            return _training(task, output, numerics, links, seed)
    except FallowError as error:
        return NoReplay("E1707", f"The receipt's task cannot be read: {error.what}.")
    what = f"A task of kind {task.kind[:40]!r} has nothing to be done again: any answer that it gives is its own input."
    return NoReplay("E1504", what, "Read what fallow verify says of its signatures and its money.")


def _training(task: TaskSpec, output: TaskOutput, numerics: str, links: int, seed: bytes) -> ReplayPlan | NoReplay:
    params = codec.decode(TrainParams, task.params, MAX_PARAMS_BYTES)
    recipe = params.round.recipe if isinstance(params, TrainAudit) else params.recipe
    for name, most in MOST.items():
        if not 1 <= getattr(recipe, name) <= most:
            return NoReplay("E1707", f"The recipe's {name} is {getattr(recipe, name)}; it lies between 1 and {most}.")
    if recipe.exact and isinstance(params, TrainRound):
        return _links(task, output, params, links, seed)
    if recipe.exact or numerics not in ("", EXACT):
        whole = recipe.inner_steps if isinstance(params, TrainRound) else 0
        tokens = whole * recipe.batch_sequences * recipe.sequence_tokens
        if isinstance(params, TrainFinish) or whole:
            tokens += recipe.holdout_sequences * recipe.sequence_tokens
        return _bounded(ReplayPlan((Piece(task, output),), EXACT if recipe.exact else numerics, tokens))
    what = "This was computed in fp32, and the receipt names no class of machines that would give the same bits."
    return NoReplay("E1504", what, "fallow train --arithmetic exact   # next time: any machine can do it again")


def _links(task: TaskSpec, output: TaskOutput, params: TrainRound, links: int, seed: bytes) -> ReplayPlan | NoReplay:
    trace = read_trace(params.recipe, output)
    if trace is None:
        return NoReplay("E1707", "The claim holds no chain of states, although its recipe is exact.")
    drawn = trust.draw_links(seed, trace.links, links)
    pieces: list[Piece] = []
    for start in range(0, len(drawn), MAX_LINKS_DRAWN):
        some = drawn[start : start + MAX_LINKS_DRAWN]
        piece = Piece(audit_task(task, params, trace, some, task.units), expected_answer(trace, some), some)
        names = {part.name for part in piece.task.inputs}
        if len(names) != len(piece.task.inputs) or len(names) > MAX_INPUTS:
            return NoReplay("E1707", "The receipt's task has inputs that its chain of states has no room for.")
        pieces.append(piece)
    tokens = sum(_link_tokens(params.recipe, trace, index) for index in drawn)
    return _bounded(ReplayPlan(tuple(pieces), EXACT, tokens, trace, params))


def _link_tokens(recipe: Recipe, trace: Trace, index: int) -> int:
    link = link_at(index, trace.steps, trace.cut)
    rows = (len(unit_rows(recipe.batch_sequences, trace.cut.units, unit)) for unit in range(link.unit, link.until))
    return (link.last - link.first) * sum(rows) * recipe.sequence_tokens


def _answer(task: TaskSpec, output: TaskOutput, numerics: str, *, lane: bool) -> ReplayPlan | NoReplay:
    asked = codec.decode(Generate, task.params, MAX_PARAMS_BYTES)
    value = codec.decode(GenerateValue, output.value, MAX_VALUE_BYTES)
    if value.finish == CANCELLED:
        return NoReplay("E1504", "The answer was cut short by whoever asked, and where depends on the moment.")
    if not value.logits and numerics in ("", EXACT):
        what = "The answer came from an engine whose bits differ between machines (a GGUF file's, or fp32)."
        return NoReplay("E1504", what, "fallow serve FOLDER   # a model folder of Llama's form is answered exactly")
    tokens = value.prompt_tokens + value.completion_tokens
    named, shortened = not lane or any(part.name == "model" for part in task.inputs), None
    if lane and value.finish == "length" and value.completion_tokens != asked.max_tokens:
        params = codec.encode(msgspec.structs.replace(asked, max_tokens=value.completion_tokens))
        shortened = msgspec.structs.replace(task, params=params)
    where = EXACT if value.logits else numerics
    return _bounded(ReplayPlan((Piece(task, output),), where, tokens, None, None, named, shortened, tokens))


def served_with(found: ReplayPlan, context_tokens: int) -> ReplayPlan:
    """The plan for an answer that was served with a context of `context_tokens`, 0 where nobody knows. An answer may
    end where that is full (the model's own limit, which may be lower, is kept by the worker); one that ends before it
    was cut short by its provider, and differs."""
    if found.shortened is None or context_tokens not in (0, found.ends_at):
        return found._replace(shortened=None)
    pieces = tuple(piece._replace(task=found.shortened) for piece in found.pieces)
    return found._replace(pieces=pieces, shortened=None if context_tokens else found.shortened)


def _bounded(found: ReplayPlan) -> ReplayPlan | NoReplay:
    if found.tokens > MAX_TOKENS:
        what = f"That would be {found.tokens:,} tokens to compute; this command does at most {MAX_TOKENS:,}."
        return NoReplay("E1504", what, "Draw fewer links with --links.")
    return found


# what came out --------------------------------------------------------------------------------------------------------


def differences(piece: Piece, found: TaskOutput) -> tuple[Difference, ...]:
    """Where `found` is not what the receipt claims; empty when all of it agrees."""
    if found == piece.expected:
        return ()
    try:
        return _differing_links(piece, found) if piece.links else _differing_output(piece, found)
    except FallowError:  # what was claimed is no value of its kind
        return (Difference("the value", piece.expected.value[:200].hex(), found.value[:200].hex()),)


def _differing_links(piece: Piece, found: TaskOutput) -> tuple[Difference, ...]:
    claimed, mine = codec.decode(TrainChecked, piece.expected.value), codec.decode(TrainChecked, found.value)
    params = codec.decode(TrainParams, piece.task.params)
    assert isinstance(params, TrainAudit), "links are drawn for a TrainAudit"
    cuts = [f"{one.units} a step, states every {one.every} steps" for one in (claimed, mine)]
    rows = [Difference("how the round is cut", cuts[0], cuts[1])]
    for where, field in (
        ("the shared state that the round starts from", "state"),
        ("the first parameters", "theta"),
        ("the optimiser's first state", "moments"),
        ("the update that follows from the last state", "update"),
    ):
        rows.append(Difference(where, getattr(claimed, field).hex(), getattr(mine, field).hex()))
    for index, expected, got in zip(piece.links, claimed.links, mine.links, strict=True):
        rows.append(Difference(f"link {index}", _hashes(expected), _hashes(got)))
    return tuple(row for row in rows if row.expected != row.found)


def _hashes(blobs: tuple[bytes, ...]) -> str:
    return " ".join(blob.hex() for blob in blobs)


def _differing_output(piece: Piece, found: TaskOutput) -> tuple[Difference, ...]:
    rows: list[Difference] = []
    if piece.task.kind == "generate":
        claimed, mine = (codec.decode(GenerateValue, one.value, MAX_VALUE_BYTES) for one in (piece.expected, found))
        for field in ("text", "finish", "prompt_tokens", "completion_tokens", "logits"):
            expected, got = (getattr(one, field) for one in (claimed, mine))
            rows.append(Difference(f"the answer's {field}", _shown(expected), _shown(got)))
    else:
        rows.append(Difference("the value", piece.expected.value.hex(), found.value.hex()))
    blobs, mine_blobs = ({part.name: part.blob.hex() for part in one.parts} for one in (piece.expected, found))
    for name in sorted(blobs | mine_blobs):
        rows.append(Difference(f"file {name}", blobs.get(name, ""), mine_blobs.get(name, "")))
    return tuple(row for row in rows if row.expected != row.found)


def _shown(value: str | int | bytes) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)[:4_000]


# in words -------------------------------------------------------------------------------------------------------------


def report(done: ReplayPlan) -> Report:
    """What doing the plan again means."""
    if done.chain is not None and done.round is not None:
        return _report_links(done, done.chain, done.round)
    piece = done.pieces[0]
    if piece.task.kind == "generate":
        return _report_answer(done, piece)
    params: TrainParams = codec.decode(TrainParams, piece.task.params, MAX_PARAMS_BYTES)
    match params:
        case TrainFinish():
            what = f"the finishing task: the updates of {_count(len(params.manifests), 'round')} applied to the model, "
            redone = f"{what}its loss on the held-out text, and every file of the result"
            proves = "The result is what the recipe gives from these updates, to the last bit."
            rest = ("whether the updates are right: each round has a receipt of its own",)
        case TrainRound():
            redone = f"the whole of {_round(params)}: {done.tokens:,} tokens"
            proves = "The round's update is what the recipe gives, to the last bit; nothing in it can be false."
            rest = ("other rounds and shards: each has a receipt of its own",)
        case _:
            assert isinstance(params, TrainAudit), "there are three"
            redone = f"the whole check of {_round(params.round)}"
            proves = "The check says what doing it gives."
            rest = ("the round that it checks: that has a receipt of its own",)
    return Report(redone, (*rest, _SENSE), proves, {})


_SENSE = "whether model, data and recipe are any good"


def _report_links(done: ReplayPlan, trace: Trace, params: TrainRound) -> Report:
    drawn, total = done.drawn, trace.links
    places = [_place(link_at(index, trace.steps, trace.cut), trace) for index in drawn[:MAX_NAMED]]
    named = [f"link {index} ({place})" for index, place in zip(drawn, places, strict=False)]
    if len(drawn) > MAX_NAMED:
        named.append(f"{len(drawn) - MAX_NAMED} more")
    what = (
        f"{len(drawn)} of the {_count(total, 'link')} of {_round(params)}, {done.tokens:,} tokens: {', '.join(named)}"
    )
    redone = f"{what}; and where the chain begins, how it is cut, and which update it ends in"
    rest = [f"the other {_count(total - len(drawn), 'link')} of the round"] if len(drawn) < total else []
    if params.evaluate:
        rest.append(f"the loss {trace.value.loss}, which was measured before the round")
    if params.checkpoint:
        rest.append("the checkpoint that it left, which is the state that the round starts from")
    rest += ["other rounds and shards: each has a receipt of its own", _SENSE]
    steps = ceil(trace.steps * SKIPPED)
    skip = economics.catches(total, ceil(Fraction(steps, trace.cut.every)) * trace.cut.units, len(drawn))
    flip = economics.catches(total, 1, len(drawn))
    odds = {"skips_tenth_of_steps": economics.percent(skip), "alters_one_gradient": economics.percent(flip)}
    proves = (
        f"A worker that skipped 10 % of its steps would have been found with {odds['skips_tenth_of_steps']}; one that "
        f"altered one gradient with {odds['alters_one_gradient']}."
    )
    if len(drawn) == total:
        proves = "Every link of the round is right, so no step of it was skipped or altered."
    return Report(redone, tuple(rest), proves, odds)


def _round(params: TrainRound) -> str:
    """A round as people count."""
    return f"round {params.round + 1} of {params.recipe.rounds}, shard {params.shard + 1} of {params.shards}"


def _place(link: Link, trace: Trace) -> str:
    """Where in its round a link is, counted from 1 as people do."""
    if trace.cut.every > 1:
        return f"steps {link.first + 1} to {link.last}" if link.last - link.first > 1 else f"step {link.last}"
    if trace.cut.units == 1:
        return f"step {link.last}"
    return f"step {link.last}, micro-batch {link.unit + 1} of {trace.cut.units}"


def _report_answer(done: ReplayPlan, piece: Piece) -> Report:
    value = codec.decode(GenerateValue, piece.expected.value, MAX_VALUE_BYTES)
    what = f"{value.prompt_tokens:,} tokens read, {value.completion_tokens:,} made"
    redone = f"the whole answer: {what}{', with the logits of each' if value.logits else ''}"
    rest = [] if done.names_inputs else ["that this was the model: the receipt of a streamed answer does not name it"]
    if done.shortened is not None:
        rest.append(f"that it had to end after {value.completion_tokens:,} tokens: ask your node, which knows")
    proves = "The model gives exactly this answer to this prompt with this seed."
    return Report(redone, (*rest, "whether the answer is true or the model any good"), proves, {})


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
