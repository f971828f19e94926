"""Training: rounds of steps on shards of a text, a finish that makes the result, and checks of committed rounds."""

from __future__ import annotations

from collections.abc import Mapping

from fallow.errors import FallowError, fail
from fallow.kinds.chain import Chain, Recheck, is_state, room_bytes
from fallow.kinds.kind import GRAIN_BYTES, TENSORS, Kind
from fallow.kinds.rounds import RoundManifest, RoundPart, Rounds, StateReport
from fallow.kinds.train.replay import TrainReplay
from fallow.kinds.train.sizes import WRITTEN_BYTES, train_bytes, train_s
from fallow.kinds.train.tasks import TrainAudit, TrainFinish, TrainParams, TrainRound, TrainValue
from fallow.kinds.train.trace import (
    MAX_LINKS_DRAWN,
    Cut,
    audit_task,
    expected_answer,
    link_sequences,
    read_trace,
)
from fallow.units import GIB
from fallow.wire import codec
from fallow.wire.local import TrainJob, Work
from fallow.wire.tasks import MAX_PARAMS_BYTES, Part, Recipe, TaskOutput, TaskSpec

REFERENCE_PARAMETERS = 135_000_000
"""Speeds are told for a language model of this size."""
FLOPS_A_PARAMETER = 6
STATE_BYTES = 32
"""The most that an update, a checkpoint and an optimiser's state take together for a number that is trained."""
UNMEASURED_BYTES = 8 * GIB
"""What they may take for a model whose size nobody said."""


class TrainRounds(Rounds):
    """Units are tokens: those trained on, and those of the held-out set where it is looked at."""

    def count(self, work: TrainJob) -> int:
        return work.recipe.rounds

    def ahead(self, work: TrainJob) -> int:
        return work.recipe.ahead

    def inputs(self, work: TrainJob) -> tuple[Part, ...]:
        return Part("model", work.model, 0), Part("data", work.data, work.data_bytes)

    def round(self, work: TrainJob, place: RoundPart) -> bytes:
        return codec.encode(TrainRound(work.recipe, *place))

    def finish(self, work: TrainJob, manifests: tuple[RoundManifest, ...]) -> bytes:
        return codec.encode(TrainFinish(work.recipe, manifests))

    def round_units(self, work: TrainJob, *, evaluate: bool) -> int:
        return round_units(work.recipe, evaluate=evaluate)

    def finish_units(self, work: TrainJob) -> int:
        return finish_units(work.recipe)

    def told(self, output: TaskOutput) -> StateReport | None:
        try:
            value = codec.decode(TrainValue, output.value)
        except FallowError:
            return None
        return StateReport(value.state, value.loss)


