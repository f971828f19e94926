"""Invented offers: directories full of providers that do not exist."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.node.provider.provider_net import open_pool
from tests.node.steward.steward_net import rogue
from tests.node.test_directory import HandClock, caller, code_of, listed, offer_of, party, put
from tests.wire.parties import Party

from fallow.errors import UnavailableError
from fallow.node import directory as directory_module
from fallow.node.directory import MAX_UNSTAKED, Directory
from fallow.node.router import Caller, Router
from fallow.node.steward.effects import Performer
from fallow.node.steward.records import Records
from fallow.rules.steward import events as t
from fallow.units import GIB, NodeId
from fallow.wire.certificates import certify, sign_offer
from fallow.wire.messages import Offer, PublishOffer, SearchOffers

HONEST = party(200)


async def stake_of_honest(account: bytes) -> int:
    return 10 if account == HONEST.account else 0


async def invent(directory: Directory, count: int) -> int:
    """-> how many were taken. Each claims all the stake there is, and asks for almost nothing."""
    taken = 0
    for number in range(1, count + 1):
        who = Party(number.to_bytes(32), (number + 1_000).to_bytes(32))
        offer = msgspec.structs.replace(offer_of(who), stake_ucr=1 << 60)
        try:
            await directory.publish(caller(who), PublishOffer(sign_offer(offer, who.node_secret)))
        except UnavailableError:
            continue
        taken += 1
    return taken


async def test_invented_offers_come_after_those_with_stake() -> None:
    """Two hundred keys with an account each publish offers that claim a fortune at stake. Gained: 0 places before the
    honest offer, whose stake the bank confirms. Cost: 200 keys."""
    directory = Directory(HandClock(), stake_of_honest)
    assert await invent(directory, 200) == 200
    await put(directory, HONEST)
    assert (await listed(directory, "echo", limit=10))[0].address.node == HONEST.node
    assert len(await listed(directory)) == 201


async def test_a_full_directory_makes_room_for_stake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invented offers fill a directory before the honest come. Gained: 0; who has stake takes the place of one who has
    none, and none takes the place of who has."""
    monkeypatch.setattr(directory_module, "MAX_OFFERS", 20)
    directory = Directory(HandClock(), stake_of_honest)
    assert await invent(directory, 30) == 20
    await put(directory, HONEST)
    assert len(directory) == 20
    await invent(directory, 60)
    assert (await listed(directory))[0].address.node == HONEST.node


async def test_an_account_without_stake_has_few_places() -> None:
    """One account certifies node after node. Gained: MAX_UNSTAKED places."""
    directory = Directory(HandClock(), stake_of_honest)
    codes: list[str] = []
    for number in range(MAX_UNSTAKED + 3):
        who = Party(party(7).account_secret, (number + 1).to_bytes(32))
        signed = sign_offer(offer_of(who), who.node_secret)
        if number < MAX_UNSTAKED:
            await directory.publish(caller(who), PublishOffer(signed))
        else:
            codes.append(await code_of(directory.publish(caller(who), PublishOffer(signed))))
    assert codes == ["E1803"] * 3


async def test_a_search_is_answered_by_what_it_asks_for() -> None:
    """Offers of machines that are too small, too dear, or of another bank. Gained: 0 places among those that fit."""
    directory = Directory(HandClock())
    small = msgspec.structs.replace(offer_of(party(1)).hardware, ram_bytes=GIB - 1)
    lures: list[tuple[Party, Offer]] = [
        (party(1), msgspec.structs.replace(offer_of(party(1)), hardware=small)),
        (party(2), msgspec.structs.replace(offer_of(party(2)), bank=bytes(19) + b"x")),
        (party(3), offer_of(party(3), "train")),
    ]
    for who, offer in lures:
        await directory.publish(caller(who), PublishOffer(sign_offer(offer, who.node_secret)))
    await put(directory, HONEST)
    wanted = SearchOffers("echo", bank=bytes(20), ram_bytes=GIB, max_price_ucr=5)
    page = await directory.search(Caller(NodeId(b"")), wanted)
    assert [msgspec.msgpack.decode(one.body, type=Offer).address.node for one in page.offers] == [HONEST.node]
    dear = msgspec.structs.replace(wanted, max_price_ucr=4)
    assert not (await directory.search(Caller(NodeId(b"")), dear)).offers


async def test_a_steward_asks_nobody_who_has_nothing_at_stake(tmp_path: Path) -> None:
    """Invented offers reach a steward through a directory that belongs to no pool, at half the honest price. Gained: 0
    questions; the bank knows nothing of their stake."""
    clock = HandClock()
    async with open_pool(tmp_path) as pool:
        us, honest = await pool.services("sam", Router()), await rogue(pool, "honest")
        clock.now = us.clock.now_ms()
        await honest.services.settlement().deposit(1_000)
        directory = Directory(us.clock)
        host = await rogue(pool, "directory")
        directory.register(host.router)
        us.directories[:] = [host.services.rpc.address()]
        parties = [Party(n.to_bytes(32), (n + 500).to_bytes(32)) for n in range(1, 60)]
        for who in parties:
            offer = msgspec.structs.replace(offer_of(who, issued_ms=clock.now), stake_ucr=1 << 60, bank=us.bank_account)
            certificate = certify(who.account_secret, who.node, clock.now)
            offer = msgspec.structs.replace(offer, certificate=certificate)
            await directory.publish(caller(who), PublishOffer(sign_offer(offer, who.node_secret)))
        me = honest.services.identity
        real = msgspec.structs.replace(
            offer_of(parties[0], issued_ms=clock.now), account=me.account, address=honest.services.rpc.address(),
            certificate=me.certificate(clock.now), bank=us.bank_account, stake_ucr=1_000,
        )  # fmt: skip
        await directory.publish(Caller(me.node), PublishOffer(sign_offer(real, me.node_secret)))
        found = await Performer(us, Records(us)).run(t.FindOffers(bytes(32), "echo"))
        assert isinstance(found, t.OffersGathered)
        assert [offer.account for offer in found.offers] == [me.account]
