"""Training rounds."""

from __future__ import annotations

import pytest
from tests.rules.steward.crowd import (
    Crowd,
    Provider,
    finish_of,
    h,
    honest_crowd,
    honest_output,
    lie,
    recipe,
    train_spec,
)

from fallow.kinds.train.tasks import TrainFinish, TrainParams, TrainRound, TrainValue
from fallow.rules.rounds import CHECKPOINT_EVERY
from fallow.rules.steward import events as t
from fallow.rules.steward.checks.ballot import builds_on
from fallow.rules.steward.machine import view
from fallow.rules.steward.shapes.round_tasks import rounds_of
from fallow.rules.steward.state import Fate, Step
from fallow.wire import codec
from fallow.wire.tasks import TaskOutput, TaskSpec


def settle(crowd: Crowd, times: int = 5) -> None:
    crowd.run()
    for _ in range(times):
        crowd.pass_time(6_000)


def params(effect: t.Assign) -> TrainRound | TrainFinish:
    return codec.decode(TrainParams, effect.spec.params)


def after(claims: int, salt: object = 0):
    """Honest for some claims, then a liar."""
    count = [0]

    def answer(spec: TaskSpec, honest: TaskOutput) -> TaskOutput:
        count[0] += 1
        return honest if count[0] <= claims else lie(salt)(spec, honest)

    return answer


def test_a_job_trains_all_rounds_and_finishes() -> None:
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(train_spec(workers=3, rounds=4))
    settle(crowd)
    shown = view(crowd.state, job)
    assert shown is not None
    assert (shown.phase, shown.done, shown.total) == ("done", 4, 4)
    assert [r.updates for r in shown.rounds] == [3, 3, 3, 3, 0]
    assert all(r.agreed for r in shown.rounds)
    assert [r.loss for r in shown.rounds] == ["3.000000", "2.900000", "2.800000", "2.700000", "1.500000"]
    assert [r.bytes_sent for r in shown.rounds] == [300, 300, 300, 300, 0]
    (output,) = crowd.outcome(job).outputs
    assert output is not None
    assert output.parts[0].name == "adapter/a.bin"
    log = rounds_of(crowd.state.jobs[job]).log
    assert log is not None
    assert codec.decode(TrainValue, output.value).state == h("state", log.manifests(4))


def test_a_round_builds_on_the_updates_before_it_and_a_shard_stays_where_its_state_is() -> None:
    crowd = Crowd(honest_crowd(3))
    crowd.submit(train_spec(workers=3, rounds=3, verify="none"))
    settle(crowd)
    where: dict[int, set[bytes]] = {}
    for effect in crowd.of(t.Assign):
        found = params(effect)
        if isinstance(found, TrainRound):
            assert len(found.manifests) == found.round
            names = [part.name for part in effect.spec.inputs]
            assert names[:2] == ["model", "data"]
            assert sum(name.startswith("update/") for name in names) == 3 * found.round
            assert ("carry" in names) == (found.round > 0)
            where.setdefault(found.shard, set()).add(effect.lease)
    assert all(len(leases) == 1 for leases in where.values())


def ahead_crowd(rounds: int = 4, *, hold: set[type] | None = None) -> tuple[Crowd, bytes]:
    crowd = Crowd(honest_crowd(3), hold=hold or set())
    return crowd, crowd.submit(train_spec(workers=3, rounds=rounds, verify="none", ahead=1))


def test_ahead_of_the_log_a_shard_goes_on_from_its_own_update() -> None:
    crowd, job = ahead_crowd()
    settle(crowd)
    assert crowd.outcome(job).code == ""
    state = crowd.state.jobs[job]
    for (number, shard), key in rounds_of(state).slots.items():
        spec = state.slots[key].spec
        found = codec.decode(TrainParams, spec.params)
        assert [manifest.round for manifest in found.manifests] == list(range(max(0, number - 1)))
        own = [part.blob for part in spec.inputs if part.name == "own"]
        before = state.slots[rounds_of(state).slots[number - 1, shard]].chosen() if number else None
        parts = before.output.parts if before is not None and before.output is not None else ()
        assert own == [part.blob for part in parts if part.name == "update"]
    log = rounds_of(state).log
    assert log is not None
    (output,) = crowd.outcome(job).outputs
    assert output is not None
    assert codec.decode(TrainValue, output.value).state == h("state", log.manifests(4))
    assert [manifest.round for manifest in log.manifests(4)] == [0, 1, 2, 3]


def test_one_round_ahead_and_no_further() -> None:
    """While the updates are on their way the next round is worked on; not the one after it."""
    crowd, job = ahead_crowd(hold={t.KeepBlob})
    crowd.run()
    given = [params(effect) for effect in crowd.of(t.Assign)]
    assert sorted((one.round, one.shard) for one in given if isinstance(one, TrainRound)) == [
        (number, shard) for number in (0, 1) for shard in range(3)
    ]
    log = rounds_of(crowd.state.jobs[job]).log
    assert log is not None
    assert log.current == 0


