"""The one way in which the books change: `examine` a request, load the rows it `touched` (and their `related` ones),
ask `transition` what to write. Pure; every home does the same three steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fallow.rules.escrow.accounts import deposit, grant, issue_token, open_account, transfer, unbond
from fallow.rules.escrow.books import Draft, imbalance_ucr
from fallow.rules.escrow.facts import (
    AccountFacts,
    ChargeFacts,
    ClaimFacts,
    CloseFacts,
    Facts,
    LeaseFacts,
    OrderFacts,
    Refused,
    VerdictFacts,
    VoucherFacts,
)
from fallow.rules.escrow.leases import close_escrow, draw, open_escrow, redeem
from fallow.rules.escrow.rows import (
    POOL,
    STAKERS,
    AccountRow,
    DoneRow,
    EscrowRow,
    NodeRow,
    Outcome,
    PoolTerms,
    Row,
    RowKey,
    StakersRow,
    VerdictRow,
    account_key,
    done_key,
    draw_key,
    escrow_key,
    node_key,
    pending_key,
    token_key,
    verdict_key,
)
from fallow.rules.escrow.stakers import restake
from fallow.rules.escrow.verdicts import appeal, conclude, rule, slash, slash_equivocation
from fallow.units import format_money
from fallow.wire.ledger import (
    Deposit,
    Drawn,
    Grant,
    IssueToken,
    LedgerDone,
    LedgerRefused,
    Refusal,
    Rule,
    Slash,
    Transfer,
    Unbond,
)
from fallow.wire.messages import Message


def touched(request: Message, caller: bytes, facts: Facts) -> set[RowKey]:
    """The rows to load for a request; `related` says what else, once these are there."""
    keys = {POOL, STAKERS, account_key(caller), pending_key(caller)}
    match facts:
        case OrderFacts(operation):
            keys.add(done_key(caller, operation))
            keys |= _order_keys(request)
        case AccountFacts(_, certificate, token):
            keys |= {node_key(certificate.node)} | ({token_key(token)} if token else set())
        case LeaseFacts(operation, lease):
            keys.add(escrow_key(operation))
            for party in (lease.requester, lease.provider):
                keys |= {account_key(party), pending_key(party)}
        case VoucherFacts(_, lease):
            keys.add(escrow_key(lease))
        case CloseFacts(lease):
            keys.add(escrow_key(lease))
        case ClaimFacts(operation, lease):
            keys |= {escrow_key(lease), draw_key(operation)}
        case VerdictFacts(_, lease, ground):
            keys |= {escrow_key(lease), verdict_key(lease, ground)}
            keys |= {draw_key(facts.claim)} if facts.claim else set()
            for witness in facts.witnesses:
                keys |= {escrow_key(witness.lease), account_key(witness.account), pending_key(witness.account)}
        case ChargeFacts(lease, ground):
            keys |= {escrow_key(lease), verdict_key(lease, ground)}
    return keys


def _order_keys(request: Message) -> set[RowKey]:
    match request:
        case Grant(_, account):
            return {account_key(account), pending_key(account)}
        case IssueToken(_, token_hash):
            return {token_key(token_hash)}
        case Transfer(_, to):
            return {account_key(to)}
        case _:
            return set()


def related(rows: Iterable[Row | None]) -> set[RowKey]:
    """The rows that these name: both sides of an escrow, its open charge, the witnesses of that, the former owner of a
    node. Those name others in turn: ask until nothing is missing."""
    keys: set[RowKey] = set()
    for row in rows:
        if isinstance(row, EscrowRow):
            for party in (row.requester, row.provider):
                keys |= {account_key(party), pending_key(party)}
            keys |= {verdict_key(row.lease, row.ground)} if row.ground else set()
        if isinstance(row, VerdictRow) and row.is_open:
            for witness, _ in row.witnesses:
                keys |= {account_key(witness), pending_key(witness)}
        if isinstance(row, NodeRow):
            keys.add(account_key(row.account))
    return keys


def transition(
    rows: Mapping[RowKey, Row | None], request: Message, caller: bytes, now_ms: int, facts: Facts, terms: PoolTerms
) -> Outcome:
    """What `request`, asked by account `caller`, does to the books. `rows` holds the touched and related rows, None for
    those that are not there. Deterministic. Refusals change nothing, except that for an operation id the answer is
    kept: a late duplicate of a refused transfer must not take effect after its sender gave up and tried otherwise."""
    known = rows.get(done_key(caller, facts.operation)) if isinstance(facts, OrderFacts) else None
    if isinstance(known, DoneRow):
        return _again(known, facts)
    draft = Draft(rows)
    result = _apply(draft, request, caller, now_ms, facts, terms)
    if not isinstance(result, Refusal):
        answer = result or LedgerDone(facts.operation)
    else:
        draft = Draft(rows)
        answer = LedgerRefused(facts.operation, result, _details(result, rows, caller))
    # Strangers leave no trace, or anyone could fill the disk with refusals.
    if isinstance(facts, OrderFacts) and (caller == terms.operator or rows[account_key(caller)] is not None):
        reason, detail = (answer.reason.value, answer.detail) if isinstance(answer, LedgerRefused) else ("", "")
        draft.put(DoneRow(caller, facts.operation, facts.request, reason, detail))
    _keep_register(draft, rows)
    outcome = Outcome(draft.changed, tuple(draft.moves), answer)
    assert imbalance_ucr(rows, outcome) == 0, f"{type(request).__name__} would make or lose money"
    return outcome


def _keep_register(draft: Draft, rows: Mapping[RowKey, Row | None]) -> None:
    before = after = draft.find(StakersRow, STAKERS) or StakersRow()
    for key, row in draft.changed.items():
        if isinstance(row, AccountRow):
            old = rows[key]
            if row.live_ucr != (old.live_ucr if isinstance(old, AccountRow) else 0):
                after = restake(after, row.account, row.live_ucr)
    if after != before:
        draft.put(after)


def refuse(refused: Refused) -> LedgerRefused:
    """The answer to a request that did not pass `examine`."""
    return LedgerRefused(refused.operation, refused.reason, refused.detail)


def _again(known: DoneRow, facts: Facts) -> Outcome:
    # The same id with other words would otherwise be answered "done" although it was never done.
    if not isinstance(facts, OrderFacts) or known.request != facts.request:
        return Outcome({}, (), LedgerRefused(known.operation, Refusal.OPERATION_REUSED))
    if known.reason:
        return Outcome({}, (), LedgerRefused(known.operation, Refusal(known.reason), known.detail))
    return Outcome({}, (), LedgerDone(known.operation))


def _apply(
    draft: Draft, request: Message, caller: bytes, now_ms: int, facts: Facts, terms: PoolTerms
) -> Refusal | Drawn | None:
    if isinstance(facts, AccountFacts):
        return open_account(draft, facts, caller, now_ms, terms)
    if caller != terms.operator and draft.find(AccountRow, account_key(caller)) is None:
        return Refusal.NO_ACCOUNT
    draft.mature(caller, now_ms)
    match facts:
        case OrderFacts():
            return _order(draft, request, caller, now_ms, terms)
        case LeaseFacts():
            draft.mature(facts.lease.requester, now_ms)
            draft.mature(facts.lease.provider, now_ms)
            return open_escrow(draft, facts, caller, now_ms, terms)
        case VoucherFacts(_, lease):
            conclude(draft, lease, now_ms, terms)
            return redeem(draft, facts)
        case CloseFacts(lease):
            conclude(draft, lease, now_ms, terms)
            return close_escrow(draft, lease, caller, now_ms, terms)
        case ClaimFacts():
            return draw(draft, facts, caller, now_ms, terms)
        case VerdictFacts(_, lease):
            conclude(draft, lease, now_ms, terms)
            if isinstance(request, Slash):
                return slash(draft, facts, now_ms, terms)
            return slash_equivocation(draft, facts, caller, now_ms, terms)
        case ChargeFacts(lease):
            conclude(draft, lease, now_ms, terms)
            if isinstance(request, Rule):
                return rule(draft, facts, caller, now_ms, terms, upheld=request.upheld)
            return appeal(draft, facts, caller, now_ms, terms)


def _order(draft: Draft, request: Message, caller: bytes, now_ms: int, terms: PoolTerms) -> Refusal | None:
    match request:
        case Grant():
            return grant(draft, request, caller, terms)
        case IssueToken():
            return issue_token(draft, request, caller, terms)
        case _:
            pass
    if draft.find(AccountRow, account_key(caller)) is None:  # an operator that has no account has nothing to move
        return Refusal.NO_ACCOUNT
    match request:
        case Transfer():
            return transfer(draft, request, caller)
        case Deposit():
            return deposit(draft, request, caller)
        case Unbond():
            return unbond(draft, request, caller, now_ms, terms)
        case _:
            raise TypeError(f"a ledger is not asked for {type(request).__name__}")


def _details(refusal: Refusal, rows: Mapping[RowKey, Row | None], caller: bytes) -> str:
    """The numbers behind a refusal over money, so that an error can say where the money is."""
    row = rows.get(account_key(caller))
    if isinstance(row, AccountRow) and refusal is Refusal.GRANT_STAYS:
        return f"{format_money(row.tied_ucr)} were granted for work, and cannot be sent"
    if not isinstance(row, AccountRow) or refusal not in (Refusal.BALANCE_TOO_SMALL, Refusal.STAKE_TOO_SMALL):
        return ""
    return f"available {format_money(row.available_ucr)}, free stake {format_money(row.stake_ucr)}"
