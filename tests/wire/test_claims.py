from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.making import structs
from tests.wire.parties import AUDITORS, BANK, RIGHT, TASK, WRONG, evidence

from fallow.wire.claims import (
    Accumulator,
    MerkleTree,
    check_path,
    evidence_holds,
    evidence_leaf,
    lane_leaf,
    merkle_root,
    output_hash,
    params_hash,
    setting_hash,
    task_id,
    task_leaf,
    value_hash,
)
from fallow.wire.codec import encode
from fallow.wire.documents import ClaimRoot
from fallow.wire.eip712 import recover
from fallow.wire.tasks import LaneSetting, Part, TaskOutput

WORDS = st.binary(min_size=32, max_size=32)
LEAVES = st.lists(WORDS, min_size=1, max_size=70)


def leaves_of(count: int) -> list[bytes]:
    return [sha256(str(n).encode()).digest() for n in range(count)]


def slow_root(leaves: list[bytes]) -> bytes:
    """The tree of RFC 6962, written as it is defined there."""

    def top(part: list[bytes]) -> bytes:
        if len(part) == 1:
            return part[0]
        split = 1
        while split * 2 < len(part):
            split *= 2
        return blake3(b"\x02" + top(part[:split]) + top(part[split:])).digest()

    return blake3(b"\x03" + len(leaves).to_bytes(8, "big") + top(leaves)).digest()


@given(LEAVES)
def test_three_ways_to_one_root(leaves: list[bytes]) -> None:
    assert merkle_root(leaves) == MerkleTree(leaves).root == slow_root(leaves)


def test_the_root_can_be_asked_for_at_any_time() -> None:
    accumulator, leaves = Accumulator(), leaves_of(130)
    for count, leaf in enumerate(leaves, 1):
        accumulator.add(leaf)
        assert accumulator.count == count
        assert accumulator.root() == slow_root(leaves[:count])


def test_every_leaf_of_every_small_tree_has_a_path() -> None:
    for count in range(1, 40):
        leaves = leaves_of(count)
        tree = MerkleTree(leaves)
        for index, leaf in enumerate(leaves):
            assert check_path(tree.root, count, index, leaf, tree.path(index))


@given(LEAVES, st.data())
def test_nothing_else_has_that_path(leaves: list[bytes], data: st.DataObject) -> None:
    tree = MerkleTree(leaves)
    index = data.draw(st.integers(0, tree.count - 1))
    leaf, path = leaves[index], tree.path(index)
    other_index = data.draw(st.integers(-2, 80))
    other_count = data.draw(st.integers(0, 200))
    other_leaf = data.draw(WORDS)
    assert check_path(tree.root, tree.count, other_index, leaf, path) == (
        other_index == index
        or (0 <= other_index < tree.count and leaves[other_index] == leaf and tree.path(other_index) == path)
    )
    assert check_path(tree.root, other_count, index, leaf, path) == (other_count == tree.count)
    assert check_path(tree.root, tree.count, index, other_leaf, path) == (other_leaf == leaf)
    assert not check_path(tree.root, tree.count, index, leaf, (*path, bytes(32)))
    assert not path or not check_path(tree.root, tree.count, index, leaf, path[:-1])
    assert not path or not check_path(tree.root, tree.count, index, leaf, (other_than(path[0]), *path[1:]))


def other_than(word: bytes) -> bytes:
    return bytes((word[0] ^ 1,)) + word[1:]


@given(
    st.binary(max_size=40),
    st.integers(-5, 1 << 40),
    st.integers(-5, 1 << 40),
    st.binary(max_size=40),
    st.lists(st.binary(max_size=40), max_size=40),
)
def test_noise_is_no_path_and_never_raises(root: bytes, count: int, index: int, leaf: bytes, path: list[bytes]) -> None:
    assert not check_path(root, count, index, leaf, path)


def test_an_inner_node_cannot_pose_as_a_leaf() -> None:
    """The second preimage of trees without domain separation: a tree of two leaves whose leaves are our inner nodes."""
    leaves = leaves_of(4)
    inner = [blake3(b"\x02" + leaves[0] + leaves[1]).digest(), blake3(b"\x02" + leaves[2] + leaves[3]).digest()]
    tree = MerkleTree(leaves)
    assert tree.path(0)[1] == inner[1]
    assert merkle_root(inner) != tree.root
    assert not check_path(tree.root, 2, 0, inner[0], (inner[1],))
    assert not check_path(tree.root, 4, 0, inner[0], (inner[1],))


def test_a_lone_leaf_is_not_its_own_root() -> None:
    [leaf] = leaves_of(1)
    assert merkle_root([leaf]) != leaf
    assert check_path(merkle_root([leaf]), 1, 0, leaf, ())


