"""The directory role: an index of signed, expiring offers; and how nodes publish to and search in several of them.

Defends against: offers published by somebody else than their node, replayed older offers, floods of invented ones (one
offer per node, a few per account, a limit on all; those whose stake the bank confirms come first and take the place of
the others when it is full), and, on the searching side, directories that lie, loop, stall or are gone. Does not defend
against: a directory that hides offers (ask several), or that belongs to no pool, whose bank it could ask.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, zip_longest

import msgspec
import structlog

from fallow.errors import FallowError, fail
from fallow.node.router import Caller, Router
from fallow.node.rpc import Rpc
from fallow.ports import Clock
from fallow.wire.certificates import MAX_OFFER_BYTES, expires_ms, open_offer
from fallow.wire.codec import decode
from fallow.wire.messages import NodeAddress, Offer, OffersFound, Ok, PublishOffer, SearchOffers, SignedOffer

log = structlog.get_logger()

MAX_OFFERS = 50_000
MAX_BYTES = 128 << 20
MAX_LOOKED_AT = 5_000
"""Offers that one search looks at: what fits nobody must not cost a pass over all of them."""
MAX_OF_ACCOUNT, MAX_UNSTAKED = 1024, 8
"""Offers of one account, and of one that has no stake at the bank."""
MAX_PAGE_BYTES = 1 << 20
PURGE_EVERY_MS = 10_000

PAGE = 200
MAX_FOUND = 10_000
"""Offers taken from one directory."""
SEARCH_S = 5.0
PUBLISH_S = 5.0
CHECKED_AT_ONCE = 32
"""Signatures checked before other tasks get their turn: about 6 ms."""


Confirm = Callable[[bytes], Awaitable[int]]
"""An account's stake, as its bank knows it; 0 when the bank does not answer."""
_Place = tuple[int, bytes]
"""Where an offer stands: less its account's stake, and its node."""


@dataclass(frozen=True, slots=True)
class _Listed:
    signed: SignedOffer
    offer: Offer
    stake_ucr: int

    @property
    def place(self) -> _Place:
        return -self.stake_ucr, self.offer.address.node

    @property
    def kinds(self) -> tuple[str, ...]:
        return "", *sorted({rate.kind for rate in self.offer.rates})

    @property
    def expires_ms(self) -> int:
        return expires_ms(self.offer)

    @property
    def size_bytes(self) -> int:
        return len(self.signed.body) + 64

    def answers(self, request: SearchOffers) -> bool:
        """Whether it has what is asked for."""
        offer, hardware = self.offer, self.offer.hardware
        cheap = not request.max_price_ucr or any(
            rate.kind == request.kind and rate.price_ucr <= request.max_price_ucr for rate in offer.rates
        )
        large = hardware.ram_bytes >= request.ram_bytes and hardware.disk_bytes >= request.disk_bytes
        return cheap and large and request.bank in (b"", offer.bank)


class Directory:
    """The offers that are good now, at most one per node. Kept in memory: whoever offers publishes again anyway.
    Without `confirm` nobody's stake is known."""

    def __init__(self, clock: Clock, confirm: Confirm | None = None) -> None:
        self._clock, self._confirm = clock, confirm
        self._listed: dict[bytes, _Listed] = {}
        self._of_account: Counter[bytes] = Counter()
        self._places_by_kind: dict[str, list[_Place]] = {}
        self._bytes = 0
        self._purged_ms = 0

    def register(self, router: Router) -> None:
        """Answer PublishOffer and SearchOffers."""
        router.on(PublishOffer)(self.publish)
        router.on(SearchOffers)(self.search)

    def __len__(self) -> int:
        return len(self._listed)

    async def publish(self, caller: Caller, request: PublishOffer) -> Ok:
        """Take an offer of the caller's own. Raises PeerFault E1101, E1102 or E1103 for one that is not in order, or is
        older than the one that is here; UnavailableError E1803 when the directory is full."""
        signed, now_ms = request.offer, self._clock.now_ms()
        if decode(Offer, signed.body, MAX_OFFER_BYTES).address.node != caller.node:  # before the costly checks
            raise fail("E1101", "An offer is published by its own node only.")
        offer = open_offer(signed, now_ms)
        stake_ucr = await self._confirm(offer.account) if self._confirm is not None else 0
        before = self._listed.get(caller.node)
        if before is not None and before.signed == signed:
            return Ok()
        if before is not None and before.offer.issued_ms >= offer.issued_ms:
            raise fail("E1103", "A newer offer of this node is here already.")
        self._purge(now_ms)
        self._put(caller.node, _Listed(signed, offer, stake_ucr))
        return Ok()

    async def search(self, _caller: Caller, request: SearchOffers) -> OffersFound:
        """One page, those with the most stake first."""
        now_ms = self._clock.now_ms()
        places = self._places_by_kind.get(request.kind, [])
        last = self._listed.get(request.after)
        page: list[SignedOffer] = []
        size = 0
        start = bisect_right(places, last.place) if last is not None else 0
        for index in range(start, min(start + MAX_LOOKED_AT, len(places))):
            listed = self._listed[places[index][1]]
            if listed.expires_ms <= now_ms or not listed.answers(request):
                continue
            if len(page) == request.limit or (page and size + listed.size_bytes > MAX_PAGE_BYTES):
                return OffersFound(tuple(page), more=True)
            page.append(listed.signed)
            size += listed.size_bytes
        return OffersFound(tuple(page), more=False)

    def _put(self, node: bytes, found: _Listed) -> None:
        before, account = self._listed.get(node), found.offer.account
        mine = self._of_account[account] - (before is not None and before.offer.account == account)
        if mine >= (MAX_OF_ACCOUNT if found.stake_ucr else MAX_UNSTAKED):
            raise fail("E1803", "This account has as many offers here as it may.")
        while self._full(before, found):
            last = self._places_by_kind[""][-1]
            if last[0] <= found.place[0] or last[1] == node:  # who has less at stake than anybody here stays outside
                raise fail("E1803", "This directory is full.")
            self._drop(last[1])
        self._drop(node)
        self._listed[node] = found
        self._of_account[account] += 1
        self._bytes += found.size_bytes
        for kind in found.kinds:
            insort(self._places_by_kind.setdefault(kind, []), found.place)

    def _full(self, before: _Listed | None, found: _Listed) -> bool:
        grows = found.size_bytes - (before.size_bytes if before is not None else 0)
        crowded = before is None and len(self._listed) >= MAX_OFFERS
        return bool(self._listed) and (crowded or self._bytes + grows > MAX_BYTES)

    def _drop(self, node: bytes) -> None:
        before = self._listed.pop(node, None)
        if before is None:
            return
        self._bytes -= before.size_bytes
        self._of_account[before.offer.account] -= 1
        if not self._of_account[before.offer.account]:
            del self._of_account[before.offer.account]
        for kind in before.kinds:
            places = self._places_by_kind[kind]
            del places[bisect_left(places, before.place)]
            if not places:
                del self._places_by_kind[kind]

    def _purge(self, now_ms: int) -> None:
        full = len(self._listed) >= MAX_OFFERS
        if not full and abs(now_ms - self._purged_ms) < PURGE_EVERY_MS:
            return
        self._purged_ms = now_ms
        for node in [node for node, listed in self._listed.items() if listed.expires_ms <= now_ms]:
            self._drop(node)


