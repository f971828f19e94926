"""The steward's exchanges with providers that do not keep to the rules, and with the bank."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.node.provider.provider_net import Pool, open_pool, seeded
from tests.node.steward.steward_net import Rogue, rogue

from fallow.adapters.blobs_disk import DiskBlobs
from fallow.adapters.clock import SystemClock
from fallow.errors import FallowError, fail
from fallow.node.router import Caller, Router
from fallow.node.services import Services
from fallow.node.steward import effects
from fallow.node.steward.effects import Performer
from fallow.node.steward.records import Records
from fallow.ports import Patience
from fallow.rules.steward import events as t
from fallow.units import BlobId
from fallow.wire.documents import Lease, Order, Quote, Signed
from fallow.wire.eip712 import hash_document
from fallow.wire.ledger import Refusal
from fallow.wire.messages import (
    AssignTask,
    CloseLease,
    Declined,
    LeaseSigned,
    Message,
    Ok,
    PrefetchBlobs,
    Quoted,
    RequestQuote,
    Shortfall,
    SignLease,
)
from fallow.wire.tasks import Part, TaskSpec

JOB, NONCE = b"j" * 32, b"n" * 32
MALLORY = seeded("mallory")


@dataclass
class Stage:
    """What performs for a steward, and a provider that says what it likes."""

    pool: Pool
    performer: Performer
    us: Services
    rita: Rogue
    ends_ms: int

    def order(self) -> Order:
        me = self.us.identity
        return Order(
            me.account, me.node, JOB, "echo", "", 0, 0, 0, 0, 0, 10, 5_000, 0, "none", self.ends_ms,
            self.us.bank_account, NONCE,
        )  # fmt: skip

    def quote(self, order: Order, **changes: Any) -> Quote:
        them, bank = self.rita.services.identity, self.us.bank_account
        quote = Quote(hash_document(order, bank), them.account, them.node, 1_000, 0, "", order.ends_ms)
        return msgspec.structs.replace(quote, **changes)

    def terms(self) -> Lease:
        order = self.order()
        quote, bank = self.quote(order), self.us.bank_account
        return Lease(
            quote.order, hash_document(quote, bank), order.requester, quote.provider, order.node, quote.node, "echo",
            1_000, 10_000, 0, order.ends_ms - 600_000, order.ends_ms, bank,
        )  # fmt: skip

    def ask(self) -> t.AskQuote:
        return t.AskQuote(JOB, 1, self.rita.services.rpc.address(), self.order())


@asynccontextmanager
async def stage(folder: Path, clock: Any = None) -> AsyncGenerator[Stage]:
    async with open_pool(folder, clock) as pool:
        us = await pool.services("sam", Router())
        yield Stage(pool, Performer(us, Records(us)), us, await rogue(pool), us.clock.now_ms() + 600_000)


def answering(s: Stage, kind: type[Message], answer: Callable[[Any], Message]) -> None:
    @s.rita.router.on(kind)
    async def _(_caller: Caller, request: Message) -> Message:
        return answer(request)


def sign_quote(s: Stage, quote: Quote) -> Signed:
    return s.rita.services.identity.sign(quote, s.us.bank_account)


def quoting(s: Stage, **changes: Any) -> Signed:
    return sign_quote(s, s.quote(s.order(), **changes))


def refusal() -> Message:
    raise fail("E1303", "I do not feel like it.")


QUOTES: dict[str, Callable[[Stage], Message]] = {
    "for another order": lambda s: Quoted(quoting(s, order=b"o" * 32)),
    "by another node": lambda s: Quoted(quoting(s, node=b"m" * 32)),
    "signed by another": lambda s: Quoted(MALLORY.sign(s.quote(s.order()), s.us.bank_account)),
    "for another bank": lambda s: Quoted(s.rita.services.identity.sign(s.quote(s.order()), b"m" * 20)),
    "no quote at all": lambda s: Quoted(s.rita.services.identity.sign(s.order(), s.us.bank_account)),
    "garbage": lambda s: Quoted(Signed(b"\xc1garbage", bytes(65))),
    "another message": lambda s: Ok(),
    "a refusal": lambda s: refusal(),
    "a bug": lambda s: 1 / 0,  # type: ignore[return-value]
}


@pytest.mark.parametrize("name", QUOTES)
async def test_what_is_no_quote_of_the_providers_own_is_none(tmp_path: Path, name: str) -> None:
    async with stage(tmp_path) as s:
        answering(s, RequestQuote, lambda request: QUOTES[name](s))
        assert isinstance(await s.performer.run(s.ask()), t.PeerDeclined)
        assert s.us.log.keys("document/") == []


async def test_a_quote_is_kept_with_its_order(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        asked = s.ask()
        answering(s, RequestQuote, lambda request: Quoted(sign_quote(s, s.quote(asked.order))))
        event = await s.performer.run(asked)
        assert isinstance(event, t.PeerQuoted)
        assert (event.quote.provider, event.quote.price_ucr) == (s.rita.services.identity.account, 1_000)
        kept = Records(s.us)
        bank = s.us.bank_account
        assert kept.document(hash_document(event.quote, bank)) == event.signed
        order = kept.document(event.quote.order)
        assert order is not None
        assert order == s.us.identity.sign(asked.order, bank)


async def test_a_provider_may_decline_and_say_why(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        shortfall = Shortfall("ram", 2, 1)
        answering(s, RequestQuote, lambda request: Declined((shortfall,)))
        event = await s.performer.run(s.ask())
        assert isinstance(event, t.PeerDeclined)
        assert event.shortfalls == (shortfall,)


LEASES: dict[str, Callable[[Stage, SignLease], Message]] = {
    "other terms": lambda s, asked: LeaseSigned(
        s.rita.services.identity.sign(msgspec.structs.replace(s.terms(), price_ucr=2_000), s.us.bank_account)
    ),
    "our own signature back": lambda s, asked: LeaseSigned(asked.lease),
    "somebody else's signature": lambda s, asked: LeaseSigned(
        Signed(asked.lease.body, MALLORY.sign(s.terms(), s.us.bank_account).signature)
    ),
    "nothing": lambda s, asked: Ok(),
    "a refusal": lambda s, asked: refusal(),
}


@pytest.mark.parametrize("name", LEASES)
async def test_a_provider_signs_these_terms_or_none(tmp_path: Path, name: str) -> None:
    async with stage(tmp_path) as s:
        answering(s, SignLease, lambda request: LEASES[name](s, request))
        effect = t.ProposeLease(JOB, 1, s.rita.services.rpc.address(), s.terms())
        assert isinstance(await s.performer.run(effect), t.PeerDeclined)


async def test_both_signatures_make_a_lease(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        terms, bank = s.terms(), s.us.bank_account
        theirs = s.rita.services.identity.sign(terms, bank)
        answering(s, SignLease, lambda request: LeaseSigned(theirs))
        event = await s.performer.run(t.ProposeLease(JOB, 1, s.rita.services.rpc.address(), terms))
        assert isinstance(event, t.PeerSigned)
        assert (event.theirs, event.lease) == (theirs, hash_document(terms, bank))


@pytest.mark.parametrize(
    ("code", "kind"), [("E1204", t.PeerLeaving), ("E1302", t.PeerLeaving), ("E1205", t.PeerFailed)]
)
async def test_a_refused_task_moves_and_a_lost_lease_is_left(tmp_path: Path, code: str, kind: type) -> None:
    async with stage(tmp_path) as s:

        def refuse(_request: Message) -> Message:
            raise fail(code, "no")

        answering(s, AssignTask, refuse)
        spec = TaskSpec("echo", b"", (), 0, 1, 5, 0)
        assert isinstance(
            await s.performer.run(t.Assign(b"l" * 32, s.rita.services.rpc.address(), b"t" * 32, spec, ())), kind
        )  # fmt: skip


async def test_a_blob_is_kept_only_as_large_as_it_was_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "KEEP_PAUSE_S", 0)
    async with stage(tmp_path) as s:
        blob = s.rita.services.blobs.put(b"x" * 3_000_000)
        here = (s.rita.services.rpc.address(),)
        for size in (10, 4_000_000):
            event = await s.performer.run(t.KeepBlob(JOB, Part("update", blob, size), here))
            assert isinstance(event, t.BlobMissing)
        assert s.us.blobs.has(BlobId(blob)) is True  # it came whole with the larger limit, and is not pinned
        event = await s.performer.run(t.KeepBlob(JOB, Part("update", blob, 3_000_000), here))
        assert isinstance(event, t.BlobKept)
        store = s.us.blobs
        assert isinstance(store, DiskBlobs)
        assert store._index.collectable() == []
        assert await s.performer.run(t.LetGo(JOB, blob)) is None
        assert store._index.collectable() == [(blob, 3_000_000)]
        missing = await s.performer.run(t.KeepBlob(JOB, Part("update", b"m" * 32, 1), here))
        assert isinstance(missing, t.BlobMissing)


async def test_a_provider_is_told_where_to_fetch_from(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        heard: list[Message] = []

        def answer(request: Message) -> Message:
            heard.append(request)
            return Ok()

        answering(s, PrefetchBlobs, answer)
        part = Part("update", b"u" * 32, 5)
        assert await s.performer.run(t.Prefetch(b"l" * 32, s.rita.services.rpc.address(), part)) is None
        assert heard == [PrefetchBlobs(b"l" * 32, (part,), (s.us.rpc.address(),))]


async def error_of(work: Awaitable[object]) -> FallowError:
    with pytest.raises(FallowError) as caught:
        await work
    return caught.value


class Late:
    """A clock that is ahead of the world's."""

    def __init__(self, real: Any) -> None:
        self._real, self.ahead_ms = real, 0

    def now_ms(self) -> int:
        return self._real.now_ms() + self.ahead_ms

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.parametrize("silent", [True, False])
async def test_a_provider_that_does_not_close_is_closed_without_after_the_lease(tmp_path: Path, silent: bool) -> None:
    """It is gone, or it says that all is well and does nothing."""
    clock = Late(SystemClock())
    async with stage(tmp_path, clock) as s:
        lease, terms = await open_lease(s)
        answering(s, CloseLease, lambda request: refusal() if silent else Ok())
        effect = t.EndLease(lease, s.rita.services.rpc.address(), 500, terms.ends_ms)
        assert (await error_of(s.performer.run(effect))).code == "E1801"
        bank = s.us.settlement(Patience())
        assert (await bank.balance(terms.provider)).earned_ucr == 500  # what is owed is there already
        clock.ahead_ms = 700_000
        event = await s.performer.run(effect)
        assert isinstance(event, t.LedgerClosed)
        assert (event.paid_ucr, event.refunded_ucr) == (500, 9_500)
        again = await s.performer.run(effect)  # after a crash
        assert isinstance(again, t.LedgerClosed)
        assert again.refunded_ucr == 9_500
        assert (await bank.balance(terms.provider)).earned_ucr == 500


