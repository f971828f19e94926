"""The socket for forms of jobs: what a job's tasks are, when which of them may begin, and what comes of them.

A form is a struct that inherits from `Work` (what the owner says), an object that inherits from `Shape` (what is done
about it), and one line in `shapes/registry.py`. What it remembers of a job is its own `ShapeState`, which lies in
`Job.form`, in snapshots too. Nothing else in the tree names a form (`tests/test_sockets.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from fallow.errors import FallowError, fail
from fallow.rules import market
from fallow.rules.steward.check import check_of
from fallow.rules.steward.events import StewardEvent
from fallow.rules.steward.state import Job, Mark, Run, Seat, Slot, State, Turn
from fallow.wire.local import JobSpec, RoundView, Work
from fallow.wire.tasks import Part


class LaneTerms(NamedTuple):
    """What a provider loads to answer on a lane, as parts by name; and the name that people ask for, "" for a lane that
    only its owner uses."""

    inputs: tuple[Part, ...] = ()
    context_tokens: int = 0
    exact: bool = False
    served_as: str = ""


class Shape(ABC):
    """A form of jobs, called `name` before people. Jobs `on_lanes` live on leases that answer whoever asks; those of
    the others have slots, one for each task. `progress_text` is what people are told when more of it is done, "" for a
    form that tells them itself."""

    name: ClassVar[str]
    on_lanes: ClassVar[bool] = False
    progress_text: ClassVar[str] = "Tasks are final."

    # of a job as it is wanted -----------------------------------------------------------------------------------------

    def of_inputs(self, kind: str, params: tuple[bytes, ...], inputs: tuple[Part, ...], units_each: int) -> Work:
        """The work that is meant by a list of a kind's parameters, what all tasks get, and the most units that any of
        them is. Raises UsageError E2001 where it takes more than that to say what the job is about."""
        raise fail("E2001", f"A {self.name} job is more than a list of inputs.")

    def refuse(self, spec: JobSpec) -> str:
        """Why such a job cannot be meant; "" when it can."""
        return ""

    def params(self, work: Work) -> Sequence[bytes]:
        """The parameters that the owner gave for tasks: each has to be one of the job's kind."""
        return ()

    @abstractmethod
    def inputs(self, work: Work) -> Sequence[bytes]:
        """The owner's blobs that the job is about."""

    @abstractmethod
    def volume(self, spec: JobSpec) -> market.Volume:
        """How many tasks and units the job's work is."""

    def seats(self, spec: JobSpec) -> int:
        """How many leases the job wants at a time, without checks."""
        return min(spec.workers, max(1, self.volume(spec).tasks))

    def lane(self, work: Work) -> LaneTerms:
        """What a lane of the job's needs, where it is on lanes."""
        raise fail("E2001", "This job has no lane.")

    # of a job under way -----------------------------------------------------------------------------------------------

    @abstractmethod
    def start(self, turn: Turn, job: Job) -> None:
        """Give a new job its first slots, and its state where the form has one."""

    def resume(self, turn: Turn, job: Job) -> None:
        """The steward was away: clocks of the form's own that run against peers begin anew."""
        return

    def advance(self, turn: Turn, job: Job) -> None:
        """Go as far as the answers allow. Called whenever the job is looked after; where the job has a state of its
        form's, `job.moved` says that an answer moved (or was lost) since, and is to be taken back here."""
        return

    def refused(self, turn: Turn, job: Job, slot: Slot, run: Run) -> str:
        """Why a claimed answer, well formed by itself, cannot stand beside those to other tasks; "" when it can."""
        return ""

    def arrived(self, turn: Turn, job: Job, blob: bytes) -> None:
        """A blob of a claim is in our own store."""
        return

    def heard(self, turn: Turn, job: Job, seat: Seat, event: StewardEvent) -> None:
        """Something happened under the seat's lease that is no business of the machine's: it is the check's, unless it
        is the form's."""
        check_of(job).heard(turn, job, seat, event)

    def fill_up(self, job: Job) -> None:
        """Seats whose cap has no room for another task get no more; another lease takes their place while the budget
        lasts."""
        if not job.queue.waiting and not job.queue.wanting:
            return
        keys = (next(iter(queue)) for queue in (job.queue.waiting, job.queue.wanting) if queue)
        least = min(job.slots[key].spec.units for key in keys)
        for seat in job.usable:
            if seat.room_units() < least:
                seat.mark = Mark.FULL

    def complete(self, job: Job) -> bool:
        """Whether every answer that the job is for is there."""
        return job.queue.unusable == 0

    def outputs(self, job: Job) -> Sequence[int | None]:
        """The keys of the slots whose answers are the job's results, in their order; None where there is none yet."""
        return range(len(job.slots))

    def progress(self, job: Job) -> tuple[int, int]:
        """How much is done, and of how much; of 0 where that has no end."""
        return job.queue.finals, len(job.slots)

    def rounds(self, job: Job) -> tuple[RoundView, ...]:
        """The rounds that were closed, as people see them."""
        return ()

    def moments(self, state: State, job: Job) -> Iterator[int]:
        """When time alone makes the form act."""
        yield from ()


SHAPES: dict[type[Work], Shape] = {}
"""All forms; `shapes/registry.py` fills it."""


def shape_of(work: Work) -> Shape:
    """How jobs of this form are worked on. Raises UsageError E2001, which names it, for one that nobody registered."""
    found = SHAPES.get(type(work))
    if found is None:
        raise _unknown(type(work).__name__)
    return found


def shape_named(name: str) -> Shape:
    """The form that people call so. Raises UsageError E2001, which names it, for one that nobody registered."""
    found = next((shape for shape in SHAPES.values() if shape.name == name), None)
    if found is None:
        raise _unknown(name)
    return found


def _unknown(name: str) -> FallowError:
    known = ", ".join(shape.name for shape in SHAPES.values())
    return fail("E2001", f"No form of jobs is called {name[:40]!r}.", cause=f"Known: {known}.")
