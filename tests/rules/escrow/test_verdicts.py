from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.ledger_world import (
    ALICE,
    BOB,
    PROVIDER,
    REQUESTER,
    RIGHT,
    STRANGER,
    TERMS,
    WRONG,
    Person,
    Pool,
    claim,
    evidence,
    lease_id,
    lease_of,
    open_request,
    run,
    slash_request,
    stocked_pool,
    task,
    voucher,
    word,
)

from fallow.wire.claims import task_id
from fallow.wire.documents import Lease, Verdict
from fallow.wire.ledger import CloseEscrow, Deposit, Evidence, Redeem, Refusal, Slash, SlashEquivocation, Unbond

LEASE = lease_of()
ID = lease_id(LEASE)
BY_ALICE, BY_BOB = lease_of(provider=ALICE, cap_ucr=50), lease_of(provider=BOB, cap_ucr=50)
TASK = task()


def courtroom(*, open_accused: bool = True) -> Pool:
    """A provider and two others under leases of one requester."""
    pool = stocked_pool()
    if open_accused:
        pool.does(open_request(LEASE), REQUESTER)
    for lease, provider in ((BY_ALICE, ALICE), (BY_BOB, BOB)):
        pool.does(open_request(lease, provider=provider), REQUESTER)
    return pool


def accused(lane: bool = False) -> Evidence:
    return evidence(LEASE, PROVIDER, TASK, WRONG, lane=lane)


def witness(lease: Lease, person: Person, output: bytes = RIGHT) -> Evidence:
    return evidence(lease, person, TASK, output)


WITNESSES = (witness(BY_ALICE, ALICE), witness(BY_BOB, BOB))


def charge(**changes: Any) -> Slash:
    request = slash_request(accused(), WITNESSES, LEASE, TASK, slash_ucr=changes.pop("slash_ucr", 80))
    return msgspec.structs.replace(request, **changes)


@pytest.mark.parametrize("lane", [False, True])
def test_a_proven_lie_costs_stake_and_the_unpaid_part(lane: bool) -> None:
    pool = courtroom()
    pool.does(Redeem(voucher(LEASE, 100)), PROVIDER)
    request = charge(accused=accused(lane), slash_ucr=81)
    for _ in range(2):
        pool.does(request, REQUESTER)
    settled = pool.escrow(LEASE)
    assert (settled.paid_ucr, settled.refunded_ucr, settled.slashed_ucr) == (100, 400, 81)
    assert settled.closed_ms == pool.now_ms
    assert pool.balance(REQUESTER).available_ucr == 1_000 - 100 - 100 + 40
    assert next(iter(row.purse_ucr for key, row in pool.home.rows.items() if key.table == "pool")) == 41
    assert pool.balance(PROVIDER).slashed_ucr == 81
    assert pool.balance(PROVIDER).staked_ucr == 219
    assert pool.refuses(Redeem(voucher(LEASE, 101)), PROVIDER) == Refusal.ESCROW_CLOSED


def test_no_more_than_the_stake_of_the_lease_is_taken() -> None:
    pool = courtroom()
    pool.does(charge(slash_ucr=1_000_000), REQUESTER)
    assert pool.balance(PROVIDER).staked_ucr == 200


def bad_charges() -> list[Any]:
    lie = Verdict(ID, task_id(TASK), WRONG, RIGHT, 80)
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
    in_another_kind = slash_request(
        msgspec.structs.replace(accused(lane=True)),
        [evidence(lease, who, other_kind, RIGHT) for lease, who in ((BY_ALICE, ALICE), (BY_BOB, BOB))],
        LEASE,
        other_kind,
    )
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
    pool = courtroom()
    pool.does(Deposit(pool.operation(), 100), REQUESTER)
    working = lease_of(requester=ALICE, provider=REQUESTER)
    pool.does(open_request(working, ALICE, REQUESTER), ALICE)
    own = evidence(working, REQUESTER, TASK, RIGHT)
    assert pool.refuses(charge(others=(*WITNESSES, own)), REQUESTER) == Refusal.BAD_WITNESS


