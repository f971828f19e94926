"""Charges: what makes one good, what becomes of stake, escrow and witnesses, and how it can be answered. What must not
convict anybody is in `tests/attacks/test_false_convictions.py` as well."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.courtroom import (
    BY_ALICE,
    BY_BOB,
    ID,
    LEASE,
    TASK,
    WITNESSES,
    accused,
    charge,
    courtroom,
    draw,
    purse,
    stage,
    witness,
)
from tests.ledger_world import (
    ALICE,
    BANK,
    BOB,
    PROVIDER,
    REQUESTER,
    RIGHT,
    STRANGER,
    TERMS,
    WRONG,
    claim,
    evidence,
    lane_task,
    lease_id,
    lease_of,
    open_request,
    run,
    setting,
    task,
    voucher,
    word,
)

from fallow.rules.escrow.rows import ChargeStage
from fallow.wire.claims import task_id
from fallow.wire.documents import Verdict
from fallow.wire.ledger import (
    Appeal,
    CloseEscrow,
    Deposit,
    Redeem,
    Refusal,
    Rule,
    Slash,
    SlashEquivocation,
    Unbond,
)

WITNESS_LEASE = lease_id(BY_ALICE)
APPEAL = Appeal(ID, task_id(TASK))


def ruling(upheld: bool) -> Rule:
    return Rule(ID, task_id(TASK), upheld)


@pytest.mark.parametrize("lane", [False, True])
def test_a_charge_locks_stake_and_is_carried_out_when_nobody_answers(lane: bool) -> None:
    pool, spec, opened = courtroom(), lane_task() if lane else TASK, setting() if lane else None
    draw(pool, accused(spec, opened))
    request = charge(spec, opened, slash_ucr=81)
    for _ in range(2):
        pool.does(request, REQUESTER)
    open_charge = run(pool.home.charge(ID))
    assert (open_charge.locked_ucr, open_charge.due_ms) == (81, pool.now_ms + TERMS.answer_ms)
    assert (pool.escrow(LEASE).slashed_ucr, pool.escrow(LEASE).closed_ms, purse(pool)) == (0, 0, 0)
    pool.does(Redeem(voucher(LEASE, 100)), PROVIDER)  # accepted work is paid meanwhile
    pool.now_ms += TERMS.answer_ms
    pool.does(CloseEscrow(ID), REQUESTER)  # before the lease's end and grace: the verdict has closed it
    settled = pool.escrow(LEASE)
    assert (settled.paid_ucr, settled.refunded_ucr, settled.slashed_ucr) == (100, 400, 81)
    assert settled.closed_ms == pool.now_ms
    assert pool.balance(REQUESTER).available_ucr == 1_000 - 100 - 100
    assert purse(pool) == 81
    assert (pool.balance(PROVIDER).slashed_ucr, pool.balance(PROVIDER).staked_ucr) == (81, 219)
    assert pool.refuses(Redeem(voucher(LEASE, 101)), PROVIDER) == Refusal.ESCROW_CLOSED
    assert run(pool.home.charge(ID)) is None
    pool.does(request, REQUESTER)
    assert purse(pool) == 81


def test_a_pool_without_a_window_carries_out_at_once() -> None:
    pool = courtroom(msgspec.structs.replace(TERMS, answer_ms=0))
    pool.does(charge(slash_ucr=81), REQUESTER)
    assert (pool.escrow(LEASE).slashed_ucr, pool.escrow(LEASE).closed_ms) == (81, pool.now_ms)
    assert pool.refuses(APPEAL, PROVIDER) == Refusal.TOO_LATE


def test_no_more_than_the_stake_of_the_lease_is_taken() -> None:
    pool = courtroom()
    pool.does(charge(slash_ucr=1_000_000), REQUESTER)
    assert run(pool.home.charge(ID)).locked_ucr == 100
    assert pool.balance(PROVIDER).staked_ucr == 300
    assert (pool.balance(PROVIDER).charged, pool.balance(ALICE).charged) == ((ID,), ())
    assert pool.refuses(Unbond(pool.operation(), 201), PROVIDER) == Refusal.STAKE_TOO_SMALL
    pool.now_ms += TERMS.answer_ms
    pool.does(CloseEscrow(ID), PROVIDER)
    assert (pool.balance(PROVIDER).staked_ucr, pool.balance(PROVIDER).charged) == (200, ())


def test_an_appeal_that_is_overturned_gives_all_back_and_costs_the_witnesses() -> None:
    pool = courtroom()
    pool.does(charge(), REQUESTER)
    assert pool.refuses(APPEAL, ALICE) == Refusal.NOT_A_PARTY
    assert pool.refuses(Appeal(ID, word("another")), PROVIDER) == Refusal.NO_CHARGE
    assert pool.refuses(ruling(upheld=False), BANK) == Refusal.TOO_EARLY
    pool.now_ms += TERMS.answer_ms - 1
    for _ in range(2):
        pool.does(APPEAL, PROVIDER)
    assert run(pool.home.charge(ID)).appealed
    assert pool.refuses(ruling(upheld=False), REQUESTER) == Refusal.NOT_REFEREE
    for _ in range(2):
        pool.does(ruling(upheld=False), BANK)
    assert pool.refuses(ruling(upheld=True), BANK) == Refusal.ALREADY_JUDGED
    assert stage(pool) == ChargeStage.OVERTURNED
    # the claim was worth 3 ucr: so much of what the witnesses lose is the accused's
    assert (pool.balance(PROVIDER).available_ucr, pool.balance(PROVIDER).staked_ucr) == (1_003, 300)
    assert (pool.balance(ALICE).staked_ucr, pool.balance(BOB).staked_ucr, purse(pool)) == (260, 260, 77)
    assert (pool.balance(ALICE).slashed_ucr, pool.balance(PROVIDER).slashed_ucr) == (40, 0)
    assert pool.refuses(charge(slash_ucr=5), REQUESTER) == Refusal.ALREADY_JUDGED
    pool.does(Redeem(voucher(LEASE, 500)), PROVIDER)  # the lease is what it was


def test_an_appeal_that_is_not_upheld_is_carried_out() -> None:
    pool = courtroom()
    pool.does(charge(), REQUESTER)
    pool.does(APPEAL, PROVIDER)
    pool.does(ruling(upheld=True), BANK)
    pool.does(ruling(upheld=True), BANK)
    assert pool.refuses(ruling(upheld=False), BANK) == Refusal.ALREADY_JUDGED
    assert (pool.escrow(LEASE).slashed_ucr, purse(pool), stage(pool)) == (80, 100, ChargeStage.UPHELD)
    pool.does(Unbond(pool.operation(), 200), ALICE)  # nothing is pledged any more


def test_an_appeal_that_is_not_upheld_costs_a_quarter_more() -> None:
    """The referee has done the work again for nothing, and the stake was locked all the while. Who does not appeal pays
    no more than was charged; a referee who sleeps costs nobody anything."""
    pool = courtroom()
    pool.does(charge(slash_ucr=81), REQUESTER)
    pool.does(APPEAL, PROVIDER)
    pool.does(ruling(upheld=True), BANK)
    assert (pool.balance(PROVIDER).staked_ucr, pool.balance(PROVIDER).slashed_ucr) == (300 - 81 - 21, 102)
    assert (pool.escrow(LEASE).slashed_ucr, purse(pool)) == (81, 102)
    assert [pool.balance(one).staked_ucr for one in (ALICE, BOB)] == [300] * 2


def test_a_lost_appeal_is_owed_where_no_stake_is_free() -> None:
    pool = courtroom()
    pool.does(charge(slash_ucr=80), REQUESTER)
    pool.does(APPEAL, PROVIDER)
    shelter = lease_of(requester=BOB, provider=PROVIDER, stake_ucr=200, cap_ucr=1)
    pool.does(open_request(shelter, BOB, PROVIDER), PROVIDER)
    pool.does(ruling(upheld=True), BANK)
    assert pool.balance(PROVIDER).staked_ucr == 220
    pool.does(CloseEscrow(lease_id(shelter)), PROVIDER)
    pool.does(Unbond(pool.operation(), 1), PROVIDER)  # the fine is paid first
    assert (pool.balance(PROVIDER).staked_ucr, purse(pool)) == (200, 100)


def test_in_doubt_nothing_is_taken() -> None:
    """The referee did not rule: the charge falls, and who witnessed it loses nothing either."""
    pool = courtroom()
    pool.does(charge(), REQUESTER)
    pool.does(APPEAL, PROVIDER)
    pool.now_ms += TERMS.ruling_ms
    pool.does(CloseEscrow(ID), PROVIDER)
    assert stage(pool) == ChargeStage.OVERTURNED
    assert [pool.balance(one).staked_ucr for one in (PROVIDER, ALICE, BOB)] == [300] * 3
    pool.does(ruling(upheld=False), BANK)  # too late to matter, and already so
    assert [pool.balance(one).staked_ucr for one in (PROVIDER, ALICE, BOB)] == [300] * 3


def test_who_waits_too_long_has_answered_nothing() -> None:
    pool = courtroom()
    pool.does(charge(), REQUESTER)
    pool.now_ms += TERMS.answer_ms
    assert pool.refuses(APPEAL, PROVIDER) == Refusal.TOO_LATE
    pool.does(CloseEscrow(ID), PROVIDER)
    assert pool.escrow(LEASE).slashed_ucr == 80


def test_a_referee_of_the_pools_choice_rules() -> None:
    pool = courtroom(msgspec.structs.replace(TERMS, referee=REQUESTER.account))
    pool.does(charge(), REQUESTER)
    pool.does(APPEAL, PROVIDER)
    assert pool.refuses(ruling(upheld=False), BANK) == Refusal.NOT_REFEREE
    pool.does(ruling(upheld=False), REQUESTER)


def test_what_witnesses_pledge_cannot_leave_nor_be_pledged_twice() -> None:
    pool = courtroom()
    for person in (ALICE, BOB):
        pool.does(Unbond(pool.operation(), 150), person)  # 100 behind a lease and 50 free are left
    pool.does(charge(slash_ucr=100), REQUESTER)
    pool.does(Unbond(pool.operation(), 50), ALICE)
    pool.does(CloseEscrow(WITNESS_LEASE), ALICE)
    assert pool.refuses(Unbond(pool.operation(), 51), ALICE) == Refusal.PLEDGED
    pool.does(Unbond(pool.operation(), 50), ALICE)
    pool.now_ms += TERMS.answer_ms + TERMS.ruling_ms - 1
    assert pool.refuses(Unbond(pool.operation(), 1), ALICE) == Refusal.PLEDGED
    pool.now_ms += 1  # nobody has touched the charge, and the pledge is over all the same
    pool.does(Unbond(pool.operation(), 50), ALICE)


def test_witnesses_that_hide_their_stake_behind_leases_owe_it() -> None:
    pool = courtroom()
    pool.does(charge(slash_ucr=100), REQUESTER)
    pool.does(APPEAL, PROVIDER)
    shelter = lease_of(requester=BOB, provider=ALICE, stake_ucr=200, cap_ucr=1)
    pool.does(open_request(shelter, BOB, ALICE), ALICE)
    pool.does(ruling(upheld=False), BANK)
    assert pool.balance(ALICE).staked_ucr == 300
    pool.does(CloseEscrow(WITNESS_LEASE), ALICE)
    assert pool.balance(ALICE).staked_ucr == 250
    pool.does(Unbond(pool.operation(), 50), ALICE)  # the fine is paid first
    assert (pool.balance(ALICE).staked_ucr, pool.balance(ALICE).unbonding_ucr) == (250, 50)


def bad_charges() -> list[Any]:
    lie, spec = Verdict(ID, task_id(TASK), WRONG, RIGHT, 80), task("undrawn")
    by_the_accused = evidence(LEASE, PROVIDER, TASK, RIGHT)
    by_the_accuser = witness(lease_of(provider=REQUESTER), REQUESTER)
    unsigned = msgspec.structs.replace(accused(), claim=claim(LEASE, REQUESTER))
    under_another_lease = msgspec.structs.replace(
        evidence(lease_of(cap_ucr=1), PROVIDER, TASK, WRONG), lease=PROVIDER.sign(LEASE)
    )
    strangers = witness(lease_of(provider=STRANGER), STRANGER)
    dissenting = witness(BY_BOB, BOB, word("a third answer"))
    lying_path = msgspec.structs.replace(WITNESSES[1], path=(word("x"), word("y")))
    other_kind = task(kind="spin")
    in_another_kind = charge(other_kind, accused=accused(other_kind))
    on_another_order = msgspec.structs.replace(charge(), orders=charge().orders[:2])
    return [
        (charge(verdict=PROVIDER.sign(lie)), Refusal.WRONG_SIGNER),
        (charge(verdict=ALICE.sign(lie)), Refusal.WRONG_SIGNER),
        (charge(verdict=voucher(LEASE, 5)), Refusal.BAD_DOCUMENT),
        (charge(verdict=REQUESTER.sign(msgspec.structs.replace(lie, accepted=WRONG))), Refusal.BAD_EVIDENCE),
        (charge(verdict=REQUESTER.sign(msgspec.structs.replace(lie, claimed=word("?")))), Refusal.BAD_EVIDENCE),
        (charge(verdict=REQUESTER.sign(msgspec.structs.replace(lie, lease=word("?")))), Refusal.BAD_EVIDENCE),
        (charge(task=task("another")), Refusal.BAD_EVIDENCE),
        (charge(verdict=REQUESTER.sign(msgspec.structs.replace(lie, task=word("?")))), Refusal.BAD_EVIDENCE),
        (charge(accused=under_another_lease), Refusal.BAD_EVIDENCE),
        (charge(accused=unsigned), Refusal.BAD_EVIDENCE),
        (charge(accused=msgspec.structs.replace(accused(), units=9)), Refusal.BAD_EVIDENCE),
        (charge(accused=msgspec.structs.replace(accused(), index=0)), Refusal.BAD_EVIDENCE),
        (in_another_kind, Refusal.BAD_EVIDENCE),
        (on_another_order, Refusal.BAD_EVIDENCE),
        (charge(spec), Refusal.NOT_DRAWN),
        (charge(slash_ucr=0), Refusal.ZERO_AMOUNT),
        (charge(setting=setting()), Refusal.BAD_EVIDENCE),
        (charge(others=(WITNESSES[0], WITNESSES[0])), Refusal.BAD_WITNESS),
        (charge(others=WITNESSES[:1]), Refusal.BAD_WITNESS),
        (charge(others=(*WITNESSES, WITNESSES[0])), Refusal.BAD_WITNESS),
        (charge(others=(WITNESSES[0], by_the_accuser)), Refusal.BAD_WITNESS),
        (charge(others=(WITNESSES[0], by_the_accused)), Refusal.BAD_WITNESS),
        (charge(others=(WITNESSES[0], strangers)), Refusal.BAD_WITNESS),
        (charge(others=(WITNESSES[0], dissenting)), Refusal.BAD_WITNESS),
        (charge(others=(WITNESSES[0], lying_path)), Refusal.BAD_WITNESS),
    ]


@pytest.mark.parametrize(("request_", "reason"), bad_charges())
def test_charges_that_must_fail(request_: Slash, reason: Refusal) -> None:
    pool = courtroom()
    assert pool.refuses(request_, REQUESTER) == reason
    pool.does(charge(), REQUESTER)  # a bad charge does not use up the good one


def test_the_accused_must_have_signed_its_own_lease() -> None:
    """A lease that the requester signed in the provider's place pins nothing on the provider."""
    pool = courtroom()
    forged = msgspec.structs.replace(accused(), lease=REQUESTER.sign(LEASE))
    assert pool.refuses(charge(accused=forged), REQUESTER) == Refusal.BAD_EVIDENCE