async def open_lease(s: Stage) -> tuple[bytes, Lease]:
    terms, bank, them = s.terms(), s.us.bank_account, s.rita.services.identity
    lease = hash_document(terms, bank)
    certificate = them.certificate(s.us.clock.now_ms())
    effect = t.FundEscrow(lease, s.us.identity.sign(terms, bank), them.sign(terms, bank), certificate)
    assert isinstance(await s.performer.run(effect), t.LedgerOpened)
    return lease, terms


async def test_an_escrow_that_was_never_opened_is_closed(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        effect = t.EndLease(b"l" * 32, s.rita.services.rpc.address(), 0, 0)
        event = await s.performer.run(effect)
        assert isinstance(event, t.LedgerClosed)
        assert (event.paid_ucr, event.refunded_ucr) == (0, 0)


async def test_an_escrow_that_the_bank_does_not_know_yet_may_still_be_opened(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        effect = t.EndLease(b"l" * 32, s.rita.services.rpc.address(), 0, s.us.clock.now_ms() + 60_000)
        assert (await error_of(s.performer.run(effect))).code == "E1801"


async def test_what_the_bank_refuses_is_an_event(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        lease, terms = await open_lease(s)
        bank, them = s.us.bank_account, s.rita.services.identity
        certificate = them.certificate(s.us.clock.now_ms())
        other = msgspec.structs.replace(terms, starts_ms=terms.starts_ms - 1)
        dear = msgspec.structs.replace(terms, cap_ucr=10**12)
        for document, signer, reason in (
            (other, MALLORY, Refusal.WRONG_SIGNER),
            (dear, s.us.identity, Refusal.BALANCE_TOO_SMALL),
        ):
            effect = t.FundEscrow(
                hash_document(document, bank), signer.sign(document, bank), them.sign(document, bank), certificate
            )  # fmt: skip
            event = await s.performer.run(effect)
            assert isinstance(event, t.LedgerRefusedEscrow)
            assert event.reason is reason
        unsigned = s.us.identity.sign(s.order(), bank)
        assert isinstance(await s.performer.run(t.Draw(lease, b"c" * 32, unsigned)), t.LedgerRefusedDraw)