async def publish(rpc: Rpc, directories: Sequence[NodeAddress], offer: SignedOffer) -> int:
    """Tell every directory; -> how many took it. The dead and the unwilling are passed over."""
    took = 0

    async def tell(directory: NodeAddress) -> None:
        nonlocal took
        try:
            await rpc.call(directory, PublishOffer(offer), PUBLISH_S)
            took += 1
        except FallowError as error:
            log.info("offer not published", directory=directory.node.hex()[:12], code=error.code, what=error.what)

    async with asyncio.TaskGroup() as group:
        for directory in _distinct(directories):
            group.create_task(tell(directory))
    return took


async def search_signed(
    rpc: Rpc, directories: Sequence[NodeAddress], search: str | SearchOffers, now_ms: int
) -> list[SignedOffer]:
    """The live offers that any directory knows, as they were signed, in the order that directories give them in, turn
    and turn about: none of them can hide what the others rank first. `search` says what they must have, or names a kind
    ("" for all). Each is checked here, and of several by one node the newest counts. Takes at most `SEARCH_S` and never
    fails: with no directory in reach the list is empty."""
    return [signed for signed, _ in await _search(rpc, directories, search, now_ms)]


async def find_offers(
    rpc: Rpc, directories: Sequence[NodeAddress], search: str | SearchOffers, now_ms: int
) -> list[Offer]:
    """The same, read."""
    return [offer for _, offer in await _search(rpc, directories, search, now_ms)]


async def _search(
    rpc: Rpc, directories: Sequence[NodeAddress], search: str | SearchOffers, now_ms: int
) -> list[tuple[SignedOffer, Offer]]:
    request = SearchOffers(search) if isinstance(search, str) else search
    found: list[list[SignedOffer]] = []
    async with asyncio.TaskGroup() as group:
        for directory in _distinct(directories):
            found.append([])
            group.create_task(_collect(rpc, directory, request, found[-1]))
    best: dict[bytes, tuple[SignedOffer, Offer]] = {}
    seen: set[SignedOffer | None] = {None}
    for signed in chain.from_iterable(zip_longest(*found)):
        if signed in seen:
            continue
        seen.add(signed)
        if len(seen) % CHECKED_AT_ONCE == 0:
            await asyncio.sleep(0)
        offer = _checked(signed, request.kind, now_ms)
        if offer is None:
            continue
        before = best.get(offer.address.node)
        if before is None or before[1].issued_ms < offer.issued_ms:
            best[offer.address.node] = (signed, offer)
    return list(best.values())


def _checked(signed: SignedOffer, kind: str, now_ms: int) -> Offer | None:
    """A directory may hand out anything; what is not in order or was not asked for is dropped."""
    with suppress(FallowError):
        offer = open_offer(signed, now_ms)
        if not kind or any(rate.kind == kind for rate in offer.rates):
            return offer
    return None


async def _collect(rpc: Rpc, directory: NodeAddress, request: SearchOffers, into: list[SignedOffer]) -> None:
    """All pages of one directory, as far as it gets within the time."""
    seen: set[bytes] = set()
    try:
        async with asyncio.timeout(SEARCH_S):
            while len(into) < MAX_FOUND:
                page = await rpc.call(directory, request, SEARCH_S)
                if not isinstance(page, OffersFound):
                    raise fail("E1102", f"{type(page).__name__} in answer to a search")
                into.extend(page.offers)
                if not page.more or not page.offers:
                    return
                last = decode(Offer, page.offers[-1].body, MAX_OFFER_BYTES).address.node
                if last in seen:  # it would go round in circles for ever
                    raise fail("E1102", "pages that do not go on")
                seen.add(last)
                request = msgspec.structs.replace(request, after=last, limit=PAGE)
    except TimeoutError:
        log.info("directory is slow", directory=directory.node.hex()[:12])
    except FallowError as error:
        log.info("directory failed", directory=directory.node.hex()[:12], code=error.code, what=error.what)


def _distinct(directories: Iterable[NodeAddress]) -> list[NodeAddress]:
    return list({directory.node: directory for directory in directories}.values())