def test_a_charge_needs_a_lease_here() -> None:
    pool = courtroom(open_accused=False)
    assert pool.refuses(charge(), REQUESTER) == Refusal.NO_ESCROW


def test_the_accuser_is_no_witness_though_it_has_a_lease_and_stake() -> None:
    pool = courtroom(drawn=False)
    pool.does(Deposit(pool.operation(), 100), REQUESTER)
    working = lease_of(requester=ALICE, provider=REQUESTER)
    pool.does(open_request(working, ALICE, REQUESTER), ALICE)
    draw(pool, accused())
    own = evidence(working, REQUESTER, TASK, RIGHT)
    assert pool.refuses(charge(others=(*WITNESSES, own)), REQUESTER) == Refusal.BAD_WITNESS


def test_witnesses_without_stake_are_not_drawn() -> None:
    pool = courtroom(drawn=False)
    pool.does(CloseEscrow(lease_id(BY_BOB)), BOB)
    pool.does(Unbond(pool.operation(), 300 - TERMS.min_witness_stake_ucr + 1), BOB)
    draw(pool, accused())
    assert pool.refuses(charge(), REQUESTER) == Refusal.NOT_DRAWN


def test_one_lie_is_punished_once() -> None:
    pool = courtroom()
    pool.does(charge(slash_ucr=10), REQUESTER)
    for _ in range(2):
        assert pool.refuses(charge(slash_ucr=20), REQUESTER) == Refusal.ALREADY_JUDGED
        pool.does(charge(slash_ucr=10), REQUESTER)
        pool.now_ms += TERMS.answer_ms
    assert pool.balance(PROVIDER).slashed_ucr == 10