def test_a_leaf_cannot_be_counted_twice() -> None:
    """Where lone nodes are paired with themselves, [a, b, c] and [a, b, c, c] have one root."""
    a, b, c = leaves_of(3)
    assert merkle_root([a, b, c]) != merkle_root([a, b, c, c])


def test_nobody_commits_to_nothing() -> None:
    for make in (lambda: merkle_root([]), lambda: MerkleTree([]), lambda: Accumulator().root()):
        with pytest.raises(ValueError, match="no leaves"):
            make()


def test_only_hashes_are_leaves() -> None:
    for make in (
        lambda: merkle_root([b"short"]),
        lambda: MerkleTree([bytes(33)]),
        lambda: task_leaf(b"", bytes(32), 1),
        lambda: task_leaf(bytes(32), bytes(31), 1),
        lambda: lane_leaf(1, b"params", 0, bytes(32), 1),
        lambda: lane_leaf(1, bytes(32), 0, b"value", 1),
    ):
        with pytest.raises(ValueError, match="32 bytes"):
            make()


def test_there_is_no_path_for_what_is_not_there() -> None:
    for index in (-1, 3):
        with pytest.raises(IndexError):
            MerkleTree(leaves_of(3)).path(index)


def test_every_part_of_a_leaf_counts_and_kinds_do_not_mix() -> None:
    word, other = bytes(32), b"x" * 32
    leaves = {
        task_leaf(word, word, 0), task_leaf(other, word, 0), task_leaf(word, other, 0), task_leaf(word, word, 1),
        lane_leaf(0, word, 0, word, 0), lane_leaf(1, word, 0, word, 0), lane_leaf(0, other, 0, word, 0),
        lane_leaf(0, word, 1, word, 0), lane_leaf(0, word, 0, other, 0), lane_leaf(0, word, 0, word, 1),
        lane_leaf(0, word, 0, word, 0, word), lane_leaf(0, word, 0, word, 0, other),
    }  # fmt: skip
    assert len(leaves) == 12


def test_every_part_of_a_lanes_setting_counts() -> None:
    model, other = (Part("model", bytes([n]) * 32, 1) for n in range(2))
    settings = [
        LaneSetting("echo"), LaneSetting("spin"), LaneSetting("echo", (model,)), LaneSetting("echo", (other,)),
        LaneSetting("echo", (model, other)), LaneSetting("echo", (), 1), LaneSetting("echo", (), 0, exact=True),
    ]  # fmt: skip
    assert len({setting_hash(setting) for setting in settings}) == len(settings)


@given(structs(TaskOutput), structs(TaskOutput))
def test_outputs_are_equal_when_their_hashes_are(one: TaskOutput, other: TaskOutput) -> None:
    assert (output_hash(one) == output_hash(other)) == (one == other)


def test_ids_are_the_blake3_hash_of_the_canonical_bytes() -> None:
    assert task_id(TASK) == blake3(encode(TASK)).digest()
    assert output_hash(RIGHT) == blake3(encode(RIGHT)).digest()
    assert task_id(msgspec.structs.replace(TASK, seed=8)) != task_id(TASK)


def test_a_lanes_answer_hashes_like_a_tasks_output() -> None:
    assert value_hash(b"answer") == output_hash(TaskOutput(b"answer", ()))


@pytest.mark.parametrize("number", [0, 9])
def test_evidence_holds_for_its_task_and_output_only(number: int) -> None:
    found = evidence(AUDITORS[0], output_hash(RIGHT), number)
    claim, _ = recover(found.claim, BANK.account)
    assert isinstance(claim, ClaimRoot)
    assert evidence_holds(found, TASK, claim.root, claim.count)
    for touched in (
        msgspec.structs.replace(found, output=output_hash(WRONG)),
        msgspec.structs.replace(found, units=found.units + 1),
        msgspec.structs.replace(found, index=found.index - 1),
        msgspec.structs.replace(found, number=number + 1),
        msgspec.structs.replace(found, path=()),
    ):
        assert not evidence_holds(touched, TASK, claim.root, claim.count)
    for task in (msgspec.structs.replace(TASK, params=b"other"), msgspec.structs.replace(TASK, seed=8)):
        assert not evidence_holds(found, task, claim.root, claim.count)
    assert not evidence_holds(found, TASK, claim.root, claim.count + 1)


def test_a_leaf_says_which_kind_of_task_it_is() -> None:
    output = output_hash(RIGHT)
    assert evidence_leaf(evidence(AUDITORS[0], output), TASK) == task_leaf(task_id(TASK), output, TASK.units)
    assert evidence_leaf(evidence(AUDITORS[0], output, 9), TASK) == lane_leaf(
        9, params_hash(TASK.params), TASK.seed, output, TASK.units
    )
