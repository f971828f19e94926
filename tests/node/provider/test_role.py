"""A whole provider: from the order to the money, and over a restart."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.node.provider.provider_net import Buyer, Seller, market, open_pool, spec

from fallow.errors import FallowError
from fallow.node.config import Config, ProviderConfig
from fallow.node.provider.role import Provider
from fallow.node.router import Router
from fallow.ports import Patience, SettlementClient
from fallow.wire.claims import merkle_root, output_hash, task_leaf
from fallow.wire.documents import ClaimRoot
from fallow.wire.eip712 import open_signed
from fallow.wire.messages import CancelTask, Claimed, CloseLease, Ok, TaskFailed


def bank_of(buyer: Buyer) -> SettlementClient:
    s = buyer.services
    return s.settlement(Patience())


async def test_a_task_from_order_to_money(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open()
        task = await buyer.assign(spec(b"hello", units=500))
        claimed = await buyer.claimed()
        assert (claimed.task, claimed.output.value, claimed.output.parts) == (task, b"hello", ())
        bank, seller = buyer.services.bank_account, buyer.seller.services.identity
        root = open_signed(claimed.claim, ClaimRoot, bank, seller.account)
        assert root.root == merkle_root([task_leaf(task, output_hash(claimed.output), 500)])
        assert (root.lease, root.sequence, root.count, root.units) == (buyer.lease, 1, 1, 500)
        await buyer.pay(500)
        assert isinstance(await buyer.ask(CloseLease(buyer.lease)), Ok)
        balance = await bank_of(buyer).balance(seller.account)
        assert (balance.earned_ucr, balance.bonded_ucr) == (500, 0)
        assert isinstance(await buyer.ask(CloseLease(buyer.lease)), Ok)
        books = await bank_of(buyer).books()
        assert books.minted_ucr == books.sum_ucr


async def test_work_begins_only_when_the_escrow_is_open(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.sign()
        await buyer.assign(spec())
        entry = buyer.seller.provider.state.leases[buyer.lease]
        assert (entry.phase, entry.running) == ("signed", b"")
        assert buyer.seller.provider.worker_pids() == set()


async def test_after_a_kill_unfinished_tasks_run_again_and_nothing_is_claimed_twice(tmp_path: Path) -> None:
    async with open_pool(tmp_path) as pool:
        seller = await Seller(pool).start()
        buyer = Buyer(await pool.services("anna", Router()), seller)
        await buyer.open("spin")
        first = await buyer.assign(spec(b"1000", "spin"))
        await buyer.claimed()
        second = await buyer.assign(spec(b"400000", "spin"))
        third = await buyer.assign(spec(b"1000", "spin", units=2))
        await seller.kill()
        await seller.start()
        events = await buyer.events(0, lambda event: event.sequence == 3)
        claims = [event.body for event in events if isinstance(event.body, Claimed)]
        assert [claim.task for claim in claims] == [first, second, third]
        assert [event.sequence for event in events] == [1, 2, 3]
        roots = [
            open_signed(claim.claim, ClaimRoot, buyer.services.bank_account, seller.services.identity.account)
            for claim in claims
        ]
        assert [root.sequence for root in roots] == [1, 2, 3]
        resumed = await buyer.events(1, lambda event: event.sequence == 3)
        assert resumed == events[1:]


async def test_a_killed_worker_is_replaced_and_its_task_done(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open("spin")
        await buyer.assign(spec(b"600000", "spin"))
        async with asyncio.timeout(20):
            while not (pids := buyer.seller.provider.worker_pids()):
                await asyncio.sleep(0.02)
        os.kill(pids.pop(), signal.SIGKILL)
        assert len((await buyer.claimed()).output.value) == 32


async def test_a_cancelled_task_ends_and_the_next_one_runs(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open("spin")
        endless = await buyer.assign(spec(b"1000000000", "spin", units=1_000))
        await buyer.assign(spec(b"10", "spin"))
        await buyer.ask(CancelTask(buyer.lease, endless))
        failed, claimed = [event.body for event in await buyer.events(0, lambda event: event.sequence == 2)]
        assert isinstance(failed, TaskFailed)
        assert (failed.task, failed.code, failed.retryable) == (endless, "E1402", False)
        assert isinstance(claimed, Claimed)


async def test_a_task_over_its_time_fails_and_may_be_tried_elsewhere(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open("spin")
        await buyer.assign(spec(b"1000000000", "spin", units=1_000, timeout_s=1))
        (event,) = await buyer.events(0, lambda event: True)
        assert isinstance(event.body, TaskFailed)
        assert (event.body.code, event.body.retryable) == ("E1704", True)
        assert "time limit" in event.body.what


async def test_a_stranger_gets_nowhere(tmp_path: Path) -> None:
    async with open_pool(tmp_path) as pool:
        seller = await Seller(pool).start()
        buyer = Buyer(await pool.services("anna", Router()), seller)
        await buyer.open()
        eve = Buyer(await pool.services("eve", Router()), seller)
        eve.lease, eve.lease_doc = buyer.lease, buyer.lease_doc
        for attempt in (eve.assign(spec()), eve.ask(CloseLease(buyer.lease)), eve.claimed()):
            with pytest.raises(FallowError) as refused:
                await attempt
            assert refused.value.code == "E1204"
        with pytest.raises(FallowError):
            await eve.pay(1_000)
        assert seller.provider.state.leases[buyer.lease].voucher_ucr == 0


async def test_a_rule_that_cannot_be_read_is_told_at_once(tmp_path: Path) -> None:
    async with open_pool(tmp_path) as pool:
        services = await pool.services("pat", Router(), Config(provider=ProviderConfig(idle="nonsense")))
        with pytest.raises(FallowError) as wrong:
            Provider(services)
        assert wrong.value.code == "E1001"
