"""The frame around the rules: what is loaded, what is kept, and that a transition is a function of what it is given."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.ledger_world import (
    ALICE,
    BANK,
    BOB,
    NOW,
    PROVIDER,
    REQUESTER,
    RIGHT,
    STRANGER,
    TERMS,
    WRONG,
    claim,
    evidence,
    lease_id,
    lease_of,
    open_request,
    slash_request,
    stocked_pool,
    task,
    token_hash,
    voucher,
    word,
)

from fallow.rules.escrow import (
    POOL,
    STAKERS,
    AccountRow,
    EscrowRow,
    Refused,
    Row,
    RowKey,
    Table,
    VerdictRow,
    account_key,
    escrow_key,
    examine,
    node_key,
    pending_key,
    refuse,
    related,
    touched,
    transition,
)
from fallow.rules.escrow.rows import ChargeStage, DoneRow, NodeRow, done_key, draw_key, pack, token_key, verdict_key
from fallow.wire.claims import task_id
from fallow.wire.codec import decode
from fallow.wire.documents import ClaimRoot
from fallow.wire.eip712 import hash_document
from fallow.wire.ledger import (
    Appeal,
    CloseEscrow,
    Deposit,
    DrawAuditors,
    Grant,
    IssueToken,
    LedgerDone,
    LedgerRefused,
    OpenAccount,
    Redeem,
    Refusal,
    Transfer,
    Unbond,
)
from fallow.wire.messages import Message

LEASE = lease_of()
ID = lease_id(LEASE)


CAROL = b"c" * 20


def touched_by(request: Message, caller: bytes = ALICE.account) -> set[RowKey]:
    facts = examine(request, BANK.account)
    assert not isinstance(facts, Refused)
    mine = {POOL, STAKERS, account_key(caller), pending_key(caller)}
    keys = touched(request, caller, facts)
    assert mine <= keys
    return keys - mine


def test_a_request_touches_little() -> None:
    op = word("op")
    done = done_key(ALICE.account, op)
    both = {key(person.account) for person in (REQUESTER, PROVIDER) for key in (account_key, pending_key)}
    assert touched_by(Deposit(op, 1)) == touched_by(Unbond(op, 1)) == {done}
    assert touched_by(Transfer(op, BOB.account, 1)) == {done, account_key(BOB.account)}
    assert touched_by(Grant(op, BOB.account, 1)) == {
        done, account_key(BOB.account), pending_key(BOB.account)
    }  # fmt: skip
    assert touched_by(IssueToken(op, word("t"), 1, 1)) == {done, token_key(word("t"))}
    joining = touched_by(OpenAccount(op, ALICE.certificate(), "token"))
    assert joining == {node_key(ALICE.node), token_key(token_hash("token"))}
    assert touched_by(open_request(LEASE)) == {escrow_key(ID)} | both
    assert touched_by(Redeem(voucher(LEASE, 1))) == touched_by(CloseEscrow(ID)) == {escrow_key(ID)}
    assert len(touched_by(DrawAuditors(claim(LEASE))) - {escrow_key(ID)}) == 1


def test_a_charge_touches_the_leases_of_its_witnesses() -> None:
    others = [lease_of(provider=ALICE), lease_of(provider=BOB)]
    witnesses = [evidence(other, who, task(), RIGHT) for other, who in zip(others, (ALICE, BOB), strict=True)]
    request = slash_request(evidence(LEASE, PROVIDER, task(), WRONG), witnesses, LEASE, task())
    leases = {escrow_key(lease_id(lease)) for lease in (LEASE, *others)}
    theirs = {key(person.account) for person in (ALICE, BOB) for key in (account_key, pending_key)}
    drawn = draw_key(hash_document(decode(ClaimRoot, request.accused.claim.body), BANK.account))
    assert touched_by(request, CAROL) == {verdict_key(ID, task_id(task())), drawn} | leases | theirs
    assert touched_by(Appeal(ID, word(1))) == {escrow_key(ID), verdict_key(ID, word(1))}


def test_rows_name_further_rows() -> None:
    escrow = EscrowRow(ID, REQUESTER.account, PROVIDER.account, 1, 1, 1, 1)
    node = NodeRow(word(1), BOB.account, 0, 1)
    wanted = {key(person.account) for person in (REQUESTER, PROVIDER) for key in (account_key, pending_key)}
    assert related([escrow, None, AccountRow(b"a" * 20)]) == wanted
    assert related([node]) == {account_key(BOB.account)}
    charged = msgspec.structs.replace(escrow, ground=word(2))
    assert related([charged]) == wanted | {verdict_key(ID, word(2))}
    pledged = pack([(ALICE.account, 1)])
    charge = VerdictRow(ID, word(2), word(3), 0, PROVIDER.account, stage=ChargeStage.CHARGED, pledges=pledged)
    assert related([charge]) == {account_key(ALICE.account), pending_key(ALICE.account)}
    assert related([msgspec.structs.replace(charge, stage=ChargeStage.UPHELD)]) == set()


def around(account: bytes) -> dict[RowKey, Row | None]:
    """What is loaded for whatever an unknown account asks."""
    return {POOL: None, STAKERS: None, account_key(account): None, pending_key(account): None}


def step(rows: dict[RowKey, Row | None], request: Message, caller: bytes) -> Any:
    facts: Any = examine(request, BANK.account)
    return transition(rows, request, caller, NOW, facts, TERMS)


def test_a_transition_changes_nothing_that_it_was_given() -> None:
    row, done = AccountRow(ALICE.account, available_ucr=10), done_key(ALICE.account, word("op"))
    rows = around(ALICE.account) | {account_key(ALICE.account): row, done: None}
    before = dict(rows)
    first, second = (step(rows, Deposit(word("op"), 4), ALICE.account) for _ in range(2))
    assert rows == before
    assert first == second
    assert first.answer == LedgerDone(word("op"))
    assert {key.table for key in first.changed} == {Table.ACCOUNT, Table.DONE, Table.STAKERS}
    assert len(first.moves) == 1


def test_a_refusal_keeps_its_answer_and_nothing_else() -> None:
    row, done = AccountRow(ALICE.account, available_ucr=10), done_key(ALICE.account, word("op"))
    rows = around(ALICE.account) | {account_key(ALICE.account): row, done: None}
    outcome = step(rows, Deposit(word("op"), 11), ALICE.account)
    assert isinstance(outcome.answer, LedgerRefused)
    assert outcome.answer.detail == "available 0.00001 cr, free stake 0.00 cr"
    assert list(outcome.changed) == [done]
    kept = outcome.changed[done]
    assert isinstance(kept, DoneRow)
    assert kept.reason == Refusal.BALANCE_TOO_SMALL
    assert outcome.moves == ()


def test_a_transition_that_makes_money_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """The net under all rules: a planted bug that pays from nowhere does not get as far as a home."""

    def bug(draft: Any, request: Any, caller: bytes) -> None:
        draft.put(AccountRow(caller, available_ucr=1_000_000))

    pool = stocked_pool()
    monkeypatch.setattr("fallow.rules.escrow.ledger.deposit", bug)
    with pytest.raises(AssertionError, match="make or lose money"):
        pool.ask(Deposit(word("bug"), 1), REQUESTER)


def test_an_operator_without_account_has_nothing_to_move() -> None:
    rows = around(BANK.account) | {done_key(BANK.account, word("op")): None}
    assert step(rows, Deposit(word("op"), 1), BANK.account).answer.reason == Refusal.NO_ACCOUNT


def test_a_stranger_gets_no_answer_kept() -> None:
    rows = around(STRANGER.account) | {done_key(STRANGER.account, word("op")): None}
    outcome = step(rows, Deposit(word("op"), 1), STRANGER.account)
    assert outcome.answer.reason == Refusal.NO_ACCOUNT
    assert outcome.changed == {}


def test_what_could_not_be_examined_is_refused_in_its_words() -> None:
    refused = refuse(Refused(word("op"), Refusal.WRONG_SIGNER, "who?"))
    assert refused == LedgerRefused(word("op"), Refusal.WRONG_SIGNER, "who?")
    assert draw_key(word(1)).table is Table.DRAW
