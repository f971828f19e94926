"""Claims: each is decided once, and its units are either owed or given back, whatever is told in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rules.steward.crowd import SEAL, Crowd, batch_spec, honest_crowd, honest_output, lane_spec

from fallow.kinds.registry import KINDS
from fallow.rules.steward import events as t
from fallow.rules.steward.claims import Finding, admit, ban, claim_of, clear, finalise, hold, refute, void
from fallow.rules.steward.state import Claim, Fate, Job, Mark, Seat, Turn
from fallow.wire.documents import Signed
from fallow.wire.tasks import TaskOutput

DONE = Finding("checked", "it was done again")
WAYS = {
    "hold": lambda turn, job, seat, claim: hold(turn, seat, claim),
    "finalise": lambda turn, job, seat, claim: finalise(turn, job, seat, claim, DONE),
    "clear": lambda turn, job, seat, claim: clear(turn, job, seat, claim, DONE),
    "void": void,
    "refute": lambda turn, job, seat, claim: refute(turn, job, seat, claim, "it is wrong"),
    "ban": lambda turn, job, seat, claim: ban(turn, seat.account),
}


def claimed() -> tuple[Crowd, Job, Seat, Claim]:
    """A task's claim that nobody has looked at yet."""
    crowd = Crowd(honest_crowd(3), hold={t.Assign, t.KeepBlob, t.Draw})
    job = crowd.submit(batch_spec(3, 3))
    crowd.run()
    assign = crowd.of(t.Assign)[0]
    provider = crowd.leases[assign.lease][1]
    crowd.tell(crowd.claim(assign.lease, assign.task, honest_output(assign.spec), provider))
    found = crowd.state.seat_of(assign.lease)
    assert found is not None
    (claim,) = found[1].claims.values()
    return crowd, crowd.state.jobs[job], found[1], claim


def batches(count: int) -> tuple[Crowd, Job, Seat]:
    """A lane with claims of 1, 2, 3... units that nobody has looked at yet."""
    crowd = Crowd(honest_crowd(2), hold={t.Draw})
    job = crowd.submit(lane_spec())
    crowd.run()
    seat = crowd.state.jobs[job].seats[0]
    for number in range(1, count + 1):
        crowd.tell(crowd.lane_claim(seat.lease, number, number, 1, number))
    return crowd, crowd.state.jobs[job], seat


def test_a_tasks_claim_and_a_batch_are_one_kind_of_thing() -> None:
    _, job, seat, claim = claimed()
    run = job.slots[0].runs[0]
    assert claim_of(job, run) is claim
    assert (claim.slot, claim.units, claim.hash, claim.root) == (0, 10, run.claim_hash, run.root)
    crowd, job, seat = batches(2)
    one, two = seat.claims.values()
    assert [(c.slot, c.first, c.count, c.units, c.provisional) for c in (one, two)] == [
        (None, 1, 1, 1, False), (None, 2, 1, 2, False),
    ]  # fmt: skip
    assert set(crowd.state.claims) == {one.hash, two.hash}


@given(st.lists(st.sampled_from(sorted(WAYS)), min_size=1, max_size=6))
def test_a_claim_is_decided_once_and_its_units_are_owed_or_given_back(ways: list[str]) -> None:
    crowd, job, seat, claim = claimed()
    run, held, turn = job.slots[0].runs[0], seat.money.held_units, Turn(crowd.state)
    running = len(seat.running) * 10
    for way in ways:
        WAYS[way](turn, job, seat, claim)
    receipts = [effect for effect in turn.effects if isinstance(effect, t.KeepReceipt)]
    first = next((way for way in ways if way != "hold"), None)
    if first is None:
        assert (seat.claims, run.fate, seat.money.held_units) == ({claim.hash: claim}, Fate.CLAIMED, held)
        return
    good = first in ("finalise", "clear")
    assert run.fate is (Fate.FINAL if good else Fate.VOID)
    assert (len(receipts), seat.money.final_units) == ((1, 10) if good else (0, 0))
    stopped = running if {"ban", "refute"} & set(ways) else 0
    assert seat.money.held_units == held - 10 - stopped
    assert claim.hash not in seat.claims
    assert claim.hash not in crowd.state.claims


