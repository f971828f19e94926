"""What only the memory home promises; the rest is in tests/contracts/test_ledger.py."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.ledger_world import (
    ALICE,
    PROVIDER,
    REQUESTER,
    TERMS,
    Dice,
    lease_of,
    open_request,
    run,
    seal,
    stocked_pool,
    voucher,
    word,
)

from fallow.rules.escrow import Place, account_key
from fallow.sim.ledger import MemoryLedger
from fallow.wire.ledger import Deposit, Redeem, Transfer


def test_the_journal_explains_every_balance() -> None:
    pool = stocked_pool()
    pool.does(open_request(lease_of()), REQUESTER)
    pool.does(Redeem(voucher(lease_of(), 40)), PROVIDER)
    balances: dict[Any, int] = {}
    for move in pool.home.journal:
        balances[move.debit] = balances.get(move.debit, 0) - move.amount_ucr
        balances[move.credit] = balances.get(move.credit, 0) + move.amount_ucr
    assert sum(balances.values()) == 0
    assert balances[Place.AVAILABLE, PROVIDER.account] == 1_040
    assert balances[Place.STAKE, PROVIDER.account] == 200


def test_an_audit_stops_at_the_request_after_which_the_books_are_wrong() -> None:
    pool = stocked_pool()
    key = account_key(ALICE.account)
    pool.home.rows[key] = msgspec.structs.replace(pool.home.rows[key], available_ucr=10**9)
    with pytest.raises(AssertionError, match="after Deposit: minted"):
        pool.ask(Deposit(word("x"), 1), REQUESTER)


def test_without_audit_nothing_is_passed_over() -> None:
    home = MemoryLedger(TERMS, Dice(), seal)
    assert run(home.books()).sum_ucr == 0
    answer = run(home.apply(Transfer(word("x"), ALICE.account, 1), ALICE.account, 0))
    assert answer.reason == "no_account"
