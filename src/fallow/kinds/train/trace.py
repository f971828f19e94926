"""The commitment to a training round done in exact arithmetic: a chain of states, each named by its hash, so that the
smallest piece of the round can be done again by anyone who fetches what the piece starts from.

A round of S steps is a chain of *links*. A step's batch is cut into `units` (micro-batches of equally many sequences,
but for the last). Link number `step * units + unit` takes the sum of the step's gradients so far, adds those of its
unit, and gives the new sum; the last unit's link also takes the optimiser's step and gives the next state. A state is
two files: the trained parameters (`theta`) and the optimiser's moments (`moments`); a sum of gradients is one. Where
keeping every state would take too much, only every `every`-th step's is kept, `units` is 1, and a link is that many
whole steps. So there are no gaps: a round is right when its first state, all its links and its update are. How much is
too much is the recipe's `trace_bytes`, and the order asks for the room (`room_bytes`).

The files are canonical (`numerics/layout.py`: names, shapes and offsets follow from model and recipe), so a file's blob
id, a Merkle root over its chunks of 1 MiB, is the commitment to the tensors in it; each chunk can be fetched and
checked alone. The ids are output parts of the task, so the claim's root covers them all. The files stay with whoever
made them until they are asked for.

Defends against: skipped, shortened or altered steps, with the probability that `kinds/chain.py` gives; a sum that
is not the sum of its gradients; files that are not what was committed to. Does not defend against: what is wrong in the
task itself (its data, its recipe), or an auditor that is one with the accused. A recipe that asks for more room than
was leased is refused (`rules/provider/machine.py`), and none has more than MAX_TRACE_BYTES kept for finer links."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from fallow.errors import FallowError
from fallow.kinds.chain import PREFIX, is_state
from fallow.kinds.train.tasks import TrainAudit, TrainChecked, TrainRound, TrainValue
from fallow.units import GIB
from fallow.wire import codec
from fallow.wire.blob_id import blob_id_of
from fallow.wire.tasks import DEFAULT_TRACE_BYTES, Part, Recipe, TaskOutput, TaskSpec

MAX_UNITS = 8
MAX_FILES = 3_900
"""A task's output has at most 4,096 parts."""
MAX_TRACE_BYTES = 16 * GIB
"""The most that a recipe may have kept of one round for the sake of finer links."""
STATE_BYTES, SUM_BYTES = 12, 8
"""Per trained parameter: fp32 parameter and two fp32 moments; one int64 sum."""
MAX_LINKS_DRAWN = 64


