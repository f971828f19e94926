from __future__ import annotations

import msgspec
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
    TOKEN,
    new_pool,
    run,
    stocked_pool,
    word,
)

from fallow.rules.escrow import token_hash
from fallow.rules.escrow.rows import MAX_NODES, MAX_PENDING
from fallow.units import MAX_UCR
from fallow.wire.certificates import certify
from fallow.wire.ledger import Deposit, Grant, IssueToken, OpenAccount, Refusal, Transfer, Unbond


def test_the_welcome_grant_comes_once_whatever_is_tried() -> None:
    pool = new_pool()
    pool.invite()
    pool.join(ALICE, token=TOKEN)
    pool.join(ALICE, token=TOKEN)
    pool.invite("another invitation")
    pool.join(ALICE, token="another invitation")
    assert pool.balance(ALICE).available_ucr == TERMS.welcome_ucr
    assert run(pool.home.books()).minted_ucr == TERMS.welcome_ucr


def test_an_account_opened_without_a_token_gets_the_grant_when_it_brings_one() -> None:
    pool = new_pool()
    pool.invite()
    pool.join(ALICE)
    assert pool.balance(ALICE).available_ucr == 0
    pool.join(ALICE, token=TOKEN)
    assert pool.balance(ALICE).available_ucr == TERMS.welcome_ucr


def test_bad_tokens() -> None:
    pool = new_pool()
    request = OpenAccount(pool.operation(), ALICE.certificate(), TOKEN)
    assert pool.refuses(request, ALICE) == Refusal.BAD_TOKEN
    pool.invite(uses=1)
    pool.join(BOB, token=TOKEN)
    assert pool.refuses(request, ALICE) == Refusal.BAD_TOKEN, "used up"
    pool.invite(expires_ms=NOW)
    assert pool.refuses(request, ALICE) == Refusal.BAD_TOKEN, "expired"
    pool.invite()
    pool.does(request, ALICE)  # what did not take effect may be asked again


def test_opening_with_a_certificate_that_is_not_good() -> None:
    pool = new_pool()
    theft = OpenAccount(pool.operation(), ALICE.certificate(), "")
    assert pool.refuses(theft, STRANGER) == Refusal.WRONG_CERTIFICATE
    expired = OpenAccount(pool.operation(), ALICE.certificate(NOW - 2 * HOUR, HOUR), "")
    assert pool.refuses(expired, ALICE) == Refusal.WRONG_CERTIFICATE
    future = OpenAccount(pool.operation(), ALICE.certificate(NOW + HOUR), "")
    assert pool.refuses(future, ALICE) == Refusal.WRONG_CERTIFICATE
    forged = msgspec.structs.replace(ALICE.certificate(), signature=BOB.certificate().signature)
    assert pool.refuses(OpenAccount(pool.operation(), forged, ""), ALICE) == Refusal.WRONG_SIGNER


def test_nodes_speak_for_the_account_that_certified_them_last() -> None:
    pool = new_pool()
    pool.join(ALICE)
    assert run(pool.home.speaker(ALICE.node, NOW)) == ALICE.account
    assert run(pool.home.speaker(ALICE.node, NOW + 100 * 24 * HOUR)) is None, "expired"
    assert run(pool.home.speaker(BOB.node, NOW)) is None
    handed_over = certify(BOB.secret, ALICE.node, NOW + 1)
    pool.does(OpenAccount(pool.operation(), handed_over, ""), BOB)
    assert run(pool.home.speaker(ALICE.node, NOW)) == BOB.account
    replay = OpenAccount(pool.operation(), ALICE.certificate(NOW), "")
    assert pool.refuses(replay, ALICE) == Refusal.WRONG_CERTIFICATE
    assert run(pool.home.speaker(ALICE.node, NOW)) == BOB.account


def test_a_flood_of_accounts_ends() -> None:
    pool = new_pool(msgspec.structs.replace(TERMS, max_accounts=1))
    pool.join(ALICE)
    pool.join(ALICE)
    assert pool.refuses(OpenAccount(pool.operation(), BOB.certificate(), ""), BOB) == Refusal.POOL_FULL


def test_a_flood_of_nodes_ends() -> None:
    pool = new_pool()
    pool.join(ALICE)
    key = next(key for key in pool.home.rows if key.table == "accounts")
    pool.home.rows[key] = msgspec.structs.replace(pool.home.rows[key], nodes=MAX_NODES)
    another = certify(ALICE.secret, word("another"), NOW)
    assert pool.refuses(OpenAccount(pool.operation(), another, ""), ALICE) == Refusal.TOO_MANY_NODES
    pool.join(ALICE)  # the one it has is still welcome


def test_only_the_operator_mints_and_invites() -> None:
    pool = stocked_pool()
    assert pool.refuses(Grant(pool.operation(), ALICE.account, 1), ALICE) == Refusal.NOT_OPERATOR
    assert pool.refuses(IssueToken(pool.operation(), token_hash("x"), 1, NOW), ALICE) == Refusal.NOT_OPERATOR
    assert pool.refuses(Grant(pool.operation(), ALICE.account, 0), BANK) == Refusal.ZERO_AMOUNT