def test_work_on_an_update_that_turns_out_to_be_missing_is_dropped() -> None:
    crowd, job = ahead_crowd(hold={t.KeepBlob})
    crowd.run()
    state = crowd.state.jobs[job]
    first, onward = (state.slots[rounds_of(state).slots[number, 0]] for number in (0, 1))
    update = next(part for part in first.runs[0].output.parts if part.name == "update")  # pyright: ignore[reportOptionalMemberAccess]
    crowd.hold.clear()
    crowd.tell(t.BlobMissing(crowd.now_ms, job, update.blob))
    assert onward.retired
    assert (1, 0) not in rounds_of(state).slots or rounds_of(state).slots[1, 0] != onward.key
    for effect in crowd.of(t.KeepBlob):
        if effect.part.blob != update.blob:
            crowd.do(effect)
    settle(crowd)
    assert crowd.outcome(job).code == ""


def test_an_update_that_came_in_is_offered_to_all_other_workers_once() -> None:
    crowd, job = ahead_crowd(rounds=2)
    settle(crowd)
    log = rounds_of(crowd.state.jobs[job]).log
    assert log is not None
    told: dict[bytes, list[bytes]] = {}
    for effect in crowd.of(t.Prefetch):
        told.setdefault(effect.part.blob, []).append(crowd.leases[effect.lease][1].address.node)
    makers = {entry.update.blob for entries in log.closed for entry in entries.values()}
    assert set(told) == makers
    assert all(len(nodes) == len(set(nodes)) == 2 for nodes in told.values())


def test_no_update_of_an_unproven_cheat_enters_a_round() -> None:
    cheat = Provider("cheat", answer=lie(), price=900)
    crowd = Crowd([cheat, *honest_crowd(3)])
    job = crowd.submit(train_spec(workers=4, rounds=2))
    settle(crowd)
    assert not any("false update" in text for text in crowd.notes("round"))
    assert crowd.outcome(job).code == ""
    log = rounds_of(crowd.state.jobs[job]).log
    assert log is not None
    for number, entries in enumerate(log.closed):
        for shard, entry in entries.items():
            slot = crowd.state.jobs[job].slots[rounds_of(crowd.state.jobs[job]).slots[number, shard]]
            honest = honest_output(slot.spec)
            assert entry.update in honest.parts
    assert crowd.paid_to(cheat) == 0


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("honest_claims", [2, 3, 4, 5])
def test_a_later_cheat_is_rolled_back(honest_claims: int, ahead: int) -> None:
    cheat = Provider("cheat", answer=after(honest_claims), price=900)
    crowd = Crowd([cheat, *honest_crowd(4)])
    job = crowd.submit(train_spec(workers=4, rounds=5, verify="audit:rate=0.3", ahead=ahead))
    settle(crowd)
    state = crowd.state.jobs[job]
    assert crowd.outcome(job).code == ""
    assert crowd.state.standing(cheat.account).banned
    log = rounds_of(state).log
    assert log is not None
    for number, entries in enumerate(log.closed):
        for shard, entry in entries.items():
            assert entry.update in honest_output(state.slots[rounds_of(state).slots[number, shard]].spec).parts
    retired = [slot for slot in state.slots if slot.retired]
    for slot in retired:  # honest work on what turned out to be false ground is paid
        for run in slot.runs:
            if run.account != cheat.account and run.fate is Fate.CLAIMED:
                raise AssertionError("an honest claim was left unpaid")


def test_a_worker_that_dies_is_replaced_and_its_shard_goes_on_without_its_state() -> None:
    crowd = Crowd(honest_crowd(4))
    job = crowd.submit(train_spec(workers=3, rounds=4, verify="none"))
    crowd.run(until=lambda: bool(crowd.notes("round")))
    lost = crowd.leases[crowd.of(t.Assign)[0].lease][1]
    crowd.away.add(lost.name)
    crowd.queue = [e for e in crowd.queue if crowd.leases.get(getattr(e, "lease", b""), (0, 0))[1] is not lost]
    crowd.tell(t.PeerUnobserved(crowd.now_ms, lost.address.node))
    crowd.run()
    crowd.pass_time(61_000)
    settle(crowd)
    assert crowd.outcome(job).code == ""
    moved = [
        effect
        for effect in crowd.of(t.Assign)
        if isinstance(found := params(effect), TrainRound) and found.round == 1
        if not any(part.name == "carry" for part in effect.spec.inputs)
    ]
    assert moved


