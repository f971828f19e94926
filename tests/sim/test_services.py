from __future__ import annotations

import asyncio

import pytest

from fallow.rules.escrow import Terms
from fallow.sim.network import Network
from fallow.sim.people import Person
from fallow.sim.services import Bank, Directory, Seeded, at_once, open_once
from fallow.sim.world import World
from fallow.wire.ledger import GetSettlement, LedgerRefused, SettlementOf, Transfer
from fallow.wire.messages import (
    Hardware,
    Message,
    Offer,
    OffersFound,
    Ok,
    PublishOffer,
    Rate,
    SearchOffers,
    SignedOffer,
)


def bank() -> tuple[World, Bank, Person]:
    world = World(1)
    owner, ann = Person("bank"), Person("ann")
    found = Bank(world, Network(world), owner, Terms(owner.account, owner.account))
    found.welcome(ann, 1_000, 400)
    found.start()
    return world, found, ann


def offer_of(person: Person, now_ms: int, ttl_s: int = 60) -> SignedOffer:
    hardware = Hardware("cpu", 1, 1, 1, (), "x86")
    rates = (Rate("echo", 5, 5),)
    return person.offer(
        Offer(person.account, person.address, person.certificate, hardware, rates, bytes(20), 0, "", now_ms, ttl_s)
    )


def ask(process: Bank | Directory, caller: bytes, request: Message) -> Message:
    answers: list[Message] = []
    process.take(caller, request, answers.append)
    return answers[0]


def test_the_bank_welcomes_with_money_and_stake() -> None:
    world, found, ann = bank()
    balance = at_once(found.ledger.balance(ann.account, world.now_ms))
    assert (balance.available_ucr, balance.staked_ucr) == (600, 400)
    assert found.minted_ucr == 1_000


def test_strangers_are_refused_and_members_are_who_their_node_is() -> None:
    _, found, ann = bank()
    assert isinstance(ask(found, b"?" * 32, GetSettlement(bytes(32))), LedgerRefused)
    assert ask(found, ann.node, GetSettlement(bytes(32))) == SettlementOf(None)
    answer = ask(found, ann.node, Transfer(bytes(32), b"x" * 20, 5))
    assert isinstance(answer, LedgerRefused)
    assert answer.reason == "no_such_account"


def test_a_death_loses_answers_but_no_rows() -> None:
    world, found, ann = bank()
    rows = dict(found.ledger.rows)
    found.doom(1, 10)
    answers: list[Message] = []
    found.take(ann.node, Transfer(bytes(32), ann.account, 5), answers.append)
    assert not answers
    assert not found.up
    world.run(lambda: found.up, 1_000)
    assert found.ledger.rows == rows


def test_a_directory_takes_a_node_s_own_offer_until_it_expires() -> None:
    world = World(1)
    directory = Directory(world, Network(world), "directory", b"d" * 32)
    directory.start()
    ann = Person("ann")
    offer = offer_of(ann, world.now_ms)
    assert ask(directory, b"?" * 32, PublishOffer(offer)) == Ok()
    assert ask(directory, ann.node, SearchOffers("")) == OffersFound((), more=False)
    ask(directory, ann.node, PublishOffer(offer))
    assert ask(directory, ann.node, SearchOffers("echo")) == OffersFound((offer,), more=False)
    assert ask(directory, ann.node, SearchOffers("train")) == OffersFound((), more=False)
    world.now_ms += 60_000
    assert ask(directory, ann.node, SearchOffers("echo")) == OffersFound((), more=False)
    assert open_once(offer, world.now_ms) is None


def test_a_directory_forgets_when_it_dies() -> None:
    world = World(1)
    directory = Directory(world, Network(world), "directory", b"d" * 32)
    directory.start()
    ann = Person("ann")
    ask(directory, ann.node, PublishOffer(offer_of(ann, world.now_ms)))
    directory.kill(10)
    world.run(lambda: directory.up, 1_000)
    assert ask(directory, ann.node, SearchOffers("")) == OffersFound((), more=False)


def test_only_work_that_never_waits_is_done_at_once() -> None:
    async def quick() -> int:
        return 3

    async def slow() -> None:
        await asyncio.sleep(0)

    assert at_once(quick()) == 3
    with pytest.raises(AssertionError):
        at_once(slow())


def test_chance_comes_from_the_seed() -> None:
    assert Seeded(World(4)).draw(9) == Seeded(World(4)).draw(9) != Seeded(World(5)).draw(9)
