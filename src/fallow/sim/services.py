"""The simulated bank, directory and user: processes that answer, or ask, one thing at a time."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from fallow.rules.escrow import UNREAD, Terms
from fallow.sim.crash import Process
from fallow.sim.ledger import MemoryLedger
from fallow.sim.network import Network, Reply
from fallow.sim.people import Person
from fallow.sim.world import World
from fallow.wire.certificates import expires_ms, open_offer
from fallow.wire.ledger import (
    Deposit,
    GetSettlement,
    Grant,
    LedgerDone,
    LedgerRefused,
    OpenAccount,
    Refusal,
    SettlementOf,
)
from fallow.wire.messages import Message, Offer, OffersFound, Ok, PublishOffer, SearchOffers, SignedOffer

T = TypeVar("T")


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    raise AssertionError("it waits for something")


class Seeded:
    """`ports.Entropy` from the world's chance."""

    def __init__(self, world: World) -> None:
        self._rng = world.rng

    def draw(self, size_bytes: int) -> bytes:
        """Bytes that nobody in the world can foresee."""
        return self._rng.randbytes(size_bytes)


class Bank(Process):
    """The pool's books behind a door. The books are on disk: a death loses requests and answers, never rows."""

    def __init__(self, world: World, network: Network, person: Person, terms: Terms) -> None:
        super().__init__(world, network, person.name, person.node)
        self.person = person
        self.ledger = MemoryLedger(terms, Seeded(world), person.sign)
        self.minted_ucr = 0
        self.tells: dict[bytes, str] = {}

    def welcome(self, person: Person, grant_ucr: int, stake_ucr: int) -> None:
        """Before the world begins: an account with money and stake."""
        for number, (caller, request) in enumerate((
            (person.account, OpenAccount(person.node, person.certificate, "")),
            (self.person.account, Grant(person.node, person.account, grant_ucr)),
            (person.account, Deposit(person.node, stake_ucr)),
        )):  # fmt: skip
            if number == 0 or (grant_ucr if number == 1 else stake_ucr):
                answer = at_once(self.ledger.apply(request, caller, self.world.now_ms))
                assert isinstance(answer, LedgerDone), answer
        self.minted_ucr += grant_ucr

    def on_request(self, caller: bytes, request: Message, reply: Reply) -> None:
        """As `node/bank.py` does it: whoever asks is the account that its node is bound to."""
        account = at_once(self.ledger.speaker(caller, self.world.now_ms))
        if account is None:
            reply(LedgerRefused(UNREAD, Refusal.NO_ACCOUNT))
            return
        if isinstance(request, GetSettlement):
            reply(SettlementOf(at_once(self.ledger.settlement(request.lease))))
            return
        self.point()
        answer = at_once(self.ledger.apply(request, account, self.world.now_ms))
        if isinstance(answer, LedgerRefused):
            self.world.note(f"bank refuses {type(request).__name__}: {answer.reason} {answer.detail}")
        self.point()
        reply(answer)


class Directory(Process):
    """Signed offers in memory; whoever publishes again is found again after a death."""

    def on_start(self) -> None:
        """A new life knows nobody."""
        self.offers: dict[bytes, tuple[SignedOffer, Offer]] = {}

    def on_request(self, caller: bytes, request: Message, reply: Reply) -> None:
        """Publish or search."""
        match request:
            case PublishOffer(offer):
                opened = open_once(offer, self.world.now_ms)
                if opened is not None and opened.address.node == caller:
                    self.offers[caller] = offer, opened
                reply(Ok())
            case SearchOffers(kind):
                now_ms = self.world.now_ms
                self.offers = {n: o for n, o in sorted(self.offers.items()) if expires_ms(o[1]) > now_ms}
                found = [s for s, o in self.offers.values() if not kind or any(r.kind == kind for r in o.rates)]
                reply(OffersFound(tuple(found), more=False))
            case _:
                pass


_OPENED: dict[bytes, Offer] = {}


def open_once(signed: SignedOffer, now_ms: int) -> Offer | None:
    """An offer that is good now. The signature of the same bytes is checked once in a process: Ed25519 is real here,
    and slow."""
    key = signed.signature + signed.body
    if key not in _OPENED:
        if len(_OPENED) > 10_000:
            _OPENED.clear()
        _OPENED[key] = open_offer(signed, now_ms)
    offer = _OPENED[key]
    return offer if now_ms < expires_ms(offer) else None