def test_the_operator_may_pay_somebody_who_has_not_joined_yet() -> None:
    pool = new_pool()
    pool.grant(ALICE, 5)
    pool.invite()
    pool.join(ALICE, token=TOKEN)
    assert pool.balance(ALICE).available_ucr == 5 + TERMS.welcome_ucr
    assert run(pool.home.books()).accounts == 1


def test_no_sum_overflows() -> None:
    pool = new_pool()
    pool.grant(ALICE, MAX_UCR)
    assert pool.refuses(Grant(pool.operation(), BOB.account, 1), BANK) == Refusal.TOO_MUCH_MONEY
    pool.invite()
    request = OpenAccount(pool.operation(), BOB.certificate(), TOKEN)
    assert pool.refuses(request, BOB) == Refusal.TOO_MUCH_MONEY
    huge = Transfer(pool.operation(), ALICE.account, MAX_UCR + 1)
    assert pool.refuses(huge, ALICE) == Refusal.BAD_DOCUMENT
    negative = Transfer(pool.operation(), ALICE.account, -1)
    assert pool.refuses(negative, ALICE) == Refusal.BAD_DOCUMENT


def test_transfers() -> None:
    pool = stocked_pool()
    pool.does(Transfer(pool.operation(), ALICE.account, 400), REQUESTER)
    assert (pool.balance(REQUESTER).available_ucr, pool.balance(ALICE).available_ucr) == (600, 1_400)
    refusals = {
        Refusal.BALANCE_TOO_SMALL: Transfer(pool.operation(), ALICE.account, 601),
        Refusal.ZERO_AMOUNT: Transfer(pool.operation(), ALICE.account, 0),
        Refusal.SAME_ACCOUNT: Transfer(pool.operation(), REQUESTER.account, 1),
        Refusal.NO_SUCH_ACCOUNT: Transfer(pool.operation(), STRANGER.account, 1),
    }
    for reason, request in refusals.items():
        assert pool.refuses(request, REQUESTER) == reason


def test_a_stranger_is_refused_and_leaves_no_trace() -> None:
    pool = stocked_pool()
    before = dict(pool.home.rows)
    assert pool.refuses(Transfer(pool.operation(), ALICE.account, 1), STRANGER) == Refusal.NO_ACCOUNT
    assert pool.home.rows == before


def test_an_operation_is_answered_once() -> None:
    pool = stocked_pool()
    request = Transfer(word("once"), ALICE.account, 400)
    for _ in range(3):
        pool.does(request, REQUESTER)
    assert pool.balance(REQUESTER).available_ucr == 600
    other = Transfer(word("once"), ALICE.account, 401)
    assert pool.refuses(other, REQUESTER) == Refusal.OPERATION_REUSED
    pool.does(Transfer(word("once"), ALICE.account, 1), PROVIDER)  # somebody else's id


def test_a_refused_operation_stays_refused() -> None:
    """A duplicate that the network delivers late must not act after its sender has given up on it."""
    pool = stocked_pool()
    request = Transfer(word("late"), ALICE.account, 5_000)
    first = pool.ask(request, REQUESTER)
    pool.grant(REQUESTER, 10_000)
    assert pool.ask(request, REQUESTER) == first
    pool.does(Transfer(pool.operation(), ALICE.account, 5_000), REQUESTER)


def test_stake_goes_in_at_once_and_out_with_delay() -> None:
    pool = stocked_pool()
    pool.does(Unbond(pool.operation(), 200), PROVIDER)
    seen = pool.balance(PROVIDER)
    assert (seen.available_ucr, seen.staked_ucr, seen.unbonding_ucr) == (1_000, 300, 200)
    assert pool.refuses(Unbond(pool.operation(), 101), PROVIDER) == Refusal.STAKE_TOO_SMALL
    assert pool.refuses(Transfer(pool.operation(), ALICE.account, 1_001), PROVIDER) == Refusal.BALANCE_TOO_SMALL
    pool.now_ms += TERMS.unbonding_ms - 1
    assert pool.balance(PROVIDER).unbonding_ucr == 200
    pool.now_ms += 1
    seen = pool.balance(PROVIDER)
    assert (seen.available_ucr, seen.staked_ucr, seen.unbonding_ucr) == (1_200, 100, 0)
    pool.does(Transfer(pool.operation(), ALICE.account, 1_200), PROVIDER)


@pytest.mark.parametrize("request_of", [Deposit, Unbond])
def test_nothing_is_staked_or_unbonded(request_of: type[Deposit | Unbond]) -> None:
    pool = stocked_pool()
    assert pool.refuses(request_of(pool.operation(), 0), PROVIDER) == Refusal.ZERO_AMOUNT


def test_more_is_staked_than_there_is() -> None:
    pool = stocked_pool()
    assert pool.refuses(Deposit(pool.operation(), 1_001), REQUESTER) == Refusal.BALANCE_TOO_SMALL


def test_the_queue_of_pending_transfers_is_bounded() -> None:
    pool = stocked_pool()
    for _ in range(MAX_PENDING):
        pool.does(Unbond(pool.operation(), 1), PROVIDER)
    assert pool.refuses(Unbond(pool.operation(), 1), PROVIDER) == Refusal.TOO_MANY_PENDING
    pool.now_ms += TERMS.unbonding_ms
    pool.does(Unbond(pool.operation(), 1), PROVIDER)
    assert pool.balance(PROVIDER).unbonding_ucr == 1
