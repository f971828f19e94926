"""The training log."""

from __future__ import annotations

import pytest

from fallow.kinds.rounds import RoundManifest, RoundPart
from fallow.rules import rounds
from fallow.rules.rounds import CHECKPOINT_EVERY, Log, RoundEntry
from fallow.wire.tasks import Part


def entry(number: int, shard: int, answer: str = "a", state: bytes = b"s" * 32) -> RoundEntry:
    blob = bytes([number, shard]) * 16
    return RoundEntry(f"{answer}{number}{shard}".encode(), Part("update", blob, 5), state)


def log_of(count: int, shards: int = 2, length: int = 20) -> Log:
    log = Log(shards, length)
    for number in range(count):
        log.close({shard: entry(number, shard) for shard in reversed(range(shards))}, number)
    return log


def test_manifests_are_ordered_by_shard() -> None:
    assert log_of(1).manifests(1) == (RoundManifest(0, (bytes([0, 0]) * 16, bytes([0, 1]) * 16)),)


def test_params_carry_what_is_needed_to_rebuild_the_state() -> None:
    log = log_of(2)
    assert rounds.place(log, 2, 1) == RoundPart(2, 1, 2, log.manifests(2), evaluate=False, checkpoint=False)
    assert rounds.place(log, 2, 0).evaluate
    assert [part.name for part in log.inputs(2)] == sorted(
        f"update/{(bytes([n, s]) * 16).hex()}" for n in (0, 1) for s in (0, 1)
    )


def test_only_the_first_shard_writes_checkpoints_and_not_of_nothing() -> None:
    assert not rounds.place(log_of(0), 0, 0).checkpoint
    log = log_of(CHECKPOINT_EVERY)
    assert rounds.place(log, CHECKPOINT_EVERY, 0).checkpoint
    assert not rounds.place(log, CHECKPOINT_EVERY, 1).checkpoint


def test_from_a_checkpoint_only_later_rounds_are_replayed() -> None:
    log = log_of(10)
    point = Part("checkpoint", b"c" * 32, 9)
    log.add_checkpoint(8, point)
    assert log.base == 8
    assert [manifest.round for manifest in log.manifests(10)] == [8, 9]
    assert log.inputs(10)[0] == point
    assert len(log.inputs(10)) == 5
    log.add_checkpoint(8, point)
    log.add_checkpoint(3, point)
    log.add_checkpoint(11, point)
    assert len(log.checkpoints) == 1


def test_a_job_that_runs_ahead_starts_a_round_without_the_manifest_before_it() -> None:
    log = log_of(10)
    log.ahead = 1
    assert list(log.open_rounds()) == [10, 11]
    assert [manifest.round for manifest in log.manifests(10)] == list(range(9))
    assert [manifest.round for manifest in log.manifests(11)] == list(range(10))
    log.add_checkpoint(log.seen(8), Part("checkpoint", b"c" * 32, 9))
    assert [manifest.round for manifest in log.manifests(10)] == [7, 8]
    log.roll_back(7, 99)  # whoever does round 7 again starts from the manifests up to round 5
    assert log.checkpoints == []
    full = log_of(20)
    full.ahead = 1
    assert not full.open_rounds()
    assert len(full.manifests(20)) == 20


def test_rolling_back_drops_rounds_and_later_checkpoints() -> None:
    log = log_of(10)
    log.add_checkpoint(8, Part("checkpoint", b"c" * 32, 9))
    log.roll_back(8, 99)
    assert (log.current, log.base, log.began_ms) == (8, 8, 99)
    log.roll_back(7, 100)
    assert (log.current, log.base, log.checkpoints) == (7, 0, [])


def test_the_first_false_round_is_found() -> None:
    log = log_of(3)
    believed = {(n, s): f"a{n}{s}".encode() for n in range(3) for s in range(2)}
    assert log.first_false(believed) is None
    assert log.first_false(believed | {(2, 0): b"other", (1, 1): b"other"}) == 1
    del believed[0, 1]
    assert log.first_false(believed) == 0


def test_our_own_bugs_are_caught() -> None:
    with pytest.raises(AssertionError):
        log_of(1).close({}, 0)
    with pytest.raises(AssertionError):
        log_of(1).close({2: entry(1, 2)}, 0)
    with pytest.raises(AssertionError):
        log_of(1, length=1).close({0: entry(1, 0)}, 0)


@pytest.mark.parametrize(
    ("done", "blocked", "elapsed", "may"),
    [(4, 0, 0, True), (3, 0, 0, False), (3, 0, 100, True), (3, 1, 100, False), (2, 0, 100, False), (0, 0, 999, False)],
)
def test_rounds_close_when_all_are_there_or_time_is_up(done: int, blocked: int, elapsed: int, may: bool) -> None:
    assert rounds.may_close(done, blocked, 4, elapsed, 100) is may


def test_dissenters_are_the_minority_or_everybody() -> None:
    assert rounds.dissenters({0: b"x", 1: b"x"}) == ()
    assert rounds.dissenters({0: b"x", 1: b"y", 2: b"x"}) == (1,)
    assert rounds.dissenters({0: b"x", 1: b"y"}) == (0, 1)
    assert rounds.dissenters({}) == ()


def test_the_common_state() -> None:
    assert rounds.common_state([entry(0, 0), entry(0, 1)]) == (b"s" * 32, True)
    assert rounds.common_state([entry(0, 0), entry(0, 1, state=b"t" * 32), entry(0, 0)]) == (b"s" * 32, False)
    assert rounds.common_state([]) == (b"", True)


def test_of_two_one_does_not_wait_for_the_other_for_ever() -> None:
    """A silent provider held up a training job of two until its lease ended."""
    assert not rounds.may_close(1, 0, 2, 99, 100)
    assert not rounds.may_close(1, 1, 2, 100, 100)
    assert not rounds.may_close(0, 0, 2, 100, 100)
    assert rounds.may_close(1, 0, 2, 100, 100)
