"""The bank role: answers `LedgerRequest`s and questions about the books over RPC, for callers whose node it knows.

Who a caller is follows from its transport key: OpenAccount shows a certificate for that very node, the ledger keeps the
binding, and every later request is done in the name of the bound account while the certificate holds.

Defends against: callers acting for accounts that did not certify them, strangers (who leave no trace in the books
without an invitation), guessed invitations (128 bits; the books hold a hash only), newcomers who send their grants on.
Does not defend against: the bank's own key being stolen, or an operator who mints.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import get_args

from blake3 import blake3

from fallow.adapters.keys import Identity
from fallow.adapters.ledger_sql import SqlLedger, sqlite_url
from fallow.errors import PeerFault, fail
from fallow.node.router import Caller, Router
from fallow.ports import Clock, Entropy, Ledger
from fallow.rules.escrow import UNREAD, PoolTerms, token_hash
from fallow.units import MS_PER_S
from fallow.wire.certificates import read_certificate
from fallow.wire.claims import accounts_hash
from fallow.wire.codec import decode
from fallow.wire.documents import AuditDraw, ClaimRoot, Settlement, Signed
from fallow.wire.eip712 import hash_document
from fallow.wire.ledger import (
    DrawAuditors,
    Drawn,
    DrawOf,
    GetBalance,
    GetBooks,
    GetSettlement,
    Grant,
    IssueToken,
    LedgerRefused,
    LedgerRequest,
    OpenAccount,
    Refusal,
    SettlementOf,
)
from fallow.wire.messages import Message

MAX_KNOWN_NODES = 4096
REMEMBER_MS = 60 * MS_PER_S
TOKEN_BYTES = 16
TOKEN_PREFIX = "fj_"  # noqa: S105 - a prefix, no secret
DEFAULT_USES = 100
BURST, PER_S = 1_000, 20
"""Requests that an account may make at once, and a second: the books remember most of them for ever."""
YEAR_S = 365 * 24 * 3600


@dataclass(frozen=True)
class BankPolicy:
    """What a pool's operator sets; durations in seconds. `operator` is the account that may mint and invite, empty
    meaning the bank's own; `referee` the one that rules on appeals, empty meaning the operator."""

    welcome_ucr: int = 0
    invited_only: bool = True
    operator: bytes = b""
    unbonding_s: int = 24 * 3600
    grace_s: int = 30
    hold_s: int = 600
    longest_lease_s: int = 30 * 24 * 3600
    min_witness_stake_ucr: int = 1
    max_accounts: int = 1_000_000
    drawn: int = 16
    answer_s: int = 3600
    ruling_s: int = 24 * 3600
    referee: bytes = b""

    def terms(self, bank: bytes) -> PoolTerms:
        """The same as the rules read it."""
        return PoolTerms(
            bank=bank,
            operator=self.operator or bank,
            welcome_ucr=self.welcome_ucr,
            invited_only=self.invited_only,
            unbonding_ms=self.unbonding_s * MS_PER_S,
            grace_ms=self.grace_s * MS_PER_S,
            hold_ms=self.hold_s * MS_PER_S,
            longest_lease_ms=self.longest_lease_s * MS_PER_S,
            min_witness_stake_ucr=self.min_witness_stake_ucr,
            max_accounts=self.max_accounts,
            drawn=self.drawn,
            answer_ms=self.answer_s * MS_PER_S,
            ruling_ms=self.ruling_s * MS_PER_S,
            referee=self.referee,
        )


def open_books(where: Path | str, identity: Identity, entropy: Entropy, policy: BankPolicy) -> SqlLedger:
    """The books of the bank `identity`, in a SQLite file (a path) or at a database URL (text). Raises UsageError E1306
    for the books of another bank, UnavailableError E1305 when they cannot be opened. The caller closes them."""
    url = sqlite_url(where) if isinstance(where, Path) else where

    def seal(settlement: Settlement) -> Signed:
        return identity.sign(settlement, identity.account)

    return SqlLedger(url, policy.terms(identity.account), entropy, seal)


