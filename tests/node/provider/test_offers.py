"""Offers tell what is free now; the owner's rule is obeyed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from tests.node.provider.provider_net import CONFIG, Buyer, market, open_pool

from fallow.errors import FallowError
from fallow.node.config import Config, ProviderConfig
from fallow.node.directory import find_offers
from fallow.node.provider.offers import OwnerWatch, sold_hardware, terms_of
from fallow.node.router import Router
from fallow.rules.idle import Reading
from fallow.rules.provider.events import OwnerLeft, OwnerReturned
from fallow.units import GIB
from fallow.wire.messages import Declined, Offer


async def offer_when(buyer: Buyer, ready: Callable[[Offer], bool]) -> Offer:
    async with asyncio.timeout(20):
        while True:
            s = buyer.services
            for offer in await find_offers(s.rpc, s.directories, "echo", s.clock.now_ms()):
                if ready(offer):
                    return offer
            await buyer.seller.provider.wait_change()


async def test_offers_tell_what_is_free_now(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        offer = await offer_when(buyer, lambda offer: offer.stake_ucr > 0)
        assert (offer.hardware.cpu_millis, offer.hardware.ram_bytes) == (2_000, 2 * GIB)
        assert offer.account == buyer.seller.services.identity.account
        assert {rate.kind for rate in offer.rates} == {"echo", "spin", "train", "generate", "wasm"}
        assert all(rate.units_per_s > 0 for rate in offer.rates)
        await buyer.open()
        await offer_when(buyer, lambda offer: offer.hardware.cpu_millis == 1_000)
        dearer = await offer_when(buyer, lambda offer: offer.stake_ucr < 10_000_000)
        assert next(rate.price_ucr for rate in dearer.rates if rate.kind == "echo") == 1_250


async def test_while_the_owner_is_active_nothing_is_on_offer(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.seller.provider.tell(OwnerReturned(buyer.services.clock.now_ms(), "typing"))
        await offer_when(buyer, lambda offer: offer.hardware.cpu_millis == 0)
        answer = await buyer.quote(buyer.order())
        assert isinstance(answer, Declined)
        assert "owner is active" in {row.resource for row in answer.shortfalls}


async def test_limits_of_the_owner_bound_what_is_sold(tmp_path: Path) -> None:
    async with open_pool(tmp_path) as pool:
        services = await pool.services("pat", Router(), CONFIG)
        sold = sold_hardware(services)
        assert (sold.cpu_millis, sold.ram_bytes, sold.disk_bytes) == (2_000, 2 * GIB, GIB)
        small = Config(quota="300M", provider=CONFIG.provider)
        tight = await pool.services("pit", Router(), small)
        assert sold_hardware(tight).disk_bytes == small.quota_bytes < GIB
        huge = Config(provider=ProviderConfig(cpus=10_000, ram="900T", disk="900T"))
        everything = sold_hardware(await pool.services("huge", Router(), huge))
        assert everything.ram_bytes < 900 << 40
        assert everything.cpu_millis < 10_000_000
        terms = terms_of(services, sold)
        assert terms.capacity.cpu_millis == 2_000
        assert terms.rates["echo"] == CONFIG.provider.prices["echo"]


class Script:
    """Readings one after the other; the last one stays."""

    def __init__(self, *readings: Reading) -> None:
        self.readings = list(readings)

    def reading(self, _ours: set[int]) -> Reading:
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]


QUIET = Reading(1_000, 0, 0, 0, 0)
TYPING = Reading(0, 0, 0, 0, 0)


async def test_the_machine_hears_when_its_owner_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fallow.node.provider.offers.LOOK_EVERY_S", 0.001)
    async with open_pool(tmp_path) as pool:
        config = Config(provider=ProviderConfig(idle="input 1m and quiet 0s"))
        services = await pool.services("pat", Router(), config)
        services.machine = cast(Any, Script(QUIET, TYPING, TYPING, QUIET))
        watch = OwnerWatch(services, set)
        heard: list[Any] = []

        class Enough(Exception):
            pass

        async def tell(event: Any) -> None:
            heard.append(event)
            if len(heard) == 2:
                raise Enough

        with pytest.raises(Enough):
            await watch.watch(tell)
        assert isinstance(heard[0], OwnerReturned)
        assert heard[0].reason == "the owner is using the machine"
        assert isinstance(heard[1], OwnerLeft)


async def test_a_machine_that_is_always_idle_is_not_watched(tmp_path: Path) -> None:
    async with open_pool(tmp_path) as pool:

        async def tell(event: Any) -> None:
            raise AssertionError(event)

        await OwnerWatch(await pool.services("pat", Router(), CONFIG), set).watch(tell)


async def test_a_rule_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    async with open_pool(tmp_path) as pool:
        services = await pool.services("pat", Router(), Config(provider=ProviderConfig(idle="when I sleep")))
        with pytest.raises(FallowError) as wrong:
            OwnerWatch(services, set)
        assert wrong.value.code == "E1001"
