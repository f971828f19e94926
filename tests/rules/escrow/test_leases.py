from __future__ import annotations

from typing import Any

import pytest
from tests.ledger_world import (
    ALICE,
    BANK,
    BOB,
    HOUR,
    NOW,
    PROVIDER,
    REQUESTER,
    STRANGER,
    TERMS,
    Pool,
    claim,
    lease_id,
    lease_of,
    open_request,
    stocked_pool,
    voucher,
    word,
)

from fallow.rules.escrow.rows import MAX_PENDING
from fallow.wire.documents import Voucher
from fallow.wire.ledger import CloseEscrow, Deposit, DrawAuditors, Drawn, OpenEscrow, Redeem, Refusal, Transfer, Unbond

LEASE = lease_of()
ID = lease_id(LEASE)


def opened() -> Pool:
    pool = stocked_pool()
    pool.does(open_request(LEASE), REQUESTER)
    return pool


def drawn(pool: Pool) -> bytes:
    answer = pool.ask(DrawAuditors(claim(LEASE)), REQUESTER)
    assert isinstance(answer, Drawn)
    return answer.seed


def test_opening_locks_both_sides_once() -> None:
    pool = opened()
    pool.does(open_request(LEASE), PROVIDER)  # the other side may ask too, and nothing happens twice
    assert (pool.balance(REQUESTER).available_ucr, pool.balance(REQUESTER).escrowed_ucr) == (500, 500)
    assert (pool.balance(PROVIDER).staked_ucr, pool.balance(PROVIDER).bonded_ucr) == (300, 100)
    assert pool.refuses(Unbond(pool.operation(), 201), PROVIDER) == Refusal.STAKE_TOO_SMALL
    assert pool.refuses(Transfer(pool.operation(), ALICE.account, 501), REQUESTER) == Refusal.BALANCE_TOO_SMALL


def bad_openings() -> list[Any]:
    other_terms = PROVIDER.sign(lease_of(cap_ucr=501))
    return [
        (open_request(LEASE, requester=ALICE), Refusal.WRONG_SIGNER),
        (open_request(LEASE, provider=ALICE), Refusal.WRONG_SIGNER),
        (open_request(LEASE, provider_signature=other_terms), Refusal.BAD_DOCUMENT),
        (open_request(LEASE, lease=voucher(LEASE, 1)), Refusal.BAD_DOCUMENT),
        (open_request(lease_of(bank=ALICE.account)), Refusal.WRONG_SIGNER),
        (open_request(LEASE, requester_certificate=ALICE.certificate()), Refusal.WRONG_CERTIFICATE),
        (open_request(LEASE, provider_certificate=ALICE.certificate()), Refusal.WRONG_CERTIFICATE),
        (open_request(lease_of(provider_node=word("x"))), Refusal.WRONG_CERTIFICATE),
        (open_request(LEASE, provider_certificate=PROVIDER.certificate(NOW - HOUR, HOUR)), Refusal.WRONG_CERTIFICATE),
        (open_request(lease_of(starts_ms=NOW + HOUR)), Refusal.BAD_TIMES),
        (open_request(lease_of(starts_ms=0, ends_ms=NOW)), Refusal.BAD_TIMES),
        (open_request(lease_of(ends_ms=NOW + TERMS.longest_lease_ms + 1)), Refusal.BAD_TIMES),
        (open_request(lease_of(cap_ucr=1_001)), Refusal.BALANCE_TOO_SMALL),
        (open_request(lease_of(stake_ucr=301)), Refusal.STAKE_TOO_SMALL),
        (open_request(lease_of(provider=REQUESTER), provider=REQUESTER), Refusal.SAME_ACCOUNT),
        (open_request(lease_of(provider=STRANGER, stake_ucr=0), provider=STRANGER), Refusal.NO_SUCH_ACCOUNT),
    ]


@pytest.mark.parametrize(("request_", "reason"), bad_openings())
def test_openings_that_must_fail(request_: OpenEscrow, reason: Refusal) -> None:
    assert stocked_pool().refuses(request_, REQUESTER) == reason


def test_a_third_party_opens_nothing() -> None:
    assert stocked_pool().refuses(open_request(LEASE), ALICE) == Refusal.NOT_A_PARTY


def test_a_refused_opening_may_be_tried_again_when_there_is_money() -> None:
    pool = stocked_pool()
    pool.does(Transfer(pool.operation(), ALICE.account, 600), REQUESTER)
    assert pool.refuses(open_request(LEASE), REQUESTER) == Refusal.BALANCE_TOO_SMALL
    pool.grant(REQUESTER, 100)
    pool.does(open_request(LEASE), REQUESTER)


def test_vouchers_are_cumulative() -> None:
    pool = opened()
    for amount, earned in ((100, 100), (250, 250), (250, 250), (90, 250), (500, 500)):
        pool.does(Redeem(voucher(LEASE, amount)), PROVIDER)
        assert pool.balance(PROVIDER).earned_ucr == earned
        assert pool.balance(PROVIDER).available_ucr == 1_000 + earned
        assert pool.balance(REQUESTER).escrowed_ucr == 500 - earned
    assert pool.escrow(LEASE).paid_ucr == 500


def test_vouchers_that_must_fail() -> None:
    pool = opened()
    assert pool.refuses(Redeem(voucher(LEASE, 501)), PROVIDER) == Refusal.OVER_CAP
    assert pool.refuses(Redeem(voucher(LEASE, 10, PROVIDER)), PROVIDER) == Refusal.WRONG_SIGNER
    assert pool.refuses(Redeem(voucher(lease_of(cap_ucr=7), 5)), PROVIDER) == Refusal.NO_ESCROW
    foreign = REQUESTER.sign(Voucher(ID, 10), ALICE.account)
    assert pool.refuses(Redeem(foreign), PROVIDER) == Refusal.WRONG_SIGNER
    assert pool.refuses(Redeem(voucher(LEASE, 10)), STRANGER) == Refusal.NO_ACCOUNT


