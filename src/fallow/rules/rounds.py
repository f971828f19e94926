"""The training log: which updates count in which round, from where a worker rebuilds the state, and how the log is
rolled back when an update in it turns out to be false.

The log is append-only but for a rollback. The state that round r starts from is a function of the model (or a
checkpoint) and the manifests up to r - 1 alone (r - 2 in a job that runs ahead), so everybody who has these has the
state, and the hash that each worker reports of it must be the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from fallow.kinds.rounds import RoundManifest, RoundPart
from fallow.wire.tasks import Part

CHECKPOINT_EVERY = 8
"""Rounds between checkpoints: bounds what a late joiner must replay."""


class RoundEntry(msgspec.Struct, frozen=True):
    """What one shard contributed to a round: the claim's output hash, its update, and the hash of the state that the
    worker started from."""

    answer: bytes
    update: Part
    state: bytes
    loss: str = ""


class Checkpoint(msgspec.Struct, frozen=True):
    """The state before round `round` as a blob."""

    round: int
    part: Part


class Log(msgspec.Struct):
    """`closed[r]` maps shard -> entry of round r; the current round is `len(closed)`. `began_ms` is when it began.
    Round r starts from the manifests up to r - 1 - `ahead`: with 1 a shard that has done its part of the current round
    goes on with the next, from its own update, and the links are busy while the machine computes."""

    shards: int
    rounds: int
    began_ms: int = 0
    ahead: int = 0
    closed: list[dict[int, RoundEntry]] = []
    checkpoints: list[Checkpoint] = []

    @property
    def current(self) -> int:
        return len(self.closed)

    @property
    def complete(self) -> bool:
        return self.current >= self.rounds

    def open_rounds(self) -> range:
        """The rounds that may be worked on: the current one and those ahead of it."""
        return range(self.current, min(self.rounds, self.current + 1 + self.ahead))

    def seen(self, number: int) -> int:
        """How many manifests round `number` starts from; all of them for the finish."""
        return max(0, number - self.ahead) if number < self.rounds else number

    def manifests(self, number: int) -> tuple[RoundManifest, ...]:
        """What round `number` starts from, from the last checkpoint on: updates ordered by shard. One blob that two
        shards gave counts twice."""
        return tuple(
            RoundManifest(at, tuple(entry.update.blob for _, entry in sorted(self.closed[at].items())))
            for at in range(self.base, self.seen(number))
        )

    @property
    def base(self) -> int:
        """The first round that has to be replayed."""
        return self.checkpoints[-1].round if self.checkpoints else 0

    def inputs(self, number: int) -> tuple[Part, ...]:
        """The blobs that `manifests` and the checkpoint speak of, each once, sorted by name."""
        parts = {
            f"update/{entry.update.blob.hex()}": entry.update
            for entries in self.closed[self.base : self.seen(number)]
            for entry in entries.values()
        }
        named = [Part(name, part.blob, part.size_bytes) for name, part in sorted(parts.items())]
        if self.checkpoints:
            part = self.checkpoints[-1].part
            named.insert(0, Part("checkpoint", part.blob, part.size_bytes))
        return tuple(named)

    def close(self, entries: Mapping[int, RoundEntry], now_ms: int) -> None:
        """Sign off the current round. Raises AssertionError for an empty or foreign set of shards: our bug."""
        assert not self.complete, "a complete log has no current round"
        assert entries, "a round without updates"
        assert all(0 <= shard < self.shards for shard in entries), "a shard that is none of ours"
        self.closed.append(dict(sorted(entries.items())))
        self.began_ms = now_ms

    def add_checkpoint(self, number: int, part: Part) -> None:
        """The state before round `number` is held as a blob from now on. Says nothing new about rounds that were rolled
        back or are older than what there is."""
        if self.base < number <= self.current:
            self.checkpoints.append(Checkpoint(number, part))

    def roll_back(self, number: int, now_ms: int) -> None:
        """Drop the manifests from round `number` on, and the checkpoints that its workers could not start from."""
        del self.closed[number:]
        self.checkpoints = [point for point in self.checkpoints if point.round <= self.seen(number)]
        self.began_ms = now_ms

    def first_false(self, answers: Mapping[tuple[int, int], bytes]) -> int | None:
        """The earliest closed round that holds an answer which is no longer believed. `answers` maps (round, shard)
        to the answer that is believed now; a shard that is missing there is not believed any more."""
        for number, entries in enumerate(self.closed):
            if any(answers.get((number, shard)) != entry.answer for shard, entry in entries.items()):
                return number
        return None


def place(log: Log, number: int, shard: int) -> RoundPart:
    """`shard`'s part of an open round. The first shard evaluates, and writes the checkpoints."""
    return RoundPart(
        number, shard, log.shards, log.manifests(number), evaluate=shard == 0,
        checkpoint=writes_checkpoint(number, shard),
    )  # fmt: skip


def writes_checkpoint(number: int, shard: int) -> bool:
    """Whether this part of a round leaves the state that it started from as a blob."""
    return shard == 0 and number > 0 and number % CHECKPOINT_EVERY == 0


def may_close(done: int, blocked: int, shards: int, elapsed_ms: int, within_ms: int) -> bool:
    """Whether the current round may close: `done` shards have a usable update and `blocked` wait for a check that
    must not be skipped. When all are done; or, past the time that a round is given, when more than half are (of two,
    one: else a silent one holds up the other until its lease ends) and nothing that could still be used waits for a
    check."""
    if done == shards:
        return True
    most = done == 1 if shards == 2 else 2 * done > shards
    return elapsed_ms >= within_ms and most and blocked == 0


def dissenters(states: Mapping[int, bytes]) -> tuple[int, ...]:
    """The shards whose reported state is not the one that most report; all of them when there is no majority, since
    then nobody knows who is right."""
    counts: dict[bytes, int] = {}
    for state in states.values():
        counts[state] = counts.get(state, 0) + 1
    if len(counts) < 2:
        return ()
    most = max(counts.values())
    leaders = [state for state, count in counts.items() if count == most]
    if len(leaders) > 1:
        return tuple(sorted(states))
    return tuple(sorted(shard for shard, state in states.items() if state != leaders[0]))


def common_state(entries: Sequence[RoundEntry]) -> tuple[bytes, bool]:
    """-> (the state that most entries report, the lowest of equals; whether all report it)."""
    states = [entry.state for entry in entries]
    best = min(set(states), key=lambda state: (-states.count(state), state), default=b"")
    return best, len(set(states)) <= 1
