"""Accounts, balances and stake: opening, minting, moving, bonding and unbonding.

Each function changes the draft and returns None, or returns why not (the draft is then thrown away)."""

from __future__ import annotations

import msgspec

from fallow.rules.escrow.books import MINT, Draft
from fallow.rules.escrow.facts import AccountFacts
from fallow.rules.escrow.rows import (
    MAX_NODES,
    MAX_PENDING,
    AccountRow,
    Book,
    NodeRow,
    Pending,
    Place,
    PoolTerms,
    TokenRow,
    account_key,
    node_key,
    token_key,
)
from fallow.units import MAX_UCR
from fallow.wire.certificates import SKEW_MS
from fallow.wire.documents import Certificate
from fallow.wire.ledger import Deposit, Grant, IssueToken, Refusal, Transfer, Unbond


def open_account(draft: Draft, facts: AccountFacts, caller: bytes, now_ms: int, terms: PoolTerms) -> Refusal | None:
    """Make the account known, bind the node, and with a token give the welcome grant, once. Where only the invited may
    come, a new account needs a token that is good, and without one leaves no trace."""
    certificate = facts.certificate
    # Somebody else's certificate is public: showing it must not act for its account.
    if certificate.account != caller:
        return Refusal.WRONG_CERTIFICATE
    if not certificate.issued_ms - SKEW_MS <= now_ms < certificate.expires_ms:
        return Refusal.WRONG_CERTIFICATE
    row = draft.find(AccountRow, account_key(caller))
    if row is None:
        pool = draft.pool()
        if terms.invited_only and caller != terms.operator and not _invited(draft, facts, now_ms):
            return Refusal.BAD_TOKEN
        # Accounts are free to make, so a flood of them must end before the disk does.
        if pool.accounts >= terms.max_accounts:
            return Refusal.POOL_FULL
        draft.put(msgspec.structs.replace(pool, accounts=pool.accounts + 1))
        draft.put(AccountRow(caller))
    return _bind(draft, certificate) or (_welcome(draft, facts, caller, now_ms, terms) if facts.token else None)


def _bind(draft: Draft, certificate: Certificate) -> Refusal | None:
    old = draft.find(NodeRow, node_key(certificate.node))
    account = draft.account(certificate.account)
    # A node that changed hands must not be pulled back by replaying the certificate of its former owner.
    if old is not None and old.issued_ms > certificate.issued_ms:
        return None if old.account == certificate.account else Refusal.WRONG_CERTIFICATE
    if old is None or old.account != certificate.account:
        if account.nodes >= MAX_NODES:
            return Refusal.TOO_MANY_NODES
        draft.put(msgspec.structs.replace(account, nodes=account.nodes + 1))
        former = draft.find(AccountRow, account_key(old.account)) if old is not None else None
        if former is not None:
            draft.put(msgspec.structs.replace(former, nodes=former.nodes - 1))
    draft.put(NodeRow(certificate.node, certificate.account, certificate.issued_ms, certificate.expires_ms))
    return None


def _invited(draft: Draft, facts: AccountFacts, now_ms: int) -> TokenRow | None:
    token = draft.find(TokenRow, token_key(facts.token)) if facts.token else None
    return token if token is not None and token.uses_left > 0 and token.expires_ms > now_ms else None


def _welcome(draft: Draft, facts: AccountFacts, caller: bytes, now_ms: int, terms: PoolTerms) -> Refusal | None:
    account = draft.account(caller)
    # Opening again (a restart, a second machine, a second token) must not mint again.
    if account.welcomed:
        return None
    token = _invited(draft, facts, now_ms)
    if token is None:
        return Refusal.BAD_TOKEN
    if draft.pool().minted_ucr > MAX_UCR - terms.welcome_ucr:
        return Refusal.TOO_MUCH_MONEY
    # Uses run down, so a leaked token cannot mint for an endless line of new accounts.
    draft.put(msgspec.structs.replace(token, uses_left=token.uses_left - 1))
    # The grant is for trying work. Could it be sent, one ticket would be an income.
    draft.put(msgspec.structs.replace(account, welcomed=True, tied_ucr=account.tied_ucr + terms.welcome_ucr))
    draft.move(MINT, Book(Place.AVAILABLE, caller), terms.welcome_ucr)
    return None