def test_two_lies_are_punished_twice_up_to_the_stake_one_after_the_other() -> None:
    pool, second = courtroom(), task("second")
    draw(pool, accused(second))
    pool.does(charge(), REQUESTER)
    assert pool.refuses(charge(second), REQUESTER) == Refusal.UNDER_CHARGE
    pool.now_ms += TERMS.answer_ms
    pool.does(charge(second), REQUESTER)
    assert pool.balance(PROVIDER).slashed_ucr == 80
    pool.now_ms += TERMS.answer_ms
    pool.does(CloseEscrow(ID), PROVIDER)
    assert pool.balance(PROVIDER).slashed_ucr == 100
    assert pool.balance(PROVIDER).staked_ucr == 200


def test_closing_and_unbonding_do_not_escape() -> None:
    pool = courtroom(drawn=False)
    pool.does(CloseEscrow(ID), PROVIDER)
    draw(pool, accused())
    pool.does(Unbond(pool.operation(), 30), PROVIDER)
    pool.now_ms += 1
    pool.does(Unbond(pool.operation(), 200), PROVIDER)
    pool.now_ms += TERMS.unbonding_ms - 2
    pool.does(charge(slash_ucr=100), REQUESTER)  # 70 of free stake, then 30 of the younger 200
    seen = pool.balance(PROVIDER)
    assert (seen.slashed_ucr, seen.staked_ucr, seen.unbonding_ucr) == (0, 300, 200)
    assert run(pool.home.charge(ID)).locked_ucr == 100
    pool.now_ms += 1
    assert pool.balance(PROVIDER).available_ucr == 1_000 + 30
    pool.now_ms += 1
    assert pool.balance(PROVIDER).available_ucr == 1_000 + 200


