"""The provider at its bank: stake deposited, escrows looked at, vouchers redeemed, escrows closed. Every operation is
idempotent and is asked for again, about every second, for as long as the machine wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from fallow.errors import FallowError, RejectedError, UnavailableError
from fallow.node.bank_client import BankClient, Patience
from fallow.node.services import Services
from fallow.rules.provider.events import (
    CheckEscrow,
    CloseEscrow,
    LedgerClosed,
    LedgerOpened,
    LedgerRedeemed,
    LedgerRefused,
    LedgerStaked,
    ProviderEvent,
    Redeem,
)
from fallow.units import parse_money
from fallow.wire.documents import Settlement
from fallow.wire.eip712 import open_signed

log = structlog.get_logger()

BankWork = CheckEscrow | Redeem | CloseEscrow
STAKE_EVERY_S = 30.0
RETRY_S = 1.0
_LATER = ("too early", "too many pending")
"""What a refusal says that time will cure."""


class Teller:
    """Carries out the machine's wishes at the bank, one at a time for each lease and kind of wish."""

    def __init__(self, services: Services, tell: Callable[[ProviderEvent], Awaitable[object]]) -> None:
        self._s, self._tell = services, tell
        self._bank = BankClient(services.rpc, services.bank, services.clock, services.entropy, Patience(8.0, 4.0))
        self._under_way: set[tuple[str, bytes]] = set()

    def start(self, group: asyncio.TaskGroup, work: BankWork) -> None:
        """Begin, unless the same is under way."""
        key = (type(work).__name__, work.lease)
        if key not in self._under_way:
            self._under_way.add(key)
            group.create_task(self._run(key, work), name="bank work")

    async def _run(self, key: tuple[str, bytes], work: BankWork) -> None:
        event: ProviderEvent | None = None
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

    async def _event(self, work: BankWork) -> ProviderEvent | None:
        match work:
            case CheckEscrow(lease):
                return await self._look(lease)
            case Redeem(lease, cumulative_ucr, voucher):
                try:
                    await self._bank.redeem(voucher)
                except RejectedError as refusal:
                    return self._refused(lease, refusal, closing=False)
                return LedgerRedeemed(self._s.clock.now_ms(), lease, cumulative_ucr)
            case CloseEscrow(lease):
                try:
                    await self._bank.close_escrow(lease)
                except RejectedError as refusal:
                    return self._refused(lease, refusal, closing=True)
                return LedgerClosed(self._s.clock.now_ms(), lease)

    def _refused(self, lease: bytes, refusal: RejectedError, *, closing: bool) -> ProviderEvent | None:
        log.warning("bank refused", lease=lease.hex()[:12], code=refusal.code, what=refusal.what)
        if any(word in refusal.what for word in _LATER):
            return None
        now_ms = self._s.clock.now_ms()
        if closing or refusal.code == "E1302":
            return LedgerClosed(now_ms, lease)
        return LedgerRefused(now_ms, lease, refusal.what[:200])

    async def _look(self, lease: bytes) -> ProviderEvent | None:
        """None while the bank does not know the lease: the requester may still open it."""
        signed = await self._bank.settlement(lease)
        if signed is None:
            return None
        settlement = open_signed(signed, Settlement, self._s.bank_account, self._s.bank_account)
        if settlement.lease != lease:
            return None
        now_ms = self._s.clock.now_ms()
        return LedgerClosed(now_ms, lease) if settlement.closed_ms else LedgerOpened(now_ms, lease)

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
                await self._tell(LedgerStaked(self._s.clock.now_ms(), held_ucr))
                pause_s = STAKE_EVERY_S
            except FallowError as error:
                log.info("stake not deposited", code=error.code, what=error.what)
                pause_s = RETRY_S
            await self._s.clock.sleep(pause_s)
