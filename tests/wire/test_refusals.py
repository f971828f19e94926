"""What a refusal says to a person."""

from __future__ import annotations

import pytest
from tests.ledger_world import ALICE, lease_of, open_request, voucher, word

from fallow.errors import CODES, RejectedError
from fallow.wire.ledger import CloseEscrow, Deposit, OpenAccount, OpenEscrow, Redeem, Refusal, Transfer
from fallow.wire.refusals import SettlementRefused, code_of, words

LEASE = lease_of()


@pytest.mark.parametrize(
    ("request_", "reason", "code", "money"),
    [
        (Transfer(word("x"), ALICE.account, 1), Refusal.BALANCE_TOO_SMALL, "E1301", "in your balance"),
        (open_request(LEASE), Refusal.STAKE_TOO_SMALL, "E1301", "Nothing was locked"),
        (Redeem(voucher(LEASE, 1)), Refusal.ESCROW_CLOSED, "E1302", "stays paid"),
        (CloseEscrow(word("x")), Refusal.TOO_EARLY, "E1303", "keeps its money"),
        (Deposit(word("x"), 1), Refusal.NO_ACCOUNT, "E1304", "in your balance"),
    ],
)
def test_refusals_say_where_the_money_is(request_: OpenEscrow, reason: Refusal, code: str, money: str) -> None:
    error = SettlementRefused(request_, reason, "some numbers")
    assert error.refusal is reason
    assert error.code == code
    assert money in error.money
    assert "some numbers" in error.what


@pytest.mark.parametrize("reason", Refusal)
def test_every_reason_has_a_code_of_its_family_and_words(reason: Refusal) -> None:
    assert CODES[code_of(reason)].family is RejectedError
    assert words(reason) == reason.name.lower().replace("_", " ")
    assert SettlementRefused(CloseEscrow(word("x")), reason).next_step


def test_whoever_is_not_let_in_has_no_account() -> None:
    refused = SettlementRefused(OpenAccount(word("x"), voucher(LEASE, 1), ""), Refusal.BAD_TOKEN)
    assert (refused.code, refused.refusal) == ("E1304", Refusal.BAD_TOKEN)
    assert "new ticket" in refused.next_step