def test_bonds_of_other_leases_are_left_alone() -> None:
    pool = courtroom(drawn=False)
    pool.does(CloseEscrow(ID), PROVIDER)
    draw(pool, accused())
    shelter = lease_of(requester=ALICE, stake_ucr=280)
    pool.does(open_request(shelter, requester=ALICE), ALICE)
    pool.does(charge(slash_ucr=100), REQUESTER)
    assert run(pool.home.charge(ID)).locked_ucr == 20
    assert pool.balance(PROVIDER).bonded_ucr == 280 + 20
    pool.now_ms += TERMS.answer_ms
    pool.does(CloseEscrow(ID), PROVIDER)
    assert (pool.balance(PROVIDER).slashed_ucr, pool.balance(PROVIDER).bonded_ucr) == (20, 280)


def test_old_leases_are_let_rest() -> None:
    pool = courtroom()
    pool.does(CloseEscrow(ID), PROVIDER)
    pool.now_ms += TERMS.unbonding_ms + 1
    assert pool.refuses(charge(), REQUESTER) == Refusal.TOO_LATE


def test_what_is_left_of_the_bond_stays_in_reach_and_then_goes_free() -> None:
    pool = courtroom(msgspec.structs.replace(TERMS, answer_ms=0))
    pool.does(charge(slash_ucr=30), REQUESTER)
    assert pool.balance(PROVIDER).bonded_ucr == 70
    pool.now_ms += TERMS.hold_ms
    assert pool.balance(PROVIDER).bonded_ucr == 0
    pool.does(Unbond(pool.operation(), 270), PROVIDER)