class Bank:
    """Answers for a ledger. `identity` is the bank's own; its account key also derives the invitations."""

    def __init__(self, ledger: Ledger, identity: Identity, clock: Clock) -> None:
        self._ledger, self._identity, self._clock = ledger, identity, clock
        self._speakers: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()
        self._paces: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    async def new_token(self, name: str = "ticket", *, uses: int = DEFAULT_USES, lifetime_s: int = YEAR_S) -> str:
        """An invitation for `uses` accounts within `lifetime_s` from the first call. The same name gives the same text
        at every start, so that a ticket handed out before a restart stays good, and calling again with the same numbers
        does not refill its uses. Raises RejectedError E1303 when this bank is not its own operator."""
        token, now_ms = self._token(name), self._clock.now_ms()
        operation = blake3(repr((token, uses, lifetime_s)).encode()).digest()
        request = IssueToken(operation, token_hash(token), uses, now_ms + lifetime_s * MS_PER_S)
        answer = await self._ledger.apply(request, self._identity.account, now_ms)
        # Issued at an earlier start, with another time in it.
        if isinstance(answer, LedgerRefused) and answer.reason != Refusal.OPERATION_REUSED:
            raise fail("E1303", f"The bank may not issue invitations: {answer.reason}.")
        return token

    async def endow(self, amount_ucr: int) -> None:
        """Give the bank's own account what a new pool begins with, once."""
        if not amount_ucr:
            return
        operation = blake3(b"fallow founder's purse" + self._identity.account).digest()
        request = Grant(operation, self._identity.account, amount_ucr)
        await self._ledger.apply(request, self._identity.account, self._clock.now_ms())

    def _token(self, name: str) -> str:
        """HMAC of the name under the bank's key: unguessable, and nothing has to be stored to hand it out again."""
        key = blake3(self._identity.account_secret, derive_key_context="fallow join token key 1").digest()
        return TOKEN_PREFIX + hmac.new(key, name.encode(), sha256).digest()[:TOKEN_BYTES].hex()

    def register(self, router: Router) -> None:
        """Take over everything that a bank is asked."""
        for kind in (*get_args(LedgerRequest), GetBalance, GetSettlement, GetBooks):
            if kind is not OpenAccount:
                router.on(kind)(self.ask)
        router.on(OpenAccount)(self.open_account)

    async def open_account(self, caller: Caller, request: OpenAccount) -> Message:
        """Bind the calling node to the account whose certificate it shows."""
        try:
            certificate = read_certificate(request.certificate)
        except PeerFault as error:
            reason = Refusal.WRONG_SIGNER if error.code == "E1101" else Refusal.BAD_DOCUMENT
            return LedgerRefused(request.operation, reason, error.what[:200])
        # Certificates are public. Only the node that one is about may act on it.
        if certificate.node != caller.node:
            return LedgerRefused(request.operation, Refusal.WRONG_CERTIFICATE, "it is about another node")
        answer = await self._ledger.apply(request, certificate.account, self._clock.now_ms())
        self._speakers.pop(caller.node, None)
        return answer

    async def ask(self, caller: Caller, request: Message) -> Message:
        """Any other LedgerRequest, or a question about the books, in the name of the caller's account."""
        now_ms = self._clock.now_ms()
        account = await self._account(caller, now_ms)
        if account is None:
            operation = getattr(request, "operation", UNREAD)
            return LedgerRefused(operation, Refusal.NO_ACCOUNT, "this node has not joined the pool")
        match request:
            case GetBalance(of):
                return await self._ledger.balance(of, now_ms)
            case GetSettlement(lease):
                return SettlementOf(await self._ledger.settlement(lease), await self._ledger.charge(lease))
            case GetBooks():
                return await self._ledger.books()
            case _:
                self._pace(account)
                answer = await self._ledger.apply(request, account, now_ms)
                if isinstance(request, DrawAuditors) and isinstance(answer, Drawn):
                    return self._signed(request.claim, answer)
                return answer

    def _pace(self, account: bytes) -> None:
        """Raises UnavailableError E1803 for an account that asks too much."""
        now_s = self._clock.monotonic_s()
        left, at_s = self._paces.pop(account, (float(BURST), now_s))
        left = min(left + (now_s - at_s) * PER_S, float(BURST))
        self._paces[account] = (max(left - 1, 0.0), now_s)
        while len(self._paces) > MAX_KNOWN_NODES:
            self._paces.popitem(last=False)
        if left < 1:
            raise fail("E1803", f"This account asks more of the bank than {PER_S} things a second.")

    def _signed(self, claim: Signed, drawn: Drawn) -> DrawOf:
        """The draw as those can check it who were not there."""
        bank = self._identity.account
        said = AuditDraw(hash_document(decode(ClaimRoot, claim.body), bank), drawn.seed, accounts_hash(drawn.drawn))
        return DrawOf(self._identity.sign(said, bank), drawn.drawn)

    async def _account(self, caller: Caller, now_ms: int) -> bytes | None:
        """Whom the caller speaks for. Remembered for a minute at most, so that an expired certificate stops working."""
        account, until_ms = self._speakers.get(caller.node, (None, 0))
        if account is not None and now_ms < until_ms:
            return account
        account = await self._ledger.speaker(caller.node, now_ms)
        if account is not None:
            self._speakers[caller.node] = (account, now_ms + REMEMBER_MS)
            self._speakers.move_to_end(caller.node)
            while len(self._speakers) > MAX_KNOWN_NODES:
                self._speakers.popitem(last=False)
        return account