def grant(draft: Draft, request: Grant, caller: bytes, terms: PoolTerms) -> Refusal | None:
    """Mint. An account that is not known yet is made, so that an operator can pay before somebody joins."""
    if caller != terms.operator:
        return Refusal.NOT_OPERATOR
    if request.amount_ucr < 1:
        return Refusal.ZERO_AMOUNT
    pool = draft.pool()
    # No balance can exceed what was minted, so this one check keeps every sum in the books from overflowing.
    if pool.minted_ucr > MAX_UCR - request.amount_ucr:
        return Refusal.TOO_MUCH_MONEY
    if draft.find(AccountRow, account_key(request.account)) is None:
        draft.put(msgspec.structs.replace(pool, accounts=pool.accounts + 1))
        draft.put(AccountRow(request.account))
    draft.move(MINT, Book(Place.AVAILABLE, request.account), request.amount_ucr)
    return None


def issue_token(draft: Draft, request: IssueToken, caller: bytes, terms: PoolTerms) -> Refusal | None:
    """Invite."""
    if caller != terms.operator:
        return Refusal.NOT_OPERATOR
    draft.put(TokenRow(request.token_hash, request.uses, request.expires_ms))
    return None


def transfer(draft: Draft, request: Transfer, caller: bytes) -> Refusal | None:
    """Pay somebody. Nothing goes to an account that nobody has opened: a typo would burn it."""
    if request.to == caller:
        return Refusal.SAME_ACCOUNT
    if draft.find(AccountRow, account_key(request.to)) is None:
        return Refusal.NO_SUCH_ACCOUNT
    payer = draft.account(caller)
    if request.amount_ucr <= payer.available_ucr and payer.owned_ucr - request.amount_ucr < payer.tied_ucr:
        return Refusal.GRANT_STAYS
    return _shift(draft, Book(Place.AVAILABLE, caller), Book(Place.AVAILABLE, request.to), request.amount_ucr)


def deposit(draft: Draft, request: Deposit, caller: bytes) -> Refusal | None:
    """Balance into stake."""
    return _shift(draft, Book(Place.AVAILABLE, caller), Book(Place.STAKE, caller), request.amount_ucr)


def unbond(draft: Draft, request: Unbond, caller: bytes, now_ms: int, terms: PoolTerms) -> Refusal | None:
    """Free stake on its way out. It stays slashable until then: who cheats must not be gone when the check is done."""
    entries, account = draft.pending(caller), draft.account(caller)
    if len(entries) >= MAX_PENDING:
        return Refusal.TOO_MANY_PENDING
    # Else a false witness would be gone before it is found out.
    if request.amount_ucr <= account.stake_ucr and account.live_ucr - request.amount_ucr < account.pledged_ucr:
        return Refusal.PLEDGED
    refusal = _shift(draft, Book(Place.STAKE, caller), Book(Place.UNBONDING, caller), request.amount_ucr)
    if refusal is None:
        draft.set_pending(caller, (*entries, Pending(b"", request.amount_ucr, now_ms + terms.unbonding_ms)))
    return refusal


def _shift(draft: Draft, debit: Book, credit: Book, amount_ucr: int) -> Refusal | None:
    """Move what the debited account must own first."""
    if amount_ucr < 1:
        return Refusal.ZERO_AMOUNT
    if getattr(draft.account(debit.id), debit.place.field) < amount_ucr:
        return Refusal.STAKE_TOO_SMALL if debit.place is Place.STAKE else Refusal.BALANCE_TOO_SMALL
    draft.move(debit, credit, amount_ucr)
    return None