class Cut(NamedTuple):
    """How a round is cut into links: `units` a step, states kept every `every` steps. One of the two is 1."""

    units: int
    every: int

    def sound(self, steps: int, links: tuple[int, ...]) -> bool:
        """Whether a stranger's word on how a round of `steps` was cut, and which of its links are meant, makes sense.
        One that does takes no time and no memory to speak of."""
        if not (1 <= self.units <= MAX_UNITS and self.every >= 1 and 1 in self and steps >= 1):
            return False
        count = -(-steps // self.every)
        return count <= MAX_FILES and all(index < count * self.units for index in links)

    def states(self, steps: int) -> list[int]:
        """The steps before which a state is kept, and the end."""
        return [*range(0, steps, self.every), steps]

    def links(self, steps: int) -> int:
        """How many links a round of `steps` has."""
        return (len(self.states(steps)) - 1) * self.units


def cut_for(recipe: Recipe, parameters: int) -> Cut:
    """How a round must be cut: as finely as the recipe's `trace_bytes` (MAX_TRACE_BYTES at most) and MAX_FILES allow.
    `parameters` are trained."""
    steps, limit = recipe.inner_steps, min(recipe.trace_bytes, MAX_TRACE_BYTES)
    for cut in _fine_cuts(recipe):
        if _fits(steps, parameters, cut, limit):
            return cut
    every = 1
    while every < steps and not _fits(steps, parameters, Cut(1, every), limit):
        every += 1
    return Cut(1, every)


def trace_bytes_for(recipe: Recipe, parameters: int) -> int:
    """The `trace_bytes` that a recipe should have: what the finest cut within DEFAULT_TRACE_BYTES takes, but no coarser
    than two micro-batches a step while that takes no more than MAX_TRACE_BYTES. So the states of a small adapter ask
    for little room, and those of a small model that is trained in full get what they need. `parameters` are trained."""
    steps = recipe.inner_steps
    cut = cut_for(msgspec.structs.replace(recipe, trace_bytes=DEFAULT_TRACE_BYTES), parameters)
    *_, wanted = Cut(1, 1), *_fine_cuts(recipe)
    if (cut.units < wanted.units or cut.every > 1) and _fits(steps, parameters, wanted, MAX_TRACE_BYTES):
        cut = wanted
    return kept_bytes(steps, parameters, cut)


def kept_bytes(steps: int, parameters: int, cut: Cut) -> int:
    """What the tensors of a round's states and sums take."""
    return parameters * (len(cut.states(steps)) * STATE_BYTES + steps * (cut.units - 1) * SUM_BYTES)


def _fine_cuts(recipe: Recipe) -> Iterator[Cut]:
    """The cuts into several units of equal size a step, finest first. The last unit may be smaller: 7 sequences in 4
    units would be 2, 2, 2, 1."""
    batch = recipe.batch_sequences
    for units in range(min(batch, MAX_UNITS), 1, -1):
        if -(-batch // -(-batch // units)) == units:
            yield Cut(units, 1)


def _fits(steps: int, parameters: int, cut: Cut, limit: int) -> bool:
    files = 2 * len(cut.states(steps)) + steps * (cut.units - 1)
    return files <= MAX_FILES and kept_bytes(steps, parameters, cut) <= limit


def unit_rows(batch: int, units: int, unit: int) -> range:
    """Which sequences of a step's batch belong to a unit."""
    size = -(-batch // units)
    return range(unit * size, min(batch, (unit + 1) * size))


def theta_name(step: int) -> str:
    """The part with the parameters before `step`."""
    return f"{PREFIX}theta/{step:07d}"


def moments_name(step: int, steps: int) -> str:
    """The part with the optimiser's state before `step`; after the last step it is what the next round carries on
    from."""
    return f"{PREFIX}moments/{step:07d}" if step < steps else "carry"


def sum_name(step: int, unit: int) -> str:
    """The part with the sum of the gradients of units 0 to `unit` of a step."""
    return f"{PREFIX}sum/{step:07d}.{unit}"


class Link(NamedTuple):
    """One link by the names of parts: what it `needs` and what it `gives`. It covers steps [first, last) and, of each,
    the units from `unit` to `until` (exclusive)."""

    first: int
    last: int
    unit: int
    until: int
    needs: tuple[str, ...]
    gives: tuple[str, ...]


def link_at(index: int, steps: int, cut: Cut) -> Link:
    """Link `index` of a round. The moments are needed only where the optimiser steps."""
    place, unit = divmod(index, cut.units)
    states = cut.states(steps)
    first, last = states[place], states[place + 1]
    closes = unit == cut.units - 1
    needs = [theta_name(first)]
    if unit:
        needs.append(sum_name(first, unit - 1))
    if closes:
        needs.append(moments_name(first, steps))
        return Link(first, last, unit, cut.units, tuple(needs), (theta_name(last), moments_name(last, steps)))
    return Link(first, last, unit, unit + 1, tuple(needs), (sum_name(first, unit),))


def link_sequences(recipe: Recipe, cut: Cut, index: int) -> int:
    """How many sequences a link trains on, the same in another step counted again."""
    link = link_at(index, recipe.inner_steps, cut)
    rows = (len(unit_rows(recipe.batch_sequences, cut.units, unit)) for unit in range(link.unit, link.until))
    return (link.last - link.first) * sum(rows)


class Trace(NamedTuple):
    """The commitment in a claimed round: how it is cut, and its parts by name."""

    steps: int
    cut: Cut
    parts: dict[str, Part]
    value: TrainValue

    @property
    def links(self) -> int:
        """How many links there are."""
        return self.cut.links(self.steps)


def read_trace(recipe: Recipe, output: TaskOutput) -> Trace | None:
    """The commitment in the output of a round; None when there is none, or it does not have exactly the parts that a
    cut of this recipe has. Whether the cut is the right one only somebody with the model can tell: an auditor does."""
    parts = {part.name: part for part in output.parts}
    try:
        value = codec.decode(TrainValue, output.value)
    except FallowError:
        return None
    steps = recipe.inner_steps
    found = sorted(name for name in parts if is_state(name))
    if (
        steps < 1
        or len(parts) != len(output.parts)
        or len(found) > MAX_FILES
        or "update" not in parts
        or "carry" not in parts
    ):
        return None
    units = 1 + sum(name.startswith(f"{PREFIX}sum/{0:07d}.") for name in found)
    kept = sum(name.startswith(f"{PREFIX}theta/") for name in found)
    if not 1 <= units <= min(MAX_UNITS, recipe.batch_sequences) or kept < 2:
        return None
    cut = Cut(units, -(-steps // (kept - 1)))
    # counted first: a recipe of a stranger may have more steps than anybody can go through
    count = 2 * -(-steps // cut.every) + 1 + steps * (units - 1)
    if (units > 1 and cut.every > 1) or count != len(found) or found != sorted(part_names(steps, cut)):
        return None
    return Trace(steps, cut, parts, value)


def part_names(steps: int, cut: Cut) -> list[str]:
    """The parts that a round writes beside its update and what is carried on."""
    states = cut.states(steps)
    names = [theta_name(step) for step in states] + [moments_name(step, steps) for step in states[:-1]]
    summed = range(steps) if cut.units > 1 else ()
    return names + [sum_name(step, unit) for step in summed for unit in range(cut.units - 1)]


def audit_task(spec: TaskSpec, round_: TrainRound, trace: Trace, drawn: tuple[int, ...], units: int) -> TaskSpec:
    """The task of doing links `drawn` of a claimed round again, worth `units`. What it starts from is named by the
    hashes that were claimed, so nobody can be given anything else; the answers are not in it."""
    names = {name for index in drawn for name in link_at(index, trace.steps, trace.cut).needs}
    names.add(theta_name(trace.steps))
    wanted = tuple(trace.parts[name] for name in sorted(names))
    params = TrainAudit(round_, trace.cut.units, trace.cut.every, drawn)
    return msgspec.structs.replace(spec, params=codec.encode(params), inputs=(*spec.inputs, *wanted), units=units)


def expected_answer(trace: Trace, drawn: tuple[int, ...]) -> TaskOutput:
    """What an honest auditor of an honest round finds: the very hashes that were claimed."""
    links = (link_at(index, trace.steps, trace.cut) for index in drawn)
    checked = TrainChecked(
        trace.cut.units,
        trace.cut.every,
        trace.value.state,
        trace.parts[theta_name(0)].blob,
        trace.parts[moments_name(0, trace.steps)].blob,
        tuple(tuple(trace.parts[name].blob for name in link.gives) for link in links),
        trace.parts["update"].blob,
    )
    return TaskOutput(codec.encode(checked), ())


UNREADABLE = bytes(blob_id_of(b"fallow: what was committed to is no state of this model"))
"""What an auditor answers for a link that starts from a file which is none."""
