"""Playbooks of the provider's machine: event in, effects out."""

from __future__ import annotations

import pytest
from tests.rules.provider.provider_play import ANNA_NODE, EVE_NODE, Play, kinds, output, spec, terms

from fallow.kinds.registry import KINDS
from fallow.kinds.train.tasks import TrainRound
from fallow.kinds.train.trace import MAX_TRACE_BYTES
from fallow.rules.provider import events as t
from fallow.units import GIB
from fallow.wire.claims import merkle_root, output_hash, task_id, task_leaf
from fallow.wire.codec import encode
from fallow.wire.messages import LeaseLeaving, TaskFailed
from fallow.wire.tasks import DEFAULT_TRACE_BYTES, Recipe, TaskSpec


def test_a_task_runs_only_when_the_escrow_is_open() -> None:
    play = Play()
    lease = play.sign()
    assert kinds(play.assign(lease, spec(1))) == ["ReplyOk", "CheckEscrow"]
    assert play.outstanding() == [t.CheckEscrow(lease)]
    (start,) = play.put(t.LedgerOpened, lease)
    assert start == t.StartTask(lease, task_id(spec(1)), spec(1), ())
    assert play.put(t.LedgerOpened, lease) == []


def test_tasks_of_a_lease_run_one_after_the_other_and_each_is_claimed_once() -> None:
    play = Play()
    lease = play.open()
    assert kinds(play.assign(lease, spec(1))) == ["ReplyOk", "StartTask"]
    assert kinds(play.assign(lease, spec(2))) == ["ReplyOk"]
    claim, start = play.finish(lease, spec(1))
    assert start.task == task_id(spec(2))
    assert (claim.sequence, claim.root.sequence, claim.root.count, claim.root.units) == (1, 1, 1, 10)
    assert claim.root.root == merkle_root([task_leaf(task_id(spec(1)), output_hash(output()), 10)])
    assert play.finish(lease, spec(1)) == []
    claim, *rest = play.finish(lease, spec(2))
    assert (claim.sequence, claim.root.sequence, rest) == (2, 2, [])


def test_a_known_task_is_not_started_twice() -> None:
    play = Play()
    lease = play.open()
    play.assign(lease, spec(1))
    assert kinds(play.assign(lease, spec(1))) == ["ReplyOk"]
    play.finish(lease, spec(1))
    assert kinds(play.assign(lease, spec(1))) == ["ReplyOk"]
    assert play.state.leases[lease].claimed_units == 10


def test_strangers_learn_and_change_nothing() -> None:
    play = Play()
    lease = play.open()
    before = play.state.changes
    assert kinds(play.assign(lease, spec(1), caller=EVE_NODE)) == ["ReplyFailure"]
    assert play.put(t.PeerClosed, EVE_NODE, lease) == play.put(t.PeerClosed, EVE_NODE, bytes(32))
    assert kinds(play.put(t.PeerCancelled, EVE_NODE, lease, task_id(spec(1)))) == ["ReplyFailure"]
    assert play.state.changes == before


def test_tasks_that_the_lease_does_not_cover_are_refused() -> None:
    play = Play()
    lease = play.open(cap_ucr=25)
    for wrong in (spec(1, units=26), spec(1, kind="train"), spec(1, ram_bytes=1 << 40)):
        (reply,) = play.assign(lease, wrong)
        assert (reply.code, play.state.leases[lease].tasks) == ("E1205", {})
    assert kinds(play.assign(lease, spec(1, units=20))) == ["ReplyOk", "StartTask"]
    (reply,) = play.assign(lease, spec(2, units=6))
    assert reply.code == "E1205"


def test_a_round_that_keeps_more_than_was_leased_is_refused() -> None:
    """Else an order for little room could fill the disk; what always was kept needs no asking."""

    def a_round(trace_bytes: int, arithmetic: str = "exact") -> TaskSpec:
        recipe = Recipe("full", arithmetic=arithmetic, trace_bytes=trace_bytes)
        params = TrainRound(recipe, 0, 0, 2, (), evaluate=False, checkpoint=False)
        return spec(trace_bytes, kind="train", params=encode(params))

    play = Play()
    lease = play.open(kind="train", disk_bytes=18 * GIB)
    for number in (6 * GIB + 1, MAX_TRACE_BYTES, (1 << 63) - 1):
        (reply,) = play.assign(lease, a_round(number))
        assert (reply.code, play.state.leases[lease].tasks) == ("E1205", {})
    for good in (a_round(6 * GIB), a_round(1 << 50, "fp32"), spec(1, kind="train", params=b"for the worker to refuse")):
        assert play.assign(lease, good)[0] == t.ReplyOk()
    modest = play.open(2, kind="train", disk_bytes=0)
    assert play.assign(modest, a_round(DEFAULT_TRACE_BYTES))[0] == t.ReplyOk()
    assert play.assign(modest, a_round(DEFAULT_TRACE_BYTES + 1))[0].code == "E1205"


def test_a_requester_cannot_fill_our_memory_with_tasks() -> None:
    play = Play(policy=t.ProviderPolicy(max_queued=2))
    lease = play.open()
    for number in range(3):
        assert kinds(play.assign(lease, spec(number)))[0] == "ReplyOk"
    (reply,) = play.assign(lease, spec(3))
    assert reply.code == "E1803"