def test_witnesses_without_stake_do_not_count() -> None:
    pool = stocked_pool()
    free = lease_of(provider=BOB, stake_ucr=TERMS.min_witness_stake_ucr - 1)
    pool.does(open_request(LEASE), REQUESTER)
    pool.does(open_request(lease_of(provider=ALICE), provider=ALICE), REQUESTER)
    others = (witness(lease_of(provider=ALICE), ALICE), witness(free, BOB))
    pool.grant(REQUESTER, 1_000)
    pool.does(open_request(free, provider=BOB), REQUESTER)
    assert pool.refuses(charge(others=others), REQUESTER) == Refusal.BAD_WITNESS


def test_one_lie_is_punished_once() -> None:
    pool = courtroom()
    pool.does(charge(slash_ucr=10), REQUESTER)
    assert pool.refuses(charge(slash_ucr=20), REQUESTER) == Refusal.ALREADY_JUDGED
    pool.does(charge(slash_ucr=10), REQUESTER)
    assert pool.balance(PROVIDER).slashed_ucr == 10


def test_two_lies_are_punished_twice_up_to_the_stake() -> None:
    pool = courtroom()
    pool.does(charge(), REQUESTER)
    second = task("second")
    others = [evidence(lease, who, second, RIGHT) for lease, who in ((BY_ALICE, ALICE), (BY_BOB, BOB))]
    pool.does(slash_request(evidence(LEASE, PROVIDER, second, WRONG), others, LEASE, second), REQUESTER)
    assert pool.balance(PROVIDER).slashed_ucr == 100
    assert pool.balance(PROVIDER).staked_ucr == 200


def test_closing_and_unbonding_do_not_escape() -> None:
    pool = courtroom()
    pool.does(CloseEscrow(ID), PROVIDER)
    pool.does(Unbond(pool.operation(), 30), PROVIDER)
    pool.now_ms += 1
    pool.does(Unbond(pool.operation(), 200), PROVIDER)
    pool.now_ms += TERMS.unbonding_ms - 2
    pool.does(charge(slash_ucr=100), REQUESTER)  # 70 of free stake, then 30 of the younger 200
    seen = pool.balance(PROVIDER)
    assert (seen.slashed_ucr, seen.staked_ucr, seen.unbonding_ucr) == (100, 200, 200)
    pool.now_ms += 1
    assert pool.balance(PROVIDER).available_ucr == 1_000 + 30
    pool.now_ms += 1
    assert pool.balance(PROVIDER).available_ucr == 1_000 + 200


def test_bonds_of_other_leases_are_left_alone() -> None:
    pool = courtroom()
    pool.does(CloseEscrow(ID), PROVIDER)
    shelter = lease_of(requester=ALICE, stake_ucr=280)
    pool.does(open_request(shelter, requester=ALICE), ALICE)
    pool.does(charge(slash_ucr=100), REQUESTER)
    assert pool.balance(PROVIDER).slashed_ucr == 20
    assert pool.balance(PROVIDER).bonded_ucr == 280


def test_old_leases_are_let_rest() -> None:
    pool = courtroom()
    pool.does(CloseEscrow(ID), PROVIDER)
    pool.now_ms += TERMS.unbonding_ms + 1
    assert pool.refuses(charge(), REQUESTER) == Refusal.TOO_LATE


def test_what_is_left_of_the_bond_stays_in_reach_and_then_goes_free() -> None:
    pool = courtroom()
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


def test_the_pool_and_the_requester_share_to_the_last_ucr() -> None:
    pool = courtroom()
    before = run(pool.home.books())
    pool.does(charge(slash_ucr=99), REQUESTER)
    after = run(pool.home.books())
    assert before.minted_ucr == after.minted_ucr == after.sum_ucr
