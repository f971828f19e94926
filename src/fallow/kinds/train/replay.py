"""What of a training's work is done again. A round in exact arithmetic is a chain of links (`kinds/train/trace.py`):
some are drawn after the fact, by whoever doubts. A finishing task and a check are done again whole.

Does not defend against: a cheat in what was not drawn, for which the probabilities are given; a task that was wrong
from the start."""

from __future__ import annotations

from math import ceil

from fallow.kinds.chain import SKIPPED, catches, percent
from fallow.kinds.replay import ClaimedWork, Difference, LinkDraw, NoReplay, Piece, Replay, ReplayPlan, Report
from fallow.kinds.train.tasks import TrainAudit, TrainChecked, TrainFinish, TrainParams, TrainRound
from fallow.kinds.train.trace import (
    MAX_LINKS_DRAWN,
    Trace,
    audit_task,
    expected_answer,
    link_at,
    link_sequences,
    read_trace,
)
from fallow.wire import codec
from fallow.wire.messages import EXACT
from fallow.wire.tasks import MAX_PARAMS_BYTES

MOST = {"inner_steps": 1_000_000, "batch_sequences": 4_096, "sequence_tokens": 1 << 20}
"""A recipe beyond this is no recipe (`workloads/train.py` refuses it, too)."""
MAX_INPUTS = 4_096
MAX_NAMED = 6
SENSE = "whether model, data and recipe are any good"
OTHERS = "other rounds and shards: each has a receipt of its own"


class TrainReplay(Replay):
    """Links of a round, or the whole of anything else."""

    def plan(self, claimed: ClaimedWork, draw: LinkDraw) -> ReplayPlan | NoReplay:
        params = codec.decode(TrainParams, claimed.task.params, MAX_PARAMS_BYTES)
        recipe = params.round.recipe if isinstance(params, TrainAudit) else params.recipe
        for name, most in MOST.items():
            if not 1 <= getattr(recipe, name) <= most:
                what = f"The recipe's {name} is {getattr(recipe, name)}; it lies between 1 and {most}."
                return NoReplay("E1707", what)
        if recipe.exact and isinstance(params, TrainRound):
            return _links(claimed, params, draw)
        if recipe.exact or claimed.numerics not in ("", EXACT):
            return _whole(claimed, params, EXACT if recipe.exact else claimed.numerics)
        what = "This was computed in fp32, and the receipt names no class of machines that would give the same bits."
        return NoReplay("E1504", what, "fallow train --arithmetic exact   # next time: any machine can do it again")

    def compared(self, piece: Piece, value: bytes) -> list[Difference]:
        if not piece.links:
            return super().compared(piece, value)
        claimed, mine = codec.decode(TrainChecked, piece.expected.value), codec.decode(TrainChecked, value)
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
        return rows


def _hashes(blobs: tuple[bytes, ...]) -> str:
    return " ".join(blob.hex() for blob in blobs)


def _whole(claimed: ClaimedWork, params: TrainRound | TrainFinish | TrainAudit, numerics: str) -> ReplayPlan:
    tokens = 0
    if isinstance(params, TrainRound):
        tokens = params.recipe.inner_steps * params.recipe.batch_sequences * params.recipe.sequence_tokens
    if not isinstance(params, TrainAudit):
        tokens += params.recipe.holdout_sequences * params.recipe.sequence_tokens
    match params:
        case TrainFinish():
            what = f"the finishing task: the updates of {_count(len(params.manifests), 'round')} applied to the model, "
            redone = f"{what}its loss on the held-out text, and every file of the result"
            proves = "The result is what the recipe gives from these updates, to the last bit."
            rest = "whether the updates are right: each round has a receipt of its own"
        case TrainRound():
            redone = f"the whole of {_round(params)}: {tokens:,} tokens"
            proves = "The round's update is what the recipe gives, to the last bit; nothing in it can be false."
            rest = OTHERS
        case TrainAudit():
            redone = f"the whole check of {_round(params.round)}"
            proves = "The check says what doing it gives."
            rest = "the round that it checks: that has a receipt of its own"
    words = Report(redone, (rest, SENSE), proves, {})
    return ReplayPlan((Piece(claimed.task, claimed.output),), numerics, tokens, words)


def _links(claimed: ClaimedWork, params: TrainRound, draw: LinkDraw) -> ReplayPlan | NoReplay:
    task, recipe, trace = claimed.task, params.recipe, read_trace(params.recipe, claimed.output)
    if trace is None:
        return NoReplay("E1707", "The claim holds no chain of states, although its recipe is exact.")
    drawn = draw(trace.links)
    pieces: list[Piece] = []
    for start in range(0, len(drawn), MAX_LINKS_DRAWN):
        some = drawn[start : start + MAX_LINKS_DRAWN]
        piece = Piece(audit_task(task, params, trace, some, task.units), expected_answer(trace, some), some)
        names = {part.name for part in piece.task.inputs}
        if len(names) != len(piece.task.inputs) or len(names) > MAX_INPUTS:
            return NoReplay("E1707", "The receipt's task has inputs that its chain of states has no room for.")
        pieces.append(piece)
    tokens = sum(link_sequences(recipe, trace.cut, index) for index in drawn) * recipe.sequence_tokens
    return ReplayPlan(tuple(pieces), EXACT, tokens, _words_of_links(drawn, tokens, trace, params), trace.links)


def _words_of_links(drawn: tuple[int, ...], tokens: int, trace: Trace, params: TrainRound) -> Report:
    total = trace.links
    named = [f"link {index} ({_place(index, trace)})" for index in drawn[:MAX_NAMED]]
    if len(drawn) > MAX_NAMED:
        named.append(f"{len(drawn) - MAX_NAMED} more")
    what = f"{len(drawn)} of the {_count(total, 'link')} of {_round(params)}, {tokens:,} tokens: {', '.join(named)}"
    redone = f"{what}; and where the chain begins, how it is cut, and which update it ends in"
    rest = [f"the other {_count(total - len(drawn), 'link')} of the round"] if len(drawn) < total else []
    if params.evaluate:
        rest.append(f"the loss {trace.value.loss}, which was measured before the round")
    if params.checkpoint:
        rest.append("the checkpoint that it left, which is the state that the round starts from")
    steps = ceil(trace.steps * SKIPPED)
    skip = percent(catches(total, -(-steps // trace.cut.every) * trace.cut.units, len(drawn)))
    flip = percent(catches(total, 1, len(drawn)))
    proves = (
        f"A worker that skipped 10 % of its steps would have been found with {skip}; one that altered one gradient "
        f"with {flip}."
    )
    if len(drawn) == total:
        proves = "Every link of the round is right, so no step of it was skipped or altered."
    odds = {"skips_tenth_of_steps": skip, "alters_one_gradient": flip}
    return Report(redone, (*rest, OTHERS, SENSE), proves, odds)


def _round(params: TrainRound) -> str:
    """A round as people count."""
    return f"round {params.round + 1} of {params.recipe.rounds}, shard {params.shard + 1} of {params.shards}"


def _place(index: int, trace: Trace) -> str:
    """Where in its round a link is, counted from 1 as people do."""
    link = link_at(index, trace.steps, trace.cut)
    if link.last - link.first > 1:
        return f"steps {link.first + 1} to {link.last}"
    if trace.cut.units == 1:
        return f"step {link.last}"
    return f"step {link.last}, micro-batch {link.unit + 1} of {trace.cut.units}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