def test_cancelling_stops_the_worker_and_frees_the_cap() -> None:
    play = Play()
    lease = play.open(cap_ucr=20)
    play.assign(lease, spec(1))
    play.assign(lease, spec(2))
    effects = play.put(t.PeerCancelled, ANNA_NODE, lease, task_id(spec(1)))
    assert kinds(effects) == ["ReplyOk", "StopTask", "EmitEvent", "StartTask"]
    assert effects[2].body == TaskFailed(task_id(spec(1)), "E1402", "cancelled by the requester", False)
    assert play.finish(lease, spec(1)) == []
    assert kinds(play.assign(lease, spec(1))) == ["ReplyOk"]
    assert kinds(play.assign(lease, spec(3))) == ["ReplyOk"]


def test_a_failed_task_may_be_assigned_again_only_when_it_may_succeed() -> None:
    play = Play()
    lease = play.open()
    play.assign(lease, spec(1))
    (failed,) = play.put(t.WorkerFailedTask, lease, task_id(spec(1)), "E1704", "out of memory", True)
    assert failed.body.retryable
    assert kinds(play.assign(lease, spec(1))) == ["ReplyOk", "StartTask"]
    play.put(t.WorkerFailedTask, lease, task_id(spec(1)), "E1701", "not a model", False)
    assert kinds(play.assign(lease, spec(1))) == ["ReplyOk"]


def test_a_worker_that_keeps_dying_is_given_up() -> None:
    play = Play(policy=t.ProviderPolicy(max_attempts=3))
    lease = play.open()
    play.assign(lease, spec(1))
    died = (lease, task_id(spec(1)), "E1704", "gone", True, True)
    assert kinds(play.put(t.WorkerFailedTask, *died)) == ["StartTask"]
    assert kinds(play.put(t.WorkerFailedTask, *died)) == ["StartTask"]
    (gone,) = play.put(t.WorkerFailedTask, *died)
    assert gone.body == TaskFailed(task_id(spec(1)), "E1704", "the worker died 3 times", True)


def test_a_restart_runs_again_what_ran_and_keeps_the_order() -> None:
    play = Play()
    lease = play.open()
    for number in (1, 2, 3):
        play.assign(lease, spec(number))
    play.finish(lease, spec(1))
    (start,) = play.put(t.ProviderRestarted, terms())
    assert start.task == task_id(spec(2))
    assert play.outstanding() == [start]
    state, emitted = play.replayed()
    assert state == play.state
    assert emitted == play.emitted


def test_a_claim_made_before_the_crash_is_appended_again_with_the_same_number() -> None:
    play = Play()
    lease = play.open()
    play.assign(lease, spec(1))
    (claim,) = play.finish(lease, spec(1))
    _, emitted = play.replayed()
    assert emitted == [claim]


def test_lanes_are_claimed_in_batches_that_never_overlap() -> None:
    play = Play()
    lease = play.open()
    (claim,) = play.put(t.LaneAnswered, lease, 1, 500, 480, b"r" * 32)
    assert (claim.first, claim.root.count, claim.root.units, claim.root.root) == (1, 500, 480, b"r" * 32)
    for first, count in ((1, 500), (500, 10), (501, 0)):
        assert play.put(t.LaneAnswered, lease, first, count, 1, b"s" * 32) == []
    (claim,) = play.put(t.LaneAnswered, lease, 600, 3, 3, b"s" * 32)
    assert (claim.root.sequence, play.state.leases[lease].claimed_units) == (2, 483)


def test_when_the_owner_returns_everything_stops_and_the_requester_is_told() -> None:
    play = Play()
    lease = play.open()
    play.assign(lease, spec(1))
    play.assign(lease, spec(2))
    stop, first, second, leaving = play.put(t.OwnerReturned, "somebody typed")
    assert stop == t.StopLease(lease)
    assert [first.body.code, second.body.code] == ["E1206", "E1206"]
    assert (leaving.body, leaving.sequence) == (LeaseLeaving("somebody typed"), 3)
    (reply,) = play.assign(lease, spec(3))
    assert (reply.code, reply.what) == ("E1206", "somebody typed")
    play.put(t.OwnerLeft)
    assert play.state.owner == ""
    assert kinds(play.assign(lease, spec(3))) == ["ReplyFailure"]


def test_a_closed_lease_is_forgotten_after_a_while() -> None:
    play = Play()
    lease = play.open()
    play.put(t.LedgerClosed, lease)
    play.later(t.ProviderPolicy().keep_ms - 1)
    assert lease in play.state.leases
    play.later(1)
    assert lease not in play.state.leases


def test_a_task_is_claimed_at_what_its_output_comes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it might have cost and did not is free for other tasks, and what it cost is what is owed."""
    monkeypatch.setattr(KINDS["echo"], "metered", lambda _task, _output: 3, raising=False)
    play = Play()
    lease, task = play.open(), spec(1, units=10)
    play.assign(lease, task)
    (claim,) = [e.root for e in play.finish(lease, task) if isinstance(e, t.SignClaim)]
    assert (claim.units, claim.root) == (3, merkle_root([task_leaf(task_id(task), output_hash(output()), 3)]))
    entry = play.state.leases[lease]
    assert (entry.claimed_units, entry.promised_units) == (3, 3)


def test_no_output_costs_more_than_its_task_was_metered_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KINDS["echo"], "metered", lambda _task, _output: 1_000, raising=False)
    play = Play()
    lease, task = play.open(), spec(1, units=10)
    play.assign(lease, task)
    (claim,) = [e.root for e in play.finish(lease, task) if isinstance(e, t.SignClaim)]
    assert claim.units == 10