@given(st.lists(st.tuples(st.sampled_from(["hold", "finalise", "void"]), st.integers(0, 4)), max_size=12))
def test_batches_are_decided_each_for_itself(steps: list[tuple[str, int]]) -> None:
    crowd, job, seat = batches(5)
    claims, turn = list(seat.claims.values()), Turn(crowd.state)
    decided: dict[int, str] = {}
    for way, at in steps:
        WAYS[way](turn, job, seat, claims[at])
        if way != "hold":
            decided.setdefault(at, way)
    final = sum(claims[at].units for at, way in decided.items() if way == "finalise")
    left = sum(claim.units for at, claim in enumerate(claims) if at not in decided)
    assert (seat.money.final_units, seat.money.held_units) == (final, left)
    assert list(seat.claims.values()) == [claim for at, claim in enumerate(claims) if at not in decided]


def test_who_is_banned_is_paid_for_nothing_that_was_not_decided() -> None:
    crowd, job, seat = batches(3)
    turn = Turn(crowd.state)
    finalise(turn, job, seat, next(iter(seat.claims.values())), DONE)
    ban(turn, seat.account)
    ban(turn, seat.account)
    assert (seat.claims, seat.money.held_units, seat.money.final_units, seat.mark) == ({}, 0, 1, Mark.BANNED)
    assert crowd.state.standing(seat.account).banned


def test_a_claim_that_is_told_again_or_a_second_root_over_the_same_answers_counts_once() -> None:
    crowd, _, seat = batches(3)
    before = dict(seat.claims)
    crowd.tell(crowd.lane_claim(seat.lease, 3, 3, 1, 3))
    crowd.tell(crowd.lane_claim(seat.lease, 4, 2, 2, 5))
    assert seat.claims == before
    assert seat.money.held_units == 6


def test_what_was_admitted_counts_before_it_is_decided() -> None:
    crowd, _, seat = batches(0)
    turn, tasks = Turn(crowd.state), seat.tasks_claimed
    admit(turn, seat, Claim(b"h" * 32, Signed(b"", SEAL), 7, first=1, count=4))
    assert (seat.tasks_claimed - tasks, seat.units_claimed, seat.money.final_units) == (4, 7, 0)


@pytest.mark.parametrize("verify", ["audit:rate=1", "none"])
def test_a_claim_costs_what_its_output_comes_to(verify: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of what was held for it is free again, and nothing more is ever paid."""
    monkeypatch.setattr(KINDS["echo"], "metered", lambda task, _output: 1 + len(task.params), raising=False)
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(batch_spec(5, 3, verify=verify))
    crowd.run()
    kept = crowd.of(t.KeepReceipt)
    assert kept
    assert {receipt.units for receipt in kept} == {2}
    seats = crowd.state.jobs[job].seats
    assert [seat.money.held_units for seat in seats] == [0] * len(seats)
    assert sum(seat.money.final_units for seat in seats) == 2 * len(kept)


def test_who_claims_more_than_it_used_has_claimed_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meter is read from the output, so a false one is a false output, which a check finds."""
    monkeypatch.setattr(KINDS["echo"], "metered", lambda _task, output: len(output.value) % 7 + 1, raising=False)
    crowd = Crowd(honest_crowd(3))
    crowd.providers[0].answer = lambda _spec, honest: TaskOutput(honest.value + b"12345", ())
    crowd.submit(batch_spec(6, 3, verify="audit:rate=1"))
    crowd.run()
    cheat = crowd.providers[0]
    assert crowd.paid_to(cheat) == 0
    assert any(charge.slash_ucr for charge in crowd.of(t.Charge)) or crowd.slashed
