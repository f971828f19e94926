"""The directory takes what is in order and nothing else, and searchers believe none of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import msgspec
import pytest
from tests.wire.parties import NOW_MS, Party

from fallow.errors import FallowError
from fallow.node import directory as directory_module
from fallow.node.directory import Directory, find_offers, publish, search_signed
from fallow.node.rpc import Caller, Router, Rpc, serve
from fallow.sim.transport import SimNetwork
from fallow.units import NodeId
from fallow.wire.certificates import sign_offer
from fallow.wire.messages import (
    Hardware,
    Message,
    NodeAddress,
    Offer,
    OffersFound,
    Ok,
    PublishOffer,
    Rate,
    SearchOffers,
    SignedOffer,
)

HARDWARE = Hardware(cpu="cpu", cpu_millis=1000, ram_bytes=1 << 30, disk_bytes=1 << 30, gpus=(), numerics="x")


@dataclass
class HandClock:
    now: int = NOW_MS

    def now_ms(self) -> int:
        return self.now

    def monotonic_s(self) -> float:
        return self.now / 1000

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a directory waits for nothing")


def party(number: int) -> Party:
    return Party(bytes([number]) * 32, bytes([number, 1]) * 16)


def offer_of(who: Party, *kinds: str, issued_ms: int = NOW_MS, ttl_s: int = 60) -> Offer:
    rates = tuple(Rate(kind=kind, price_ucr=5, units_per_s=7) for kind in kinds or ("echo",))
    return Offer(
        account=who.account, address=NodeAddress(node=who.node), certificate=who.certificate(), hardware=HARDWARE,
        rates=rates, bank=bytes(20), stake_ucr=0, region="", issued_ms=issued_ms, ttl_s=ttl_s,
    )  # fmt: skip


def signed_by(who: Party, *kinds: str, issued_ms: int = NOW_MS, ttl_s: int = 60) -> SignedOffer:
    return sign_offer(offer_of(who, *kinds, issued_ms=issued_ms, ttl_s=ttl_s), who.node_secret)


def caller(who: Party) -> Caller:
    return Caller(NodeId(who.node))


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def directory(clock: HandClock) -> Directory:
    return Directory(clock)


async def put(directory: Directory, who: Party, *kinds: str, issued_ms: int = NOW_MS, ttl_s: int = 60) -> Message:
    signed = signed_by(who, *kinds, issued_ms=issued_ms, ttl_s=ttl_s)
    return await directory.publish(caller(who), PublishOffer(signed))


async def listed(directory: Directory, kind: str = "", limit: int = 200) -> list[Offer]:
    found: list[Offer] = []
    after = b""
    while True:
        page = await directory.search(Caller(NodeId(b"")), SearchOffers(kind, after, limit))
        assert len(page.offers) <= limit
        found.extend(msgspec.msgpack.decode(signed.body, type=Offer) for signed in page.offers)
        if not page.more:
            return found
        after = found[-1].address.node


async def code_of(work: object) -> str:
    with pytest.raises(FallowError) as caught:
        await work  # type: ignore[misc]
    return caught.value.code


# the directory --------------------------------------------------------------------------------------------------------


async def test_offers_are_found_by_kind_and_page_by_page(directory: Directory) -> None:
    parties = [party(number) for number in range(1, 12)]
    for number, who in enumerate(parties):
        assert await put(directory, who, *(["echo"] if number % 2 else ["train", "echo", "echo"])) == Ok()
    nodes = sorted(who.node for who in parties)
    for limit in (1, 3, 11, 200):
        assert [offer.address.node for offer in await listed(directory, limit=limit)] == nodes
        assert [offer.address.node for offer in await listed(directory, "echo", limit)] == nodes
    assert {offer.address.node for offer in await listed(directory, "train", 2)} == {who.node for who in parties[::2]}
    assert await listed(directory, "render") == []


async def test_nobody_publishes_for_somebody_else(directory: Directory) -> None:
    stolen = PublishOffer(signed_by(party(1)))
    assert await code_of(directory.publish(caller(party(2)), stolen)) == "E1101"
    assert await code_of(directory.publish(Caller(NodeId(b"")), stolen)) == "E1101"
    forged = PublishOffer(sign_offer(offer_of(party(1)), party(2).node_secret))
    assert await code_of(directory.publish(caller(party(1)), forged)) == "E1101"
    assert len(directory) == 0


@pytest.mark.parametrize(
    ("issued_ms", "ttl_s", "code"),
    [
        (NOW_MS, 0, "E1102"),
        (NOW_MS, 3601, "E1102"),
        (NOW_MS - 61_000, 60, "E1103"),
        (NOW_MS + 10 * 60_000, 60, "E1103"),
    ],
)
async def test_what_is_not_good_now_is_refused(directory: Directory, issued_ms: int, ttl_s: int, code: str) -> None:
    assert await code_of(put(directory, party(1), issued_ms=issued_ms, ttl_s=ttl_s)) == code


async def test_garbage_is_refused(directory: Directory) -> None:
    for body in (b"", b"\xc1", b"\x90", signed_by(party(1)).body + b"\x00"):
        garbage = PublishOffer(SignedOffer(body, bytes(64)))
        assert await code_of(directory.publish(caller(party(1)), garbage)) in ("E1101", "E1102")


async def test_only_a_newer_offer_replaces_one(directory: Directory) -> None:
    await put(directory, party(1), "train", issued_ms=NOW_MS - 5)
    await put(directory, party(1), "train", issued_ms=NOW_MS - 5)  # said twice
    assert await code_of(put(directory, party(1), "echo", issued_ms=NOW_MS - 6)) == "E1103"
    assert await code_of(put(directory, party(1), "echo", issued_ms=NOW_MS - 5)) == "E1103"
    assert len(await listed(directory, "train")) == 1
    await put(directory, party(1), "echo")
    assert await listed(directory, "train") == []
    assert len(await listed(directory, "echo")) == len(directory) == 1


async def test_offers_expire(directory: Directory, clock: HandClock) -> None:
    await put(directory, party(1), ttl_s=10)
    await put(directory, party(2), ttl_s=100)
    clock.now += 10_000
    assert [offer.address.node for offer in await listed(directory)] == [party(2).node]
    await put(directory, party(3), issued_ms=clock.now)
    assert len(directory) == 2


async def test_a_full_directory_keeps_those_that_are_here(
    directory: Directory, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "MAX_OFFERS", 2)
    await put(directory, party(1), ttl_s=10)
    await put(directory, party(2))
    assert await code_of(put(directory, party(3))) == "E1803"
    await put(directory, party(2), issued_ms=NOW_MS + 1)  # who is here may renew
    clock.now += 20_000
    await put(directory, party(3), issued_ms=clock.now)  # the first has expired
    monkeypatch.setattr(directory_module, "MAX_BYTES", 1000)
    assert await code_of(put(directory, party(2), *(f"kind {n}" for n in range(30)), issued_ms=clock.now)) == "E1803"
    assert len(await listed(directory)) == 2


async def test_pages_are_bounded_in_bytes(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "MAX_PAGE_BYTES", 1000)
    for number in range(1, 9):
        await put(directory, party(number))
    page = await directory.search(Caller(NodeId(b"")), SearchOffers("", b"", 200))
    assert page.more
    assert len(page.offers) < 8
    assert len(await listed(directory)) == 8


# searching and publishing ---------------------------------------------------------------------------------------------


class Net:
    """Directories and clients on a simulated network."""

    def __init__(self, stack: AsyncExitStack, group: asyncio.TaskGroup) -> None:
        self.network, self.stack, self.group = SimNetwork(), stack, group
        self.servers: list[asyncio.Task[None]] = []

    def serve(self, router: Router, number: int) -> NodeAddress:
        transport = self.network.listen(NodeId(bytes([number]) * 32))
        self.servers.append(self.group.create_task(serve(transport, router)))
        return transport.address()

    def directory(self, number: int, directory: Directory) -> NodeAddress:
        router = Router()
        directory.register(router)
        return self.serve(router, number)

    def liar(self, number: int, answer: Message) -> NodeAddress:
        """Answers every search with the same."""
        router = Router()

        @router.on(SearchOffers)
        async def _(_caller: Caller, _request: SearchOffers) -> Message:
            return answer

        return self.serve(router, number)

    def dead(self, number: int) -> NodeAddress:
        return NodeAddress(node=bytes([number]) * 32, direct=("sim:999",))

    async def client(self, who: Party) -> Rpc:
        return await self.stack.enter_async_context(Rpc(self.network.listen(NodeId(who.node))))


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    async with AsyncExitStack() as stack:
        made = Net(stack, await stack.enter_async_context(asyncio.TaskGroup()))
        yield made
        for server in made.servers:
            server.cancel()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "SEARCH_S", 0.3)
    monkeypatch.setattr(directory_module, "PUBLISH_S", 0.3)


@pytest.mark.usefixtures("quick")
async def test_published_offers_are_found_although_a_directory_is_dead(net: Net, clock: HandClock) -> None:
    both = [net.directory(201, Directory(clock)), net.dead(202), net.directory(203, Directory(clock))]
    for number in (1, 2):
        assert await publish(await net.client(party(number)), both, signed_by(party(number))) == 2
    offers = await find_offers(await net.client(party(9)), both, "echo", NOW_MS)
    assert [offer.address.node for offer in offers] == sorted(party(number).node for number in (1, 2))
    assert await find_offers(await net.client(party(8)), [], "echo", NOW_MS) == []


async def test_the_newest_offer_of_a_node_counts(net: Net, clock: HandClock) -> None:
    old, new = Directory(clock), Directory(clock)
    await put(old, party(1), "echo", issued_ms=NOW_MS - 10)
    await put(new, party(1), "echo", "train", issued_ms=NOW_MS)
    for order in ([old, new], [new, old]):
        places = [net.directory(210 + number, one) for number, one in enumerate(order)]
        offers = await find_offers(await net.client(party(9)), places, "", NOW_MS)
        assert [len(offer.rates) for offer in offers] == [2]
        net.network = SimNetwork()


async def test_lies_are_dropped(net: Net, clock: HandClock) -> None:
    honest = Directory(clock)
    await put(honest, party(1))
    good = signed_by(party(2))
    lies = (
        SignedOffer(good.body, bytes(64)),
        SignedOffer(b"garbage", good.signature),
        sign_offer(offer_of(party(3)), party(4).node_secret),
        signed_by(party(5), issued_ms=NOW_MS - 3_600_000),
        signed_by(party(6), "train"),
        good,
    )
    places = [net.liar(201, OffersFound(lies, more=False)), net.directory(202, honest), net.liar(203, Ok())]
    found = await search_signed(await net.client(party(9)), places, "echo", NOW_MS)
    assert {signed.signature for signed in found} == {good.signature, signed_by(party(1)).signature}


@pytest.mark.usefixtures("quick")
async def test_pages_without_end_end(net: Net) -> None:
    round_and_round = net.liar(201, OffersFound((signed_by(party(1)),), more=True))
    empty = net.liar(202, OffersFound((), more=True))
    garbage = net.liar(203, OffersFound((SignedOffer(b"x", bytes(64)),), more=True))
    async with asyncio.timeout(5):
        offers = await find_offers(await net.client(party(9)), [round_and_round, empty, garbage], "", NOW_MS)
    assert [offer.address.node for offer in offers] == [party(1).node]