def test_equivocation_is_its_own_proof() -> None:
    pool = courtroom()
    one, two = claim(LEASE, root=word("one")), claim(LEASE, root=word("two"))
    request = SlashEquivocation(ID, one, two)
    assert pool.refuses(request, ALICE) == Refusal.NOT_A_PARTY
    pool.does(request, REQUESTER)
    pool.does(SlashEquivocation(ID, two, one), REQUESTER)
    assert pool.balance(PROVIDER).slashed_ucr == 100
    third = SlashEquivocation(ID, one, claim(LEASE, root=word("three")))
    assert pool.refuses(third, REQUESTER) == Refusal.ALREADY_JUDGED


def bad_equivocations() -> list[Any]:
    one = claim(LEASE, root=word("one"))
    forged = [claim(LEASE, REQUESTER, root=word(name)) for name in ("one", "two")]
    return [
        (SlashEquivocation(ID, one, one), Refusal.BAD_EVIDENCE),
        (SlashEquivocation(ID, one, claim(LEASE, root=word("two"), sequence=2)), Refusal.BAD_EVIDENCE),
        (SlashEquivocation(ID, one, claim(LEASE, REQUESTER, root=word("two"))), Refusal.BAD_EVIDENCE),
        (SlashEquivocation(ID, forged[0], forged[1]), Refusal.BAD_EVIDENCE),
        (SlashEquivocation(ID, one, claim(BY_ALICE, root=word("two"))), Refusal.BAD_EVIDENCE),
        (SlashEquivocation(ID, one, voucher(LEASE, 1)), Refusal.BAD_DOCUMENT),
    ]