def test_a_straggler_is_left_out_when_time_is_up() -> None:
    late = Provider("late", answer=lambda spec, honest: None, price=900)
    crowd = Crowd([late, *honest_crowd(3)], timing=t.Timing(round_within=100_000))
    job = crowd.submit(train_spec(workers=3, rounds=2, verify="none"))
    settle(crowd)
    crowd.pass_time(100_000)
    assert any("came too late" in text for text in crowd.notes("round"))
    assert crowd.of(t.Cancel)
    for _ in range(3):
        crowd.pass_time(101_000)
    assert crowd.outcome(job).code == ""
    log = rounds_of(crowd.state.jobs[job]).log
    assert log is not None
    assert len(log.closed[0]) == 2


def test_who_starts_from_another_state_is_checked_and_caught() -> None:
    def other_state(spec: TaskSpec, honest: TaskOutput) -> TaskOutput:
        value = codec.decode(TrainValue, honest.value)
        return TaskOutput(codec.encode(TrainValue(h("wrong"), value.loss, value.tokens)), honest.parts)

    odd = Provider("odd", answer=other_state, price=900)
    crowd = Crowd([odd, *honest_crowd(3)])
    job = crowd.submit(train_spec(workers=4, rounds=2, verify="audit:probation=0,rate=0"))
    settle(crowd)
    assert any("another state" in text for text in crowd.notes("check"))
    assert crowd.state.standing(odd.account).banned
    assert crowd.outcome(job).code == ""
    shown = view(crowd.state, job)
    assert shown is not None
    assert all(r.agreed for r in shown.rounds)


@pytest.mark.parametrize("ahead", [0, 1])
def test_long_jobs_start_from_checked_checkpoints(ahead: int) -> None:
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(train_spec(workers=3, rounds=CHECKPOINT_EVERY + 3, verify="audit:rate=0", ahead=ahead))
    settle(crowd)
    assert crowd.outcome(job).code == ""
    last = next(found for effect in crowd.of(t.Assign) if isinstance(found := params(effect), TrainFinish))
    first = CHECKPOINT_EVERY - ahead
    assert [manifest.round for manifest in last.manifests] == list(range(first, CHECKPOINT_EVERY + 3))
    state = crowd.state.jobs[job]
    slot = state.slots[rounds_of(state).slots[CHECKPOINT_EVERY, 0]]
    assert slot.forced
    assert slot.step is Step.FINAL
    assert any(part.name == "checkpoint" for part in finish_of(state).spec.inputs)


def test_a_false_checkpoint_is_never_started_from() -> None:
    """A cheat on shard 0 writes a checkpoint of its own making."""

    def poisoned(spec: TaskSpec, honest: TaskOutput) -> TaskOutput:
        if any(part.name == "checkpoint" for part in honest.parts):
            return lie()(spec, honest)
        return honest

    cheat = Provider("cheat", answer=poisoned, price=900)
    crowd = Crowd([cheat, *honest_crowd(3)])
    job = crowd.submit(train_spec(workers=4, rounds=CHECKPOINT_EVERY + 2, verify="audit:rate=0"))
    settle(crowd)
    assert crowd.state.standing(cheat.account).banned
    assert crowd.outcome(job).code == ""
    log = rounds_of(crowd.state.jobs[job]).log
    assert log is not None
    for point in log.checkpoints:
        assert point.part.blob == h("checkpoint", point.round, point_manifests(crowd, job, point.round))


def point_manifests(crowd: Crowd, job: bytes, number: int) -> object:
    state = crowd.state.jobs[job]
    found = codec.decode(TrainParams, state.slots[rounds_of(state).slots[number, 0]].spec.params)
    return found.manifests


def test_a_false_result_is_caught_at_the_finish() -> None:
    def at_the_end(spec: TaskSpec, honest: TaskOutput) -> TaskOutput:
        if isinstance(codec.decode(TrainParams, spec.params), TrainFinish):
            return lie()(spec, honest)
        return honest

    cheat = Provider("cheat", answer=at_the_end, price=900)
    crowd = Crowd([cheat, *honest_crowd(3)])
    job = crowd.submit(train_spec(workers=4, rounds=2, verify="audit:rate=0"))
    settle(crowd)
    finish = finish_of(crowd.state.jobs[job])
    assert crowd.outcome(job).outputs == (honest_output(finish.spec),)


def test_nothing_unusable_is_believed() -> None:
    crowd = Crowd(honest_crowd(3), hold={t.Assign})
    job = crowd.submit(train_spec())
    crowd.run()
    assert not any(builds_on(crowd.state.jobs[job], slot) for slot in crowd.state.jobs[job].slots)


def test_recipes_without_rounds_are_refused() -> None:
    crowd = Crowd(honest_crowd(1))
    spec = train_spec()
    assert recipe(0).rounds == 0
    job = crowd.submit(train_spec(rounds=0))
    assert spec != crowd.state.jobs[job].spec
    assert crowd.outcome(job).code == "E2001"
