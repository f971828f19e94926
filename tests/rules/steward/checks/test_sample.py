"""Checks by sample: what is asked of whom, and what follows from the answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.rules.steward.crowd import (
    Crowd,
    Provider,
    exact_spec,
    h,
    honest_crowd,
    honest_output,
    lie,
    of_round,
    train_spec,
)

from fallow.kinds.train.tasks import TrainAudit, TrainFinish, TrainParams, TrainRound
from fallow.rules.steward import events as t
from fallow.rules.steward.checks.look import seen_of
from fallow.rules.steward.checks.sample import about
from fallow.rules.steward.shapes.round_tasks import rounds_of
from fallow.rules.steward.state import Fate, Seat, Slot, Step
from fallow.sim import chain
from fallow.wire import codec
from fallow.wire.tasks import TaskOutput, TaskSpec

Answer = Callable[[TaskSpec, TaskOutput], TaskOutput | None]


def params(spec: TaskSpec) -> TrainRound | TrainFinish | TrainAudit:
    return codec.decode(TrainParams, spec.params)


def settle(crowd: Crowd, times: int = 6) -> None:
    crowd.run()
    for _ in range(times):
        crowd.pass_time(6_000)


def skips(spec: TaskSpec, honest: TaskOutput) -> TaskOutput:
    """Leaves out the third step of every round."""
    found = params(spec)
    return chain.committed(spec, found, skipped={2}) if isinstance(found, TrainRound) else honest


def alarms(spec: TaskSpec, honest: TaskOutput) -> TaskOutput:
    """Trains, and finds fault with everybody else."""
    return TaskOutput(h("fault", spec.params), ()) if isinstance(params(spec), TrainAudit) else honest


def audits(crowd: Crowd) -> list[t.Assign]:
    return [effect for effect in crowd.of(t.Assign) if isinstance(params(effect.spec), TrainAudit)]


def only_audits_paid(crowd: Crowd, provider: Provider) -> bool:
    """A cheat may have done some audits as it should."""
    paid = [effect.spec for effect in crowd.of(t.KeepReceipt) if effect.terms.provider == provider.account]
    return all(spec is not None and not isinstance(params(spec), TrainRound) for spec in paid)


def slots(crowd: Crowd, job: bytes) -> list[Slot]:
    return crowd.state.jobs[job].slots


def test_every_claim_of_an_honest_crowd_is_sampled_once_by_somebody_else() -> None:
    crowd = Crowd(honest_crowd(4))
    job = crowd.submit(exact_spec(workers=3, rounds=3))
    settle(crowd)
    assert crowd.outcome(job).code == ""
    rounds = [slot for slot in slots(crowd, job) if of_round(slot)]
    checks = [slot for slot in slots(crowd, job) if slot.of is not None]
    assert len(rounds) == len(checks) == len(audits(crowd)) == 9
    for check in checks:
        (run,) = check.runs
        assert run.account not in {other.account for other in about(crowd.state.jobs[job], check).runs}
        assert (check.step, run.fate, run.answer) == (Step.FINAL, Fate.FINAL, seen_of(check).expected)
        found = params(check.spec)
        assert isinstance(found, TrainAudit)
        assert len(found.links) == 2
    receipts = [effect for effect in crowd.of(t.KeepReceipt) if effect.check == "sampled"]
    assert len(receipts) == 18
    assert all(len(slot.runs) == 1 for slot in rounds), "no round was done twice"


def test_an_audit_is_cheaper_than_the_round() -> None:
    crowd = Crowd(honest_crowd(4))
    job = crowd.submit(exact_spec(workers=3, rounds=1, inner_steps=100))
    settle(crowd)
    for check in (slot for slot in slots(crowd, job) if slot.of is not None):
        assert 30 * check.spec.units <= about(crowd.state.jobs[job], check).spec.units


def test_the_states_come_from_the_steward_and_the_accused_is_not_named() -> None:
    crowd = Crowd(honest_crowd(4))
    crowd.submit(exact_spec(workers=3, rounds=1))
    settle(crowd)
    kept = {effect.part.blob for effect in crowd.of(t.KeepBlob)}
    for effect in audits(crowd):
        assert effect.sources == ()
        assert {part.blob for part in effect.spec.inputs if part.name.startswith("trace/")} <= kept


def kept_now(crowd: Crowd, job: bytes) -> dict[bytes, bool]:
    return crowd.state.jobs[job].blobs.kept


def test_states_are_kept_for_as_long_as_their_check_takes() -> None:
    crowd = Crowd(honest_crowd(4), hold={t.Draw})
    job = crowd.submit(exact_spec(workers=3, rounds=1))
    settle(crowd, 1)
    crowd.hold.add(t.Assign)
    for effect in crowd.of(t.Draw):
        crowd.tell(t.AuditorsDrawn(crowd.now_ms, effect.claim_hash, h("seed", effect.claim_hash)))
    crowd.run()
    states = {part.blob for check in audits(crowd) for part in check.spec.inputs if part.name.startswith("trace/")}
    assert states
    assert states <= crowd.state.jobs[job].blobs.lent.keys()
    assert all(kept_now(crowd, job)[blob] for blob in states)
    assert not crowd.of(t.LetGo)


def test_states_are_let_go_when_their_check_is_over() -> None:
    cheat = Provider("cheat", answer=skips, price=900)
    crowd = Crowd([cheat, *honest_crowd(4)])
    job = crowd.submit(exact_spec(workers=3, rounds=3, verify="audit:links=64"))
    settle(crowd)
    assert crowd.outcome(job).code == ""
    fetched = {
        effect.part.blob
        for effect in crowd.of(t.KeepBlob)
        if effect.part.name.startswith("trace/") or effect.part.name == "carry"
    }
    gone = [effect.blob for effect in crowd.of(t.LetGo)]
    assert fetched == set(gone)
    assert not crowd.state.jobs[job].blobs.lent
    assert not fetched & kept_now(crowd, job).keys()
    rounds = [slot.chosen() for slot in slots(crowd, job) if of_round(slot)]
    outputs = [run.output for run in rounds if run is not None and run.output is not None]
    updates = {part.blob for output in outputs for part in output.parts if part.name == "update"}
    assert updates
    assert updates <= kept_now(crowd, job).keys()


def test_links_are_drawn_from_randomness_that_comes_after_the_claim() -> None:
    crowd = Crowd(honest_crowd(4), hold={t.Draw})
    crowd.submit(exact_spec(workers=3, rounds=1))
    settle(crowd, 1)
    assert not audits(crowd)
    for effect in crowd.of(t.Draw):
        crowd.tell(t.AuditorsDrawn(crowd.now_ms, effect.claim_hash, h("other seed", effect.claim_hash)))
    settle(crowd)
    drawn = [params(effect.spec) for effect in audits(crowd)]
    assert len({one.links for one in drawn if isinstance(one, TrainAudit)}) > 1


def test_a_cheat_that_is_found_is_banned_by_a_full_execution_and_its_round_done_again() -> None:
    cheat = Provider("cheat", answer=skips, price=900)
    crowd = Crowd([cheat, *honest_crowd(4)])
    job = crowd.submit(exact_spec(workers=3, rounds=3, verify="audit:links=64"))
    settle(crowd)
    assert crowd.outcome(job).code == ""
    assert crowd.state.standing(cheat.account).banned
    assert len(crowd.slashed) == 1
    assert any("done again, gives something else" in text for text in crowd.notes("check"))
    log = rounds_of(crowd.state.jobs[job]).log
    assert log is not None
    for (number, shard), key in rounds_of(crowd.state.jobs[job]).slots.items():
        assert log.closed[number][shard].update in honest_output(slots(crowd, job)[key].spec).parts
    assert only_audits_paid(crowd, cheat)


def test_who_is_caught_with_its_first_claim_is_paid_nothing_not_even_for_honest_audits_before() -> None:
    """A cheat that skips work claims first, and is asked to check others while its own claim is being checked."""
    audited = 0
    for name in map(str, range(8)):
        cheat = Provider(f"cheat {name}", answer=skips, price=900)
        crowd = Crowd([cheat, *honest_crowd(4)])
        job = crowd.submit(exact_spec(workers=5, rounds=2, verify="audit:links=64"))
        settle(crowd)
        assert crowd.outcome(job).code == ""
        assert crowd.state.standing(cheat.account).banned
        assert crowd.paid_to(cheat) == 0
        assert all(crowd.paid_to(one) > 0 for one in crowd.providers[1:] if one.done)
        runs = [run for slot in slots(crowd, job) if slot.of is not None for run in slot.runs]
        audited += any(run.account == cheat.account and run.answer for run in runs)
    assert audited, "none of the cheats was asked to check anybody before it was caught"


def test_a_second_lease_of_an_account_on_trial_is_not_settled_meanwhile() -> None:
    """One machine of a cheat skips work; its other one checks somebody, and leaves before the first is caught."""
    tried = 0
    for name in map(str, range(12)):
        skipping = Provider(f"a {name}", answer=skips, price=900, account_name=f"c {name}")
        checking = Provider(f"b {name}", price=901, account_name=f"c {name}")
        crowd = Crowd([skipping, checking, *honest_crowd(4)])
        job = crowd.submit(exact_spec(workers=6, rounds=2, verify="audit:links=64"))

        def waiting(crowd: Crowd = crowd, node: bytes = checking.address.node, job: bytes = job) -> list[Seat]:
            seats = [seat for seat in crowd.state.jobs[job].seats if seat.node == node and not seat.running]
            held = [seat for seat in seats if any(claim.trial for claim in seat.claims.values())]
            return [seat for seat in held if all(claim.provisional for claim in seat.claims.values())]

        crowd.run(until=lambda waiting=waiting: bool(waiting()))
        for seat in waiting():
            before, tried = seat.money.final_units, tried + 1
            crowd.tell(t.PeerLeaving(crowd.now_ms, seat.lease, seat.sequence + 1, "the owner is back"))
            settle(crowd)
            assert crowd.outcome(job).code == ""
            assert crowd.state.standing(checking.account).banned
            assert seat.money.final_units == before
    assert tried


def test_one_who_raises_false_alarms_is_banned_and_nobody_else() -> None:
    liar = Provider("liar", answer=alarms, price=900)
    crowd = Crowd([liar, *honest_crowd(3)])
    job = crowd.submit(exact_spec(workers=4, rounds=4))
    settle(crowd)
    assert crowd.outcome(job).code == ""
    assert crowd.state.standing(liar.account).banned
    assert not crowd.slashed
    assert not any(crowd.state.standing(one.account).banned for one in crowd.providers[1:])
    assert all(crowd.paid_to(one) > 0 for one in crowd.providers[1:])


def test_to_say_that_a_claim_is_wrong_is_not_enough_to_be_paid() -> None:
    """Who finds fault with everybody is right about a cheat: its answer is made up all the same."""
    judged = 0
    for name in map(str, range(6)):
        guesser = Provider(f"guesser {name}", answer=alarms, price=900)
        crowd = Crowd([Provider(f"cheat {name}", answer=skips, price=900), guesser, *honest_crowd(3)])
        job = crowd.submit(exact_spec(workers=4, rounds=2, verify="audit:links=64"))
        settle(crowd)
        assert crowd.outcome(job).code == ""
        assert not any(crowd.state.standing(one.account).banned for one in crowd.providers[2:])
        for receipt in crowd.of(t.KeepReceipt):
            assert "cheat" in crowd.leases[receipt.lease][1].name or receipt.output == honest_output(receipt.spec)
        own = (slot for slot in slots(crowd, job) if slot.of is not None)
        found = [slot for slot in own if any(run.fate is Fate.FINAL for run in slot.runs)]
        judged += sum(slot.answer != seen_of(slot).expected for slot in found)
    assert judged, "somebody found a false claim and was paid for that"


def test_whole_rounds_are_done_again_where_that_is_asked_for() -> None:
    crowd = Crowd(honest_crowd(4))
    job = crowd.submit(exact_spec(workers=3, rounds=2, verify="audit:links=0"))
    settle(crowd)
    assert crowd.outcome(job).code == ""
    assert not audits(crowd)
    assert all(len(slot.runs) == 2 for slot in slots(crowd, job))


def test_other_arithmetic_is_checked_as_ever() -> None:
    crowd = Crowd(honest_crowd(4))
    job = crowd.submit(train_spec(workers=3, rounds=2, verify="audit:links=2"))
    settle(crowd)
    assert crowd.outcome(job).code == ""
    assert not audits(crowd)


def test_machines_of_all_classes_take_part_and_those_that_compute_wrongly_do_not() -> None:
    machines = [Provider("a", numerics="x86"), Provider("b", numerics="arm"), Provider("c", numerics="gpu")]
    crowd = Crowd([*machines, Provider("d", exact="its products differ", price=1)])
    job = crowd.submit(exact_spec(workers=3, rounds=2))
    settle(crowd)
    assert crowd.outcome(job).code == ""
    assert {crowd.leases[effect.lease][1].name for effect in crowd.of(t.Assign)} == {"a", "b", "c"}


def test_a_claim_without_its_states_is_worth_nothing() -> None:
    hider = Provider("hider", serves_blobs=False, price=900)
    crowd = Crowd([hider, *honest_crowd(4)])
    job = crowd.submit(exact_spec(workers=3, rounds=2))
    settle(crowd)
    assert crowd.outcome(job).code == ""
    assert only_audits_paid(crowd, hider)


def test_a_claim_without_a_chain_is_worth_nothing() -> None:
    def bare(_spec: TaskSpec, honest: TaskOutput) -> TaskOutput:
        return TaskOutput(honest.value, tuple(p for p in honest.parts if not p.name.startswith("trace/")))

    crowd = Crowd([Provider("bare", answer=bare, price=900), *honest_crowd(4)])
    job = crowd.submit(exact_spec(workers=3, rounds=2))
    settle(crowd)
    assert crowd.outcome(job).code == ""
    assert any(attempt.code == "E1102" for slot in slots(crowd, job) for attempt in slot.attempts)
    assert only_audits_paid(crowd, crowd.providers[0])


@pytest.mark.parametrize("fails", ["E1704", "E1602"])
def test_auditors_that_fail_are_replaced(fails: str) -> None:
    """A machine that cannot do it is no word against the claim."""

    def broken(spec: TaskSpec, honest: TaskOutput) -> TaskOutput | None:
        return None if isinstance(params(spec), TrainAudit) else honest

    crowd = Crowd([Provider("broken", answer=broken), *honest_crowd(3)])
    job = crowd.submit(exact_spec(workers=4, rounds=2))
    crowd.run()
    for _ in range(8):
        for seat in crowd.state.jobs[job].seats:
            for task, key in list(seat.running.items()):
                if slots(crowd, job)[key].of is not None:
                    crowd.tell(t.PeerFailed(crowd.now_ms, seat.lease, 10_000, task, fails, "no", True))
        crowd.run()
        crowd.pass_time(6_000)
    assert crowd.outcome(job).code == ""
    assert not any(crowd.state.standing(one.account).banned for one in crowd.providers)


def test_alone_there_is_nobody_to_check_and_the_job_still_ends() -> None:
    crowd = Crowd(honest_crowd(1))
    job = crowd.submit(exact_spec(workers=1, rounds=2))
    for _ in range(60):
        crowd.run()
        crowd.pass_time(6_000)
    assert crowd.outcome(job).code == ""
    assert not audits(crowd)
    assert any("cannot be checked" in text for text in crowd.notes("warning"))


def test_a_restart_in_the_middle_of_an_audit_loses_nothing() -> None:
    crowd = Crowd(honest_crowd(4))
    job = crowd.submit(exact_spec(workers=3, rounds=3))
    for _ in range(200):
        crowd.run(until=lambda: bool(crowd.queue) and len(crowd.history) % 7 == 0)
        if crowd.state.jobs[job].reported:
            break
        crowd.restart()
        crowd.pass_time(1_000)
    settle(crowd)
    assert crowd.outcome(job).code == ""
    assert all(len(slot.runs) == 1 for slot in slots(crowd, job) if of_round(slot))


@pytest.mark.parametrize("salt", range(3))
def test_liars_with_chains_of_the_right_form_get_nothing(salt: int) -> None:
    cheat = Provider("cheat", answer=lie(salt), price=900)
    crowd = Crowd([cheat, *honest_crowd(4)])
    job = crowd.submit(exact_spec(workers=3, rounds=2))
    settle(crowd)
    assert crowd.outcome(job).code == ""
    assert crowd.state.standing(cheat.account).banned
    assert only_audits_paid(crowd, cheat)