@pytest.mark.parametrize(("request_", "reason"), bad_equivocations())
def test_contradictions_that_are_none(request_: SlashEquivocation, reason: Refusal) -> None:
    assert courtroom().refuses(request_, REQUESTER) == reason


def test_an_equivocation_needs_a_lease_here() -> None:
    pool = courtroom(open_accused=False)
    request = SlashEquivocation(ID, claim(LEASE, root=word("one")), claim(LEASE, root=word("two")))
    assert pool.refuses(request, REQUESTER) == Refusal.NO_ESCROW


def test_a_contradiction_beside_an_open_charge_takes_the_rest() -> None:
    pool = courtroom()
    pool.does(charge(), REQUESTER)
    pool.does(SlashEquivocation(ID, claim(LEASE, root=word("one")), claim(LEASE, root=word("two"))), REQUESTER)
    assert (pool.escrow(LEASE).slashed_ucr, pool.balance(PROVIDER).staked_ucr) == (20, 280)
    pool.does(APPEAL, PROVIDER)
    pool.does(ruling(upheld=False), BANK)
    assert pool.balance(PROVIDER).staked_ucr == 280


def test_nobody_is_paid_for_an_accusation() -> None:
    pool = courtroom()
    before = run(pool.home.books())
    had = [pool.balance(one).available_ucr + pool.balance(one).escrowed_ucr for one in (REQUESTER, ALICE, BOB)]
    pool.does(charge(slash_ucr=99), REQUESTER)
    assert run(pool.home.books()).sum_ucr == before.sum_ucr
    pool.now_ms += TERMS.answer_ms
    pool.does(CloseEscrow(ID), REQUESTER)
    assert [pool.balance(one).available_ucr + pool.balance(one).escrowed_ucr for one in (REQUESTER, ALICE, BOB)] == had
    after = run(pool.home.books())
    assert before.minted_ucr == after.minted_ucr == after.sum_ucr
    assert purse(pool) == 99
