"""Properties of the whole machine with a crowd of which half cheats, events out of order, repeated, stale and made
up."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.rules.steward.crowd import (
    Crowd,
    Provider,
    batch_spec,
    finish_of,
    h,
    honest_output,
    lane_spec,
    lie,
    train_spec,
    word,
)

from fallow.rules.steward import events as t
from fallow.rules.steward.machine import State, due, outstanding, transition, view
from fallow.rules.steward.state import Fate, Job, Stage, Step
from fallow.units import cost_ucr
from fallow.wire import codec
from fallow.wire.documents import Signed
from fallow.wire.local import JobSpec, LaneJob
from fallow.wire.tasks import TaskOutput

WAYS: dict[str, Callable[[random.Random], dict[str, object]]] = {
    "honest": lambda r: {},
    "liar": lambda r: {"answer": lie(r.random())},
    "colluder": lambda r: {"answer": lie(0)},
    "sometimes": lambda r: {"answer": lambda s, hn: lie(1)(s, hn) if r.random() < 0.5 else hn},
    "silent": lambda r: {"answer": lambda s, hn: None},
    "withholder": lambda r: {"serves_blobs": False},
    "failing": lambda r: {"fails": "E1704"},
    "slanderer": lambda r: {"fails": "E1701", "retryable": False},
    "malformed": lambda r: {"answer": lambda s, hn: TaskOutput(b"?", ())},
    "decliner": lambda r: {"declines": True},
}
SPECS: dict[str, Callable[..., JobSpec]] = {"batch": batch_spec, "train": train_spec}


def never_more_than_is_owed(crowd: Crowd) -> None:
    """After every event: no voucher above its cap or its final units' worth, no budget exceeded; every eighth time also
    that all counts are true."""
    for job in crowd.state.jobs.values():
        assert job.committed_ucr() <= job.spec.budget_ucr
        for seat in job.seats:
            if seat.lease:
                assert seat.money.voucher_ucr <= min(
                    seat.leased.cap_ucr, cost_ucr(seat.money.final_units, seat.money.price_ucr)
                )
                assert crowd.vouchers.get(seat.lease, 0) <= seat.leased.cap_ucr
        if len(crowd.history) % 8 == 0 and not isinstance(job.spec.work, LaneJob):
            counts_are_true(job)


def counts_are_true(job: Job) -> None:
    final, held = dict.fromkeys(range(len(job.seats)), 0), dict.fromkeys(range(len(job.seats)), 0)
    hashes: list[bytes] = []
    for run in (run for slot in job.slots for run in slot.runs):
        if run.fate is Fate.FINAL:
            final[run.seat] += run.spec.units
            hashes.append(run.claim_hash)
        held[run.seat] += run.spec.units if run.fate in (Fate.RUNNING, Fate.CLAIMED) else 0
    assert [seat.money.final_units for seat in job.seats] == list(final.values())
    assert [seat.money.held_units for seat in job.seats] == list(held.values())
    assert len(hashes) == len(set(hashes))
    assert job.queue.unusable == sum(not slot.usable for slot in job.slots if not slot.retired)
    for step, queue in (
        (Step.WAITING, job.queue.waiting),
        (Step.CHECKING, job.queue.checking),
        (Step.KEEPING, job.queue.keeping),
    ):
        assert set(queue) == {slot.key for slot in job.slots if slot.step is step}


def stale(crowd: Crowd, r: random.Random) -> t.StewardEvent:
    """An event from the past, or from nowhere."""
    if r.random() < 0.6:
        return r.choice(crowd.history)
    seal = Signed(b"", bytes(65))
    leases = [*crowd.leases, word("nowhere")]
    lease = r.choice(leases)
    return r.choice(
        [
            t.PeerFailed(0, lease, 0, word("task"), "E1704", "no", retryable=True),
            t.PeerClaimed(0, lease, 3, word("task"), TaskOutput(b"", ()), bytes(32), seal, h(r.random()), ()),
            t.AuditorsDrawn(0, word("claim"), word("seed")),
            t.LedgerOpened(0, lease),
            t.PeerTookVoucher(0, lease, 1 << 60),
            t.PeerClaimedBatch(0, lease, 9, seal, h(r.random()), 1, 5, 1 << 40),
            t.LaneAudited(0, lease, word("claim"), ()),
            t.BlobMissing(0, word("job"), word("blob")),
            t.PeerUnobserved(0, word(f"node p{r.randrange(6)}")),
            t.LedgerSlashed(0, lease, word("task"), 5),
            t.UserCancelled(0, word("no job")),
            t.OffersGathered(0, word("job"), ()),
        ]
    )


def play(kind: str, ways: list[str], seed: int, budget: int, verify: str, moves: list[str]) -> tuple[Crowd, bytes]:
    r = random.Random(seed)
    providers = [Provider(f"p{n}", **WAYS[way](r)) for n, way in enumerate(ways)]  # pyright: ignore[reportArgumentType]
    crowd = Crowd(providers, shuffle=r, check=never_more_than_is_owed)
    job = crowd.submit(SPECS[kind](budget=budget, verify=verify))
    for move in moves:
        crowd.run(until=lambda: r.random() < 0.1)
        match move:
            case "stale":
                crowd.tell(stale(crowd, r))
            case "restart":
                crowd.restart()
            case "tick":
                crowd.pass_time(r.choice([10, 6_000, 70_000, 400_000]))
            case "vanish":
                name = r.choice(providers).name
                crowd.away.add(name)
                crowd.tell(t.PeerUnobserved(crowd.now_ms, word("node " + name)))
            case "return":
                for name in list(crowd.away):
                    crowd.tell(t.PeerObserved(crowd.now_ms, word("node " + name)))
                crowd.away.clear()
                for effect in outstanding(crowd.state):
                    crowd.do(effect)
            case _:
                crowd.tell(t.UserCancelled(crowd.now_ms, job))
    return crowd, job


def finish(crowd: Crowd, job: bytes) -> None:
    """Whatever happened: when time goes on, the job ends and every lease is settled."""
    for _ in range(200):
        crowd.run()
        shown = view(crowd.state, job)
        assert shown is not None
        if shown.phase in ("done", "failed", "cancelled"):
            return
        crowd.pass_time(700_000)
        for effect in outstanding(crowd.state):
            crowd.do(effect)
    raise AssertionError(f"the job does not end: {crowd.notes()[-5:]}")


MOVES = st.lists(st.sampled_from(["stale", "stale", "restart", "tick", "vanish", "return"]), max_size=12)
POLICIES = st.sampled_from(["none", "audit", "audit:probation=2,rate=0.5,quorum=3", "audit:probation=0,rate=0"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["batch", "train"]),
    st.lists(st.sampled_from(["honest"] * len(WAYS) + list(WAYS)), min_size=1, max_size=6),
    st.integers(0, 10_000),
    st.sampled_from([10_000_000, 700, 250]),
    POLICIES,
    MOVES,
    st.booleans(),
)
def test_every_job_ends_and_nothing_is_paid_that_is_not_final(
    kind: str, ways: list[str], seed: int, budget: int, verify: str, moves: list[str], cancel: bool
) -> None:
    crowd, job = play(kind, ways, seed, budget, verify, [*moves, *(["cancel"] if cancel else [])])
    finish(crowd, job)
    assert len([e for e in crowd.of(t.JobEnded) if e.job == job]) == 1
    numbers = [note.number for note in crowd.of(t.Note) if note.job == job]
    assert numbers == list(range(1, len(numbers) + 1))
    replayed = State()
    for event in crowd.history:
        transition(replayed, codec.decode(t.AnyStewardEvent, codec.encode(event)))
    assert replayed == crowd.state


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["batch", "train"]),
    st.lists(st.sampled_from(["liar", "sometimes", "malformed", "withholder", "failing"]), max_size=2),
    st.integers(0, 10_000),
)
def test_three_honest_providers_get_right_results_whatever_single_cheats_do(
    kind: str, cheats: list[str], seed: int
) -> None:
    crowd, job = play(kind, ["honest"] * 3 + cheats, seed, 10_000_000, "audit:rate=1,probation=3", [])
    finish(crowd, job)
    ended = crowd.outcome(job)
    assert ended.code == ""
    slots = crowd.state.jobs[job].slots
    if kind == "batch":
        assert ended.outputs == tuple(honest_output(slot.spec) for slot in slots)
    else:
        assert ended.outputs == (honest_output(finish_of(crowd.state.jobs[job]).spec),)
    for provider in crowd.providers[:3]:
        assert not crowd.state.standing(provider.account).banned
    for provider, way in zip(crowd.providers[3:], cheats, strict=True):
        if way in ("liar", "malformed"):
            assert crowd.paid_to(provider) == 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10_000), st.integers(0, 3), MOVES)
def test_lanes_pay_for_batches_once_and_never_the_banned(seed: int, bad: int, moves: list[str]) -> None:
    r = random.Random(seed)
    crowd = Crowd([Provider(f"p{n}") for n in range(4)], shuffle=r, check=never_more_than_is_owed)
    job = crowd.submit(lane_spec(budget=5_000))
    crowd.run()
    leases = list(crowd.leases)
    crowd.lane_bad.update(leases[:bad])
    units = dict.fromkeys(leases, 0)
    for number in range(30):
        lease = r.choice(leases)
        crowd.tell(crowd.lane_claim(lease, number + 1, number * 10, 10, 10))
        units[lease] += 10
        if number < len(moves) and moves[number] == "stale":
            crowd.tell(stale(crowd, r))
        if number < len(moves) and moves[number] == "restart":
            crowd.restart()
        crowd.run(until=lambda: r.random() < 0.2)
    crowd.run()
    crowd.tell(t.UserCancelled(crowd.now_ms, job))
    finish(crowd, job)
    for lease, (terms, provider) in crowd.leases.items():
        paid = crowd.vouchers.get(lease, 0)
        assert paid <= min(terms.cap_ucr, cost_ucr(units.get(lease, 0) + (1 << 40), terms.price_ucr))
        if crowd.state.standing(provider.account).banned:
            assert lease in crowd.lane_bad


@pytest.mark.parametrize("verify", ["audit", "none"])
@pytest.mark.parametrize("kind", ["batch", "train"])
def test_a_crash_after_every_single_event_changes_nothing(kind: str, verify: str) -> None:
    """Kill the steward after event n, for every n; the job ends with the same outputs, and nothing is paid twice."""
    whole = Crowd([Provider(f"p{n}") for n in range(4)], check=never_more_than_is_owed)
    job = whole.submit(SPECS[kind](verify=verify))
    finish(whole, job)
    for n in range(0, len(whole.history), 3 if kind == "train" else 2):
        crowd = Crowd([Provider(f"p{n}") for n in range(4)], check=never_more_than_is_owed)
        crowd.submit(SPECS[kind](verify=verify))
        crowd.run(until=lambda crowd=crowd, n=n: len(crowd.history) >= n)
        crowd.restart()
        finish(crowd, job)
        assert crowd.outcome(job).outputs == whole.outcome(job).outputs


def test_due_is_exact() -> None:
    """A tick when nothing is due does nothing; when something is due, it does."""
    r = random.Random(5)
    crowd = Crowd([Provider("p0"), Provider("p1", answer=lambda s, hn: None), Provider("p2", declines=True)])
    crowd.submit(batch_spec(verify="audit"))
    crowd.run()
    acted = 0
    for _ in range(400):
        now = crowd.now_ms + r.choice([1, 100, 3_000, 20_000])
        was_due = due(crowd.state, now)
        before = len(crowd.effects)
        crowd.now_ms = now
        crowd.tell(t.ClockTicked(now))
        if len(crowd.effects) > before:
            assert was_due
            acted += 1
        crowd.run()
    assert acted > 3
    assert all(seat.stage in (Stage.CLOSED, Stage.DROPPED) for job in crowd.state.jobs.values() for seat in job.seats)
