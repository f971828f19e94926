"""The socket for workloads: what everybody but its own program has to know of a kind of work.

A kind is one object: a name, some facts, and pure answers about its parameters and values. Its program runs in a worker
process and is named by `program`; nothing else in the tree names a kind (`tests/test_sockets.py`). What few kinds have
is an answer of its own: lanes (`kinds/lane.py`), chains of links (`kinds/chain.py`), rounds (`kinds/rounds.py`),
work that a receipt's owner does again (`kinds/replay.py`), programs of the buyer's own (`kinds/guest.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from fallow.kinds.chain import Chain
from fallow.kinds.guest import Guest
from fallow.kinds.lane import LaneSide
from fallow.kinds.replay import Replay
from fallow.kinds.rounds import Rounds
from fallow.units import MIB
from fallow.wire.local import Work
from fallow.wire.tasks import Part, TaskOutput, TaskSpec

READ_BYTES_PER_S = 1_000_000
"""At which a model is reckoned to be fetched: a home's line of 8 Mbit/s."""

BASE_BYTES = 400 * MIB
"""Python with the tensor libraries and a tokenizer."""
FP32, INT16 = 4, 2
GRAIN_BYTES = 64 * MIB
MOST_BYTES = 1 << 50


class Extra(NamedTuple):
    """What pip calls an extra (`pip install 'fallow[name]'`), and the packages that it brings."""

    name: str
    packages: tuple[str, ...]


TENSORS = Extra("train", ("torch", "transformers", "safetensors", "gguf"))
LLAMA = Extra("llm", ("xllamacpp",))


class Input(NamedTuple):
    """A file or folder that all tasks of a job get under `name`; an option of the command line, too."""

    name: str
    help: str


class Setting(NamedTuple):
    """A number that a person may set for all tasks of a job; an option of the command line, too."""

    name: str
    default: int
    help: str


class Kind(ABC):
    """A kind of work. `unit` is what its units are called; `depth` how many of its tasks a lease has under way at a
    time; `usual_ram_bytes` and `usual_s` what a task gets where nothing more is known of the work; `price_ucr` what a
    provider asks for 1,000 units until its owner says otherwise. `extras`: one of them must be installed (none: nothing
    is needed). `same_everywhere` says that answers never depend on the machine, `proves_exact` that its exact work is
    only asked of machines that passed the self-test, `quick` that a task may take less time than a worker takes to
    start, so that a lease's worker is kept for the same account's next lease. `program` is "module:function" of a
    function from Work to Outcome (`workloads/task.py`), imported by the worker alone. `inputs` and `settings` are what
    `fallow run` takes."""

    name: ClassVar[str]
    unit: ClassVar[str] = "units"
    depth: ClassVar[int]
    usual_ram_bytes: ClassVar[int]
    usual_s: ClassVar[int]
    price_ucr: ClassVar[int]
    same_everywhere: ClassVar[bool]
    program: ClassVar[str]
    proves_exact: ClassVar[bool] = False
    quick: ClassVar[bool] = False
    extras: ClassVar[tuple[Extra, ...]] = ()
    inputs: ClassVar[tuple[Input, ...]] = ()
    settings: ClassVar[tuple[Setting, ...]] = ()
    lane: ClassVar[LaneSide | None] = None
    rounds: ClassVar[Rounds | None] = None
    replay: ClassVar[Replay | None] = None
    guest: ClassVar[Guest | None] = None

    # what is asked ------------------------------------------------------------------------------------------------

    @abstractmethod
    def read(self, line: str, settings: Mapping[str, int]) -> bytes:
        """The parameters of one task from a person's line of text. Raises UsageError E2001 for a line that is none of
        this kind's."""

    @abstractmethod
    def units(self, params: bytes) -> int:
        """What a task with these parameters is metered at, at least 1; whoever pays and whoever works reckon it alike.
        Raises PeerFault E1102 or UsageError E1707 for what are no parameters of this kind: so does whoever is handed
        them."""

    def parts(self, params: bytes) -> tuple[Part, ...]:
        """The blobs that the parameters themselves name: inputs of that task, beside what all tasks of its job get.
        Raises as `units` does."""
        return ()

    # what it takes ------------------------------------------------------------------------------------------------

    @abstractmethod
    def speed(self, flops: int) -> int:
        """Units a second on a machine of so many floating-point operations a second, at least 1."""

    def ram_bytes(self, work: Work) -> int:
        """What each provider of the job is asked for."""
        return self.usual_ram_bytes

    def timeout_s(self, work: Work, units: int) -> int:
        """How long a task of `units` may take, fetching and loading included."""
        return self.usual_s

    def lease_ms(self, work: Work, largest_units: int, usual_ms: int) -> int:
        """A lease's term: the usual one, or as long as two of the job's largest tasks may take."""
        longest_s = self.timeout_s(work, largest_units)
        return usual_ms if longest_s <= self.usual_s else max(usual_ms, 2 * longest_s * 1_000)

    def disk_bytes(self, work: Work) -> int:
        """The room that each provider of the job is asked for."""
        return 0

    def output_bytes(self, work: Work) -> int:
        """The most that the files of a task's output may take on the buyer's disk: what claims more is no answer."""
        return GRAIN_BYTES

    def kept_bytes(self, task: TaskSpec) -> int:
        """The room that a task's commitments take on a provider's disk; 0 for parameters that cannot be read."""
        return 0

    # what comes out -----------------------------------------------------------------------------------------------

    def metered(self, task: TaskSpec, output: TaskOutput) -> int:
        """What the finished task costs in units, where its output tells how much was done: that is checked like the
        rest of the output. Never more than `task.units`, which is what it may cost at most. Raises nothing."""
        return task.units

    @abstractmethod
    def well_formed(self, task: TaskSpec, output: TaskOutput) -> bool:
        """Whether an output has what it must have, whoever agrees. Raises nothing, whatever a provider wrote."""

    @abstractmethod
    def shown(self, value: bytes) -> str:
        """A value as text for people; "" where it is none. Raises nothing."""

    def exact(self, work: Work) -> bool:
        """Whether the job's work gives the same bits on every machine that passed the self-test."""
        return False

    def chain(self, work: Work) -> Chain | None:
        """How the claims of a job are chains of links, a few of which are done again; None where they are not."""
        return None

    def claimed_chain(self, task: TaskSpec, output: TaskOutput) -> Chain | None:
        """The same for somebody who has only a claim; None where it is no chain."""
        return None


def text_of(value: bytes) -> str:
    """A value that is plain text, or ""."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return ""


def grains(size_bytes: int) -> int:
    """A size as orders ask for it; never more than MOST_BYTES, whatever was said of a model."""
    return min(-(-size_bytes // GRAIN_BYTES) * GRAIN_BYTES, MOST_BYTES)
