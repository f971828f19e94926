"""Opening lanes: before the escrow, on kinds without lanes, after a dead worker, and again."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.node.provider.provider_net import Buyer, market

from fallow.errors import FallowError
from fallow.node.provider import calls, lanes
from fallow.wire.claims import merkle_root
from fallow.wire.codec import decode
from fallow.wire.documents import ClaimRoot
from fallow.wire.messages import CloseLease, GetLaneLeaves, LaneClaimed, LaneLeaves, LaneReady, LaneResult, LaneTask


async def one(buyer: Buyer, number: int) -> LaneResult:
    async with asyncio.timeout(20), buyer.lane() as stream:
        await stream.send(LaneTask(number, b"x"))
        async for message in stream:
            if isinstance(message, LaneResult):
                return message
    raise AssertionError("no answer")


async def test_a_lane_that_comes_back_finds_its_worker_ready(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open()
        assert (await one(buyer, 1)).value == b"x"
        pids = buyer.seller.provider.worker_pids()
        assert (await one(buyer, 2)).value == b"x"
        assert buyer.seller.provider.worker_pids() == pids


async def test_the_leaves_of_a_claim_are_shown_to_its_requester(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open()
        await one(buyer, 1)
        events = await buyer.events(0, lambda event: isinstance(event.body, LaneClaimed))
        claim = next(event.body for event in events if isinstance(event.body, LaneClaimed))
        root = decode(ClaimRoot, claim.claim.body)
        shown = await buyer.ask(GetLaneLeaves(buyer.lease, claim.first))
        assert isinstance(shown, LaneLeaves)
        assert (merkle_root(shown.leaves), len(shown.leaves)) == (root.root, root.count)
        assert await buyer.ask(GetLaneLeaves(buyer.lease, claim.first + 7)) == LaneLeaves(())
        with pytest.raises(FallowError) as refused:
            await buyer.ask(GetLaneLeaves(b"x" * 32, claim.first))
        assert refused.value.code == "E1204"


def test_the_oldest_leaves_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MAX_LEAVES", 3)
    found = lanes.ProviderLanes()
    for first in (1, 3, 5):
        found._keep(b"lease", first, (b"a" * 32, b"b" * 32))
    assert [len(found.leaves(b"lease", first)) for first in (1, 3, 5)] == [0, 0, 2]
    found.forget(b"lease")
    assert found.leaves(b"lease", 5) == ()


async def test_a_lane_breaks_with_its_worker_and_can_be_opened_again(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open()
        async with buyer.lane() as stream:
            assert isinstance(await anext(aiter(stream)), LaneReady)
            os.kill(buyer.seller.provider.worker_pids().pop(), signal.SIGKILL)
            with pytest.raises(FallowError) as broken:
                async for _ in stream:
                    pass
            assert broken.value.code == "E1704"
        assert (await one(buyer, 1)).value == b"x"


async def test_a_kind_without_lanes_says_so(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open("train")
        with pytest.raises(FallowError) as refused:
            await one(buyer, 1)
        assert refused.value.code == "E1707"


async def test_no_lane_without_escrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "OPEN_WAIT_S", 0.3)
    async with market(tmp_path) as buyer:
        await buyer.sign()
        with pytest.raises(FallowError) as early:
            await one(buyer, 1)
        assert early.value.code == "E1802"


async def test_a_lane_ends_with_its_lease(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open()
        async with buyer.lane() as stream:
            assert isinstance(await anext(aiter(stream)), LaneReady)
            await buyer.ask(CloseLease(buyer.lease))
            with pytest.raises(FallowError):
                async for _ in stream:
                    pass
        with pytest.raises(FallowError) as gone:
            await one(buyer, 1)
        assert gone.value.code == "E1206"
        async with asyncio.timeout(10):  # the worker is stopped in the background
            while buyer.seller.provider.worker_pids():
                await asyncio.sleep(0.05)
