"""What a provider commits to: leaves that say "this task gave this output for this many units", and the Merkle root
over them that its ClaimRoot signs.

The tree is that of RFC 6962 (a lone node at the right edge moves up unchanged), with BLAKE3 and a different first byte
for each kind of preimage: no inner node can pose as a leaf, no lane leaf as a task leaf. The root also hashes the
number of leaves, so nobody can prove a leaf of a tree while lying about the tree's size. A leaf names its whole task:
an assigned one by its id, a lane's by the lane's setting (model, adapter, context), params and seed.

Defends against: second preimages, leaves counted twice or in another place, trees of a false size. Does not defend
against a provider that signs two roots with one sequence number: the two signatures are the proof of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from blake3 import blake3

from fallow.units import Digest, TaskId
from fallow.wire.codec import encode
from fallow.wire.ledger import Evidence
from fallow.wire.tasks import LaneSetting, TaskOutput, TaskSpec

MAX_LEAVES = 1 << 32
"""More than any lease holds; a path then has at most 32 steps."""

_TASK_LEAF, _LANE_LEAF, _NODE, _ROOT, _SET_LEAF = b"\x00", b"\x01", b"\x02", b"\x03", b"\x04"
_U64 = struct.Struct(">Q").pack
_LANE, _SET_LANE = struct.Struct(">cQ32sQ32sQ").pack, struct.Struct(">cQ32sQ32sQ32s").pack


def task_id(task: TaskSpec) -> TaskId:
    """The BLAKE3 hash of the task's canonical bytes: equal work has equal ids everywhere."""
    return TaskId(blake3(encode(task)).digest())


def output_hash(output: TaskOutput) -> Digest:
    """What a provider claims and an auditor compares."""
    return Digest(blake3(encode(output)).digest())


def value_hash(value: bytes) -> Digest:
    """The output hash of a lane task's answer: that of a TaskOutput with this value and no parts, so that a lane's
    answer and a re-execution of the same work as a task compare equal."""
    return output_hash(TaskOutput(value, ()))


def accounts_hash(accounts: Sequence[bytes]) -> Digest:
    """How a bank's draw names the accounts that it drew, in order."""
    return Digest(blake3(b"".join(accounts)).digest())


def params_hash(params: bytes) -> Digest:
    """How a lane leaf names the parameters of its task."""
    return Digest(blake3(params).digest())


def setting_hash(setting: LaneSetting) -> Digest:
    """How a lane leaf names what its lane was opened for."""
    return Digest(blake3(encode(setting), derive_key_context="fallow lane setting 1").digest())


def task_leaf(task: bytes, output: bytes, units: int) -> Digest:
    """The leaf of an assigned task: its id, its output hash and what it cost in units."""
    return Digest(blake3(_TASK_LEAF + _word(task) + _word(output) + _U64(units)).digest())


def lane_leaf(number: int, params: bytes, seed: int, output: bytes, units: int, setting: bytes = b"") -> Digest:
    """The leaf of a lane task: its number within the lease, `params_hash`, seed, `value_hash`, units, and the lane's
    `setting_hash`; without one it is the leaf of before there were any, by which nobody can be charged. The number
    makes two equal tasks two leaves."""
    if not setting:
        return Digest(blake3(_LANE(_LANE_LEAF, number, _word(params), seed, _word(output), units)).digest())
    words = _SET_LANE(_SET_LEAF, number, _word(params), seed, _word(output), units, _word(setting))
    return Digest(blake3(words).digest())


def evidence_leaf(evidence: Evidence, task: TaskSpec, setting: bytes = b"") -> Digest:
    """The leaf that `evidence` says answered `task`: a lane leaf when it has a lane number, else a task leaf. `setting`
    is a lane's `setting_hash`."""
    if evidence.number:
        params = params_hash(task.params)
        return lane_leaf(evidence.number, params, task.seed, evidence.output, evidence.units, setting)
    return task_leaf(task_id(task), evidence.output, evidence.units)


def evidence_holds(evidence: Evidence, task: TaskSpec, root: bytes, count: int, setting: bytes = b"") -> bool:
    """Whether the claim root `root` over `count` leaves commits to this answer of `task`."""
    return check_path(root, count, evidence.index, evidence_leaf(evidence, task, setting), evidence.path)


class Accumulator:
    """The root over leaves that arrive one at a time. Adding costs two hashes on average, asking for the root at most
    33; it holds one hash per bit of the count, never the leaves."""

    def __init__(self) -> None:
        self._peaks: list[bytes] = []  # roots of full subtrees, largest first: one per set bit of count
        self.count = 0

    def add(self, leaf: bytes) -> None:
        carried, rest = _word(leaf), self.count
        while rest & 1:
            carried = blake3(_NODE + self._peaks.pop() + carried).digest()
            rest >>= 1
        self._peaks.append(carried)
        self.count += 1

    def extend(self, leaves: Iterable[bytes]) -> None:
        for leaf in leaves:
            self.add(leaf)

    def root(self) -> Digest:
        """Raises ValueError when empty: nobody commits to nothing."""
        if not self._peaks:
            raise ValueError("no leaves to commit to")
        top = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            top = blake3(_NODE + peak + top).digest()
        return _seal(top, self.count)


class MerkleTree:
    """A root with a path for each leaf; `leaves` of one claim, in order. Costs one hash per leaf to build, none per
    path. Raises ValueError for no leaves."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        if not leaves:
            raise ValueError("no leaves to commit to")
        self.count = len(leaves)
        self._levels: list[list[bytes]] = [[_word(leaf) for leaf in leaves]]
        while len(self._levels[-1]) > 1:
            self._levels.append(_level_above(self._levels[-1]))
        self.root = _seal(self._levels[-1][0], self.count)

    def path(self, index: int) -> tuple[bytes, ...]:
        """What `check_path` wants for leaf `index`, from the leaf upwards. Raises IndexError for no such leaf."""
        if not 0 <= index < self.count:
            raise IndexError(f"leaf {index} of {self.count}")
        path: list[bytes] = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            index >>= 1
        return tuple(path)


def merkle_root(leaves: Sequence[bytes]) -> Digest:
    """The root over `leaves`. Raises ValueError for none."""
    accumulator = Accumulator()
    accumulator.extend(leaves)
    return accumulator.root()


def check_path(root: bytes, count: int, index: int, leaf: bytes, path: Sequence[bytes]) -> bool:
    """Whether `leaf` is number `index` of the `count` leaves under `root`. False for anything that does not fit,
    whatever it is; a path must have exactly the length that `index` and `count` ask for."""
    if not 0 <= index < count <= MAX_LEAVES or len(leaf) != 32 or any(len(step) != 32 for step in path):
        return False
    steps, node, last = iter(path), leaf, count - 1
    while last:
        if index & 1:
            node = blake3(_NODE + next(steps, b"") + node).digest()
        elif index < last:
            node = blake3(_NODE + node + next(steps, b"")).digest()
        index >>= 1
        last >>= 1
    return next(steps, None) is None and _seal(node, count) == root


def _level_above(level: list[bytes]) -> list[bytes]:
    pairs = [blake3(_NODE + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
    return [*pairs, level[-1]] if len(level) % 2 else pairs


def _seal(top: bytes, count: int) -> Digest:
    return Digest(blake3(_ROOT + _U64(count) + top).digest())


def _word(value: bytes) -> bytes:
    if len(value) != 32:  # a short one would shift the fields after it
        raise ValueError(f"a hash has 32 bytes, not {len(value)}")
    return value
