"""The directory role: an index of signed, expiring offers; and how nodes publish to and search in several of them.

Defends against: offers published by somebody else than their node, replayed older offers, floods (one offer per node, a
limit on all of them; those that are here stay when it is full), and, on the searching side, directories that lie, loop,
stall or are gone. Does not defend against: a directory that hides offers (ask several), nodes without number.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

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
MAX_PAGE_BYTES = 1 << 20
PURGE_EVERY_MS = 10_000

PAGE = 200
MAX_FOUND = 10_000
"""Offers taken from one directory."""
SEARCH_S = 5.0
PUBLISH_S = 5.0
CHECKED_AT_ONCE = 32
"""Signatures checked before other tasks get their turn: about 6 ms."""


@dataclass(frozen=True, slots=True)
class _Listed:
    signed: SignedOffer
    kinds: tuple[str, ...]
    issued_ms: int
    expires_ms: int

    @property
    def size_bytes(self) -> int:
        return len(self.signed.body) + 64


class Directory:
    """The offers that are good now, at most one per node. Kept in memory: whoever offers publishes again anyway."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._listed: dict[bytes, _Listed] = {}
        self._nodes_by_kind: dict[str, list[bytes]] = {}
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
        kinds = ("", *sorted({rate.kind for rate in offer.rates}))
        found = _Listed(signed, kinds, offer.issued_ms, expires_ms(offer))
        before = self._listed.get(caller.node)
        if before is not None and before.signed == signed:
            return Ok()
        if before is not None and before.issued_ms >= found.issued_ms:
            raise fail("E1103", "A newer offer of this node is here already.")
        self._purge(now_ms)
        self._put(caller.node, found)
        return Ok()

    async def search(self, _caller: Caller, request: SearchOffers) -> OffersFound:
        """One page, in the order of the nodes' ids."""
        now_ms = self._clock.now_ms()
        nodes = self._nodes_by_kind.get(request.kind, [])
        page: list[SignedOffer] = []
        size = 0
        for index in range(bisect_right(nodes, request.after), len(nodes)):
            listed = self._listed[nodes[index]]
            if listed.expires_ms <= now_ms:
                continue
            if len(page) == request.limit or (page and size + listed.size_bytes > MAX_PAGE_BYTES):
                return OffersFound(tuple(page), more=True)
            page.append(listed.signed)
            size += listed.size_bytes
        return OffersFound(tuple(page), more=False)

    def _put(self, node: bytes, found: _Listed) -> None:
        before = self._listed.get(node)
        grows = found.size_bytes - (before.size_bytes if before is not None else 0)
        if (before is None and len(self._listed) >= MAX_OFFERS) or self._bytes + grows > MAX_BYTES:
            raise fail("E1803", "This directory is full.")
        self._drop(node)
        self._listed[node] = found
        self._bytes += found.size_bytes
        for kind in found.kinds:
            insort(self._nodes_by_kind.setdefault(kind, []), node)

    def _drop(self, node: bytes) -> None:
        before = self._listed.pop(node, None)
        if before is None:
            return
        self._bytes -= before.size_bytes
        for kind in before.kinds:
            nodes = self._nodes_by_kind[kind]
            del nodes[bisect_right(nodes, node) - 1]
            if not nodes:
                del self._nodes_by_kind[kind]

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


async def search_signed(rpc: Rpc, directories: Sequence[NodeAddress], kind: str, now_ms: int) -> list[SignedOffer]:
    """The live offers of a kind ("" for all) that any directory knows, as they were signed, in the order of the nodes'
    ids; each is checked here, and of several by one node the newest counts. Takes at most `SEARCH_S` and never fails:
    with no directory in reach the list is empty."""
    return [signed for signed, _ in await _search(rpc, directories, kind, now_ms)]


async def find_offers(rpc: Rpc, directories: Sequence[NodeAddress], kind: str, now_ms: int) -> list[Offer]:
    """The same, read."""
    return [offer for _, offer in await _search(rpc, directories, kind, now_ms)]


async def _search(
    rpc: Rpc, directories: Sequence[NodeAddress], kind: str, now_ms: int
) -> list[tuple[SignedOffer, Offer]]:
    found: list[list[SignedOffer]] = []
    async with asyncio.TaskGroup() as group:
        for directory in _distinct(directories):
            found.append([])
            group.create_task(_collect(rpc, directory, kind, found[-1]))
    best: dict[bytes, tuple[SignedOffer, Offer]] = {}
    seen: set[SignedOffer] = set()
    for pages in found:
        for signed in pages:
            if signed in seen:
                continue
            seen.add(signed)
            if len(seen) % CHECKED_AT_ONCE == 0:
                await asyncio.sleep(0)
            offer = _checked(signed, kind, now_ms)
            if offer is None:
                continue
            before = best.get(offer.address.node)
            if before is None or before[1].issued_ms < offer.issued_ms:
                best[offer.address.node] = (signed, offer)
    return [best[node] for node in sorted(best)]


def _checked(signed: SignedOffer, kind: str, now_ms: int) -> Offer | None:
    """A directory may hand out anything; what is not in order or was not asked for is dropped."""
    with suppress(FallowError):
        offer = open_offer(signed, now_ms)
        if not kind or any(rate.kind == kind for rate in offer.rates):
            return offer
    return None


async def _collect(rpc: Rpc, directory: NodeAddress, kind: str, into: list[SignedOffer]) -> None:
    """All pages of one directory, as far as it gets within the time."""
    after = b""
    try:
        async with asyncio.timeout(SEARCH_S):
            while len(into) < MAX_FOUND:
                page = await rpc.call(directory, SearchOffers(kind, after, PAGE), SEARCH_S)
                if not isinstance(page, OffersFound):
                    raise fail("E1102", f"{type(page).__name__} in answer to a search")
                into.extend(page.offers)
                if not page.more or not page.offers:
                    return
                last = decode(Offer, page.offers[-1].body, MAX_OFFER_BYTES).address.node
                if last <= after:  # it would go round in circles for ever
                    raise fail("E1102", "pages that do not go on")
                after = last
    except TimeoutError:
        log.info("directory is slow", directory=directory.node.hex()[:12])
    except FallowError as error:
        log.info("directory failed", directory=directory.node.hex()[:12], code=error.code, what=error.what)


def _distinct(directories: Iterable[NodeAddress]) -> list[NodeAddress]:
    return list({directory.node: directory for directory in directories}.values())