class TrainChain(Chain):
    """The chain of states of a round in exact arithmetic (`kinds/train/trace.py`)."""

    def links(self, task: TaskSpec, output: TaskOutput) -> int:
        params = _read(task.params)
        trace = read_trace(params.recipe, output) if isinstance(params, TrainRound) else None
        return trace.links if trace is not None else 0

    def check(self, task: TaskSpec, output: TaskOutput, drawn: tuple[int, ...]) -> Recheck:
        params = codec.decode(TrainParams, task.params)
        assert isinstance(params, TrainRound), "only rounds have links"
        trace = read_trace(params.recipe, output)
        assert trace is not None, "a claim with links has a trace"
        units = audit_units(params.recipe, trace.cut, drawn)
        return Recheck(audit_task(task, params, trace, drawn, units), expected_answer(trace, drawn))

    def drawn(self, check: TaskSpec) -> tuple[int, ...]:
        params = codec.recall(TrainParams, check.params)
        assert isinstance(params, TrainAudit), "it was made here"
        return params.links

    def states(self, check: TaskSpec) -> tuple[Part, ...]:
        return tuple(part for part in check.inputs if is_state(part.name) or part.name == "carry")

    def check_ppm(self, work: Work, links: int) -> int:
        assert isinstance(work, TrainJob), "only trainings have chains"
        recipe = work.recipe
        cut = Cut(min(recipe.batch_sequences, 2), 1)
        links = min(links, MAX_LINKS_DRAWN, cut.links(recipe.inner_steps))
        units = audit_units(recipe, cut, tuple(range(links)))
        return min(1_000_000, units * 1_000_000 // round_units(recipe, evaluate=False))


ROUNDS, CHAIN = TrainRounds(), TrainChain()


class Train(Kind):
    """Fine-tuning of a language model. A unit is a token."""

    name = "train"
    unit = "tokens"
    depth = 1
    usual_ram_bytes = 3 * GIB
    usual_s = 3_600
    price_ucr = 500
    same_everywhere = False
    proves_exact = True
    extras = (TENSORS,)
    program = "fallow.workloads.train:run"
    rounds = ROUNDS
    replay = TrainReplay()

    def read(self, line: str, settings: Mapping[str, int]) -> bytes:
        raise fail("E2001", "A line of text is no training.", next_step="fallow train MODEL DATA")

    def units(self, params: bytes) -> int:
        found = codec.decode(TrainParams, params, MAX_PARAMS_BYTES)
        match found:
            case TrainRound():
                return max(1, round_units(found.recipe, evaluate=found.evaluate))
            case TrainFinish():
                return finish_units(found.recipe)
            case _:
                assert isinstance(found, TrainAudit), "there are three"
                recipe, cut = found.round.recipe, Cut(found.units, found.every)
                if not cut.sound(recipe.inner_steps, found.links):
                    raise fail("E1707", "The audit is of a round that nobody can have cut that way.")
                return audit_units(recipe, cut, found.links)

    def speed(self, flops: int) -> int:
        return max(flops // (FLOPS_A_PARAMETER * REFERENCE_PARAMETERS), 1)

    def ram_bytes(self, work: Work) -> int:
        if not isinstance(work, TrainJob) or not work.size.parameters:
            return self.usual_ram_bytes
        return train_bytes(work.recipe, work.size, work.data_bytes)

    def timeout_s(self, work: Work, units: int) -> int:
        if not isinstance(work, TrainJob) or not work.size.parameters:
            return self.usual_s
        return max(self.usual_s, train_s(work.recipe, work.size, units))

    def disk_bytes(self, work: Work) -> int:
        if not isinstance(work, TrainJob):
            return 0
        traces = room_bytes(work.recipe.trace_bytes) if work.recipe.exact else 0
        return work.size.stored_bytes + work.data_bytes + traces + WRITTEN_BYTES * work.size.trained

    def output_bytes(self, work: Work) -> int:
        if not isinstance(work, TrainJob) or not work.size.trained:
            return UNMEASURED_BYTES
        return GRAIN_BYTES + 2 * work.size.stored_bytes + STATE_BYTES * work.size.trained

    def kept_bytes(self, task: TaskSpec) -> int:
        params = _read(task.params)
        return room_bytes(params.recipe.trace_bytes) if isinstance(params, TrainRound) and params.recipe.exact else 0

    def well_formed(self, task: TaskSpec, output: TaskOutput) -> bool:
        """A round without an update is no contribution, whoever agrees."""
        params, told = _read(task.params), ROUNDS.told(output)
        if isinstance(params, TrainFinish):
            return told is not None or bool(output.parts)
        if not isinstance(params, TrainRound):
            return True  # an answer to a check is compared with what was claimed
        has = {part.name for part in output.parts}
        whole = told is not None and "update" in has and (not params.checkpoint or "checkpoint" in has)
        return whole and (not params.recipe.exact or read_trace(params.recipe, output) is not None)

    def shown(self, value: bytes) -> str:
        return ""

    def exact(self, work: Work) -> bool:
        return isinstance(work, TrainJob) and work.recipe.exact

    def chain(self, work: Work) -> Chain | None:
        return CHAIN if self.exact(work) else None

    def claimed_chain(self, task: TaskSpec, output: TaskOutput) -> Chain | None:
        return CHAIN if CHAIN.links(task, output) else None


def _read(params: bytes) -> TrainRound | TrainFinish | TrainAudit | None:
    try:
        return codec.decode(TrainParams, params, MAX_PARAMS_BYTES)
    except FallowError:
        return None


def round_units(recipe: Recipe, *, evaluate: bool) -> int:
    """The units of one shard's round: tokens trained on, and tokens of the held-out set when it is looked at."""
    tokens = recipe.inner_steps * recipe.batch_sequences * recipe.sequence_tokens
    return tokens + (recipe.holdout_sequences * recipe.sequence_tokens if evaluate else 0)


def finish_units(recipe: Recipe) -> int:
    """The units of the finishing task: one look at the held-out set."""
    return max(1, recipe.holdout_sequences * recipe.sequence_tokens)


def audit_units(recipe: Recipe, cut: Cut, drawn: tuple[int, ...]) -> int:
    """The units of doing links again: the tokens trained on, and as much as one sequence a link for what is read and
    hashed."""
    sequences = len(drawn) + sum(link_sequences(recipe, cut, index) for index in drawn)
    return max(1, sequences) * recipe.sequence_tokens
