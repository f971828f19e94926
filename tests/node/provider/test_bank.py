"""The provider and a real bank: stake, escrows that are not there, closed behind its back, or out of reach."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.ledger_world import PROVIDER, TERMS, Dice, lease_id, lease_of, seal, voucher
from tests.node.provider.provider_net import Buyer, market
from tests.settlements import BooksAtHand

from fallow.adapters.clock import SystemClock
from fallow.node.provider.bank import Teller
from fallow.ports import Patience, SettlementClient
from fallow.rules.provider.events import LedgerClosed, LedgerRefusedVoucher, RedeemVoucher, ReleaseEscrow
from fallow.sim.ledger import MemoryLedger
from fallow.units import UCR_PER_CR, NodeId
from fallow.wire.documents import Voucher
from fallow.wire.ledger import Refusal
from fallow.wire.messages import CloseLease, LeaseLeaving, Ok


def bank_of(buyer: Buyer) -> SettlementClient:
    s = buyer.seller.services
    return s.settlement(Patience())


async def until(buyer: Buyer, ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not ready():
            await buyer.seller.provider.wait_change()


async def test_the_owners_stake_is_deposited_once(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        me = buyer.seller.services.identity.account
        assert (await bank_of(buyer).balance(me)).staked_ucr == 10 * UCR_PER_CR
        await buyer.seller.kill()
        await buyer.seller.start()
        assert (await bank_of(buyer).balance(me)).staked_ucr == 10 * UCR_PER_CR
        assert buyer.seller.provider.state.stake_ucr == 10 * UCR_PER_CR


async def test_stake_stands_behind_the_lease(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open()
        balance = await bank_of(buyer).balance(buyer.seller.services.identity.account)
        assert balance.bonded_ucr == buyer.lease_doc.stake_ucr == UCR_PER_CR


async def test_a_lease_without_escrow_is_closed_without_fuss(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.sign()
        assert isinstance(await buyer.ask(CloseLease(buyer.lease)), Ok)
        assert buyer.seller.provider.state.leases[buyer.lease].phase == "closed"


async def test_an_escrow_that_was_closed_elsewhere_ends_the_lease(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open()
        await bank_of(buyer).close(buyer.lease)
        signed = buyer.services.identity.sign(Voucher(buyer.lease, 5), buyer.services.bank_account)
        event = await buyer.seller.provider._teller._event(RedeemVoucher(buyer.lease, 5, signed))
        assert isinstance(event, LedgerClosed)


async def test_a_voucher_that_the_bank_will_never_pay_is_told_to_the_machine(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open(cap_ucr=10)
        signed = buyer.services.identity.sign(Voucher(buyer.lease, 11), buyer.services.bank_account)
        event = await buyer.seller.provider._teller._event(RedeemVoucher(buyer.lease, 11, signed))
        assert isinstance(event, LedgerRefusedVoucher)
        await buyer.seller.provider.tell(event)
        (leaving,) = await buyer.events(0, lambda _: True)
        assert isinstance(leaving.body, LeaseLeaving)
        await until(buyer, lambda: buyer.seller.provider.state.leases[buyer.lease].phase == "closed")


async def test_a_bank_that_is_away_is_asked_again(tmp_path: Path) -> None:
    async with market(tmp_path) as buyer:
        await buyer.open()
        await buyer.pay(7)
        bank = NodeId(buyer.services.bank.node)
        network, mine = buyer.seller.pool.network, buyer.seller.services.identity.node
        network.cut(mine, bank)
        network.cut(bank, mine)
        async with asyncio.TaskGroup() as group:
            closing = group.create_task(buyer.ask(CloseLease(buyer.lease)))
            await until(buyer, lambda: buyer.seller.provider.state.leases[buyer.lease].phase == "closing")
            network.heal(mine, bank)
            network.heal(bank, mine)
            assert isinstance(await closing, Ok)
        balance = await bank_of(buyer).balance(buyer.seller.services.identity.account)
        assert balance.earned_ucr == 7


@pytest.mark.parametrize(
    ("refusal", "redeeming", "closing"),
    [
        (Refusal.TOO_EARLY, None, None),
        (Refusal.TOO_MANY_PENDING, None, None),
        (Refusal.NO_ACCOUNT, None, None),
        (Refusal.ESCROW_CLOSED, LedgerClosed, LedgerClosed),
        (Refusal.OVER_CAP, LedgerRefusedVoucher, LedgerClosed),
        (Refusal.NO_ESCROW, LedgerRefusedVoucher, LedgerClosed),
    ],
)
async def test_what_time_cures_is_asked_again_and_what_is_over_is_over(
    refusal: Refusal, redeeming: type | None, closing: type | None
) -> None:
    bank = BooksAtHand(MemoryLedger(TERMS, Dice(), seal), PROVIDER, Dice())
    bank.refusals = [refusal, refusal]
    services: Any = SimpleNamespace(settlement=lambda _: bank, clock=SystemClock())
    teller, lease = Teller(services, lambda _: asyncio.sleep(0)), lease_id(lease_of())
    for work, kind in ((RedeemVoucher(lease, 5, voucher(lease_of(), 5)), redeeming), (ReleaseEscrow(lease), closing)):
        event = await teller._event(work)
        assert (event and type(event)) is kind
        if isinstance(event, LedgerRefusedVoucher):
            assert event.reason == refusal.value.replace("_", " ")
