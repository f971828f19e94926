"""The provider at its bank: stake deposited, escrows looked at, vouchers redeemed, escrows closed. Every operation is
idempotent and is asked for again, about every second, for as long as the machine wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from fallow.errors import FallowError, UnavailableError
from fallow.node.groups import begin
from fallow.node.own_machine import OwnMachine
from fallow.node.provider.appeals import Appeals
from fallow.node.services import Services
from fallow.ports import Patience
from fallow.rules.provider import events as t
from fallow.units import parse_money
from fallow.wire.ledger import Refusal
from fallow.wire.refusals import SettlementRefused, words

log = structlog.get_logger()

BankWork = t.CheckEscrow | t.RedeemVoucher | t.ReleaseEscrow
STAKE_EVERY_S = 30.0
RETRY_S = 1.0
PATIENCE = Patience(8.0, 4.0)
LATER = frozenset({Refusal.TOO_EARLY, Refusal.TOO_MANY_PENDING, Refusal.NO_ACCOUNT})
"""Refusals that time cures, or joining again."""


class Teller:
    """Carries out the machine's wishes at the bank, one at a time for each lease and kind of wish."""

    def __init__(self, services: Services, tell: Callable[[t.ProviderEvent], Awaitable[object]]) -> None:
        self._s, self._tell = services, tell
        self._bank = services.settlement(PATIENCE)
        self.appeals = Appeals(services, self._bank, OwnMachine(services))
        self._under_way: set[tuple[str, bytes]] = set()

    def start(self, group: asyncio.TaskGroup, work: BankWork) -> None:
        """Begin, unless the same is under way."""
        key = (type(work).__name__, work.lease)
        if key not in self._under_way:
            begin(group, self._run(key, work), "bank work")
            self._under_way.add(key)

    async def _run(self, key: tuple[str, bytes], work: BankWork) -> None:
        event: t.ProviderEvent | None = None
        try:
            event = await self._event(work)
        except UnavailableError as error:
            log.info("bank not reached", work=key[0], what=error.what)
        except FallowError as error:
            log.warning("bank work failed", work=key[0], code=error.code, what=error.what)
        finally:
            self._under_way.discard(key)
        if event is not None:
            await self._tell(event)

    async def _event(self, work: BankWork) -> t.ProviderEvent | None:
        match work:
            case t.CheckEscrow(lease):
                return await self._look(lease)
            case t.RedeemVoucher(lease, cumulative_ucr, voucher):
                try:
                    await self._bank.redeem(voucher)
                except SettlementRefused as no:
                    return self._refused(lease, no, over=no.refusal is Refusal.ESCROW_CLOSED)
                return t.LedgerRedeemed(self._s.clock.now_ms(), lease, cumulative_ucr)
            case t.ReleaseEscrow(lease):
                try:
                    await self._bank.close(lease)
                except SettlementRefused as no:
                    return self._refused(lease, no, over=True)
                return t.LedgerClosed(self._s.clock.now_ms(), lease)

    def _refused(self, lease: bytes, no: SettlementRefused, *, over: bool) -> t.ProviderEvent | None:
        log.warning("bank refused", lease=lease.hex()[:12], reason=no.refusal.value, what=no.what)
        if no.refusal in LATER:
            return None
        now_ms = self._s.clock.now_ms()
        return (
            t.LedgerClosed(now_ms, lease)
            if over
            else t.LedgerRefusedVoucher(now_ms, lease, words(no.refusal, no.detail)[:200])
        )

    async def _look(self, lease: bytes) -> t.ProviderEvent | None:
        """None while the bank does not know the lease: the requester may still open it."""
        found = await self._bank.standing(lease)
        if found is None:
            return None
        now_ms = self._s.clock.now_ms()
        if not found.said.closed_ms:
            return t.LedgerOpened(now_ms, lease)
        return t.LedgerClosed(now_ms, lease, found.said.paid_ucr, found.said.slashed_ucr)

    async def keep_stake(self) -> None:
        """Until cancelled: deposit what is missing of the owner's stake, as far as there is money, and tell the machine
        what there is. A crash between asking and hearing only means looking again."""
        wanted_ucr = parse_money(self._s.config.provider.stake)
        while True:
            try:
                balance = await self._bank.balance(self._s.identity.account)
                held_ucr = balance.staked_ucr - balance.unbonding_ucr
                missing_ucr = min(wanted_ucr - held_ucr, balance.available_ucr)
                if missing_ucr > 0:
                    await self._bank.deposit(missing_ucr)
                    held_ucr += missing_ucr
                await self._tell(t.LedgerStaked(self._s.clock.now_ms(), held_ucr))
                self.appeals.tell(balance.charged)
                pause_s = STAKE_EVERY_S
            except FallowError as error:
                log.info("stake not deposited", code=error.code, what=error.what)
                pause_s = RETRY_S
            await self._s.clock.sleep(pause_s)