def test_anybody_may_bring_a_voucher_and_the_provider_is_paid() -> None:
    pool = opened()
    pool.does(Redeem(voucher(LEASE, 70)), ALICE)
    assert (pool.balance(PROVIDER).earned_ucr, pool.balance(ALICE).earned_ucr) == (70, 0)


def test_the_provider_closes_at_any_time() -> None:
    pool = opened()
    pool.does(Redeem(voucher(LEASE, 200)), PROVIDER)
    for _ in range(2):
        pool.does(CloseEscrow(ID), PROVIDER)
    assert pool.balance(REQUESTER).available_ucr == 800
    assert (pool.balance(PROVIDER).available_ucr, pool.balance(PROVIDER).bonded_ucr) == (1_200, 0)
    settled = pool.escrow(LEASE)
    assert (settled.paid_ucr, settled.refunded_ucr, settled.slashed_ucr, settled.closed_ms) == (200, 300, 0, NOW)


def test_nothing_is_paid_or_opened_after_closing() -> None:
    pool = opened()
    pool.does(Redeem(voucher(LEASE, 200)), PROVIDER)
    pool.does(CloseEscrow(ID), PROVIDER)
    assert pool.refuses(Redeem(voucher(LEASE, 201)), PROVIDER) == Refusal.ESCROW_CLOSED
    pool.does(Redeem(voucher(LEASE, 200)), PROVIDER)  # a late repetition is no error
    pool.does(open_request(LEASE), REQUESTER)  # nor is this, and it opens nothing
    assert (pool.balance(PROVIDER).earned_ucr, pool.balance(REQUESTER).escrowed_ucr) == (200, 0)


def test_the_requester_closes_only_after_the_grace() -> None:
    pool = opened()
    pool.now_ms = LEASE.ends_ms + TERMS.grace_ms - 1
    assert pool.refuses(CloseEscrow(ID), REQUESTER) == Refusal.TOO_EARLY
    pool.does(Redeem(voucher(LEASE, 100)), PROVIDER)  # the last chance of the provider
    pool.now_ms += 1
    pool.does(CloseEscrow(ID), REQUESTER)
    assert (pool.balance(REQUESTER).available_ucr, pool.balance(PROVIDER).earned_ucr) == (900, 100)


def test_others_close_nothing() -> None:
    pool = opened()
    assert pool.refuses(CloseEscrow(ID), ALICE) == Refusal.NOT_A_PARTY
    assert pool.refuses(CloseEscrow(word("unknown")), PROVIDER) == Refusal.NO_ESCROW
    assert pool.refuses(CloseEscrow(b"short"), PROVIDER) == Refusal.BAD_DOCUMENT
    assert pool.refuses(CloseEscrow(ID), BANK) == Refusal.NOT_A_PARTY


def test_a_bond_is_held_while_an_audit_may_be_running() -> None:
    pool = opened()
    drawn(pool)
    pool.does(CloseEscrow(ID), PROVIDER)
    assert pool.balance(PROVIDER).bonded_ucr == 100
    again = lease_of(quote=word("another"), stake_ucr=201)
    assert pool.refuses(open_request(again), REQUESTER) == Refusal.STAKE_TOO_SMALL
    pool.now_ms += TERMS.hold_ms
    assert pool.balance(PROVIDER).bonded_ucr == 0
    pool.does(open_request(again), REQUESTER)


def test_the_requester_frees_a_held_bond_by_closing_too() -> None:
    pool = opened()
    drawn(pool)
    pool.does(CloseEscrow(ID), PROVIDER)
    for _ in range(2):
        pool.does(CloseEscrow(ID), REQUESTER)
        assert pool.balance(PROVIDER).bonded_ucr == 0


def test_a_full_queue_does_not_free_a_bond_under_audit() -> None:
    pool = opened()
    drawn(pool)
    pool.does(Deposit(pool.operation(), 200), PROVIDER)
    for _ in range(MAX_PENDING):
        pool.does(Unbond(pool.operation(), 1), PROVIDER)
    assert pool.refuses(CloseEscrow(ID), PROVIDER) == Refusal.TOO_MANY_PENDING


def test_the_draw_is_fixed_at_the_first_ask() -> None:
    pool = opened()
    seed = drawn(pool)
    pool.now_ms += 5
    assert drawn(pool) == seed
    other = pool.ask(DrawAuditors(claim(LEASE, root=word("other"))), REQUESTER)
    assert isinstance(other, Drawn)
    assert other.seed != seed


def test_draws_that_must_fail() -> None:
    pool = opened()
    assert pool.refuses(DrawAuditors(claim(LEASE)), PROVIDER) == Refusal.NOT_A_PARTY
    assert pool.refuses(DrawAuditors(claim(LEASE, REQUESTER)), REQUESTER) == Refusal.WRONG_SIGNER
    assert pool.refuses(DrawAuditors(claim(lease_of(cap_ucr=3))), REQUESTER) == Refusal.NO_ESCROW
    assert pool.refuses(DrawAuditors(voucher(LEASE, 3)), REQUESTER) == Refusal.BAD_DOCUMENT


def test_draws_after_the_end_hold_nothing() -> None:
    pool = opened()
    pool.does(CloseEscrow(ID), PROVIDER)
    drawn(pool)
    assert pool.balance(PROVIDER).bonded_ucr == 0
    assert pool.balance(BOB).staked_ucr == 300
