"""What the provider tells the world: signed offers of what is free now; and what it asks its owner: may we work?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from fallow.errors import fail
from fallow.node.directory import publish
from fallow.node.services import Services
from fallow.rules.idle import IdleState, Reading, busy_because, decide, parse
from fallow.rules.placement import capacity_of
from fallow.rules.provider.events import OwnerLeft, OwnerReturned, ProviderEvent, ProviderPolicy, ProviderTerms
from fallow.rules.provider.quotes import free_now, free_stake_ucr, price_ucr
from fallow.rules.provider.state import ProviderState
from fallow.units import GIB, parse_money, parse_size
from fallow.wire.certificates import sign_offer
from fallow.wire.messages import EXACT, Hardware, Offer, Rate

log = structlog.get_logger()

OFFER_EVERY_S = 2.0
OFFER_TTL_S = 20
LOOK_EVERY_S = 1.0
RESERVED_RAM_BYTES = GIB
"""Left to the system and the node itself where the owner names no limit."""


def sold_hardware(services: Services) -> Hardware:
    """What is measured, less what the owner keeps. Raises nothing: limits above what there is are what there is. The
    blob store's quota is a limit too, since all that work leaves on the disk is kept there."""
    config, found = services.config.provider, services.machine.measure(services.home, threads_of(services))
    ram = parse_size(config.ram) if config.ram else max(found.ram_bytes - RESERVED_RAM_BYTES, found.ram_bytes // 2)
    return msgspec.structs.replace(
        found,
        cpu_millis=min(int(config.cpus * 1000) or found.cpu_millis, found.cpu_millis),
        ram_bytes=min(ram, found.ram_bytes),
        disk_bytes=min(
            parse_size(config.disk) if config.disk else found.disk_bytes, found.disk_bytes, services.config.quota_bytes
        ),
    )


def threads_of(services: Services) -> int:
    """How many CPU threads a task gets: what the owner says, else one, which is what an order asks for."""
    return services.config.provider.threads or 1


def terms_of(services: Services, sold: Hardware) -> ProviderTerms:
    """The machine's terms: who we are, what we sell, at which least prices. Kinds whose packages are missing are left
    out, so that nobody is sent away late."""
    can_do = services.machine.can_do
    prices = {kind: price for kind, price in services.config.provider.prices.items() if can_do(kind)}
    me, credit_ucr = services.identity, parse_money(services.config.provider.credit)
    return ProviderTerms(
        me.account, me.node, services.bank_account, capacity_of(sold), sold.numerics, prices,
        ProviderPolicy(credit_ucr=credit_ucr, debt_ucr=credit_ucr), exact=sold.exact == EXACT,
    )  # fmt: skip


class Herald:
    """Publishes offers. `state` is the machine's and is only read."""

    def __init__(self, services: Services, state: ProviderState, sold: Hardware) -> None:
        self._s, self._state, self._sold = services, state, sold
        self._certificate = services.identity.certificate(services.clock.now_ms())
        self._speeds: dict[str, int] = {}

    async def publish_regularly(self) -> None:
        """Until cancelled: tell every directory what is free. A directory that is gone misses nothing for long."""
        self._speeds = await asyncio.to_thread(self._s.machine.speeds, self._s.home, threads_of(self._s))
        while True:
            await publish(self._s.rpc, self._s.directories, sign_offer(self.offer(), self._s.identity.node_secret))
            await self._s.clock.sleep(OFFER_EVERY_S)

    def offer(self) -> Offer:
        """What is free now; nothing, truthfully, while the owner is at work."""
        free = free_now(self._state)
        offered = msgspec.structs.replace(
            self._sold,
            cpu_millis=free.cpu_millis,
            ram_bytes=free.ram_bytes,
            disk_bytes=free.disk_bytes,
            gpus=free.cards,
        )
        rates = tuple(
            Rate(kind, price_ucr(self._state, kind), self._speeds.get(kind, 1)) for kind in self._state.terms.rates
        )
        return Offer(
            account=self._s.identity.account, address=self._s.rpc.address(), certificate=self._certificate,
            hardware=offered, rates=rates, bank=self._s.bank_account, stake_ucr=free_stake_ucr(self._state),
            region=self._s.config.region, issued_ms=self._s.clock.now_ms(), ttl_s=OFFER_TTL_S,
        )  # fmt: skip


class OwnerWatch:
    """Tells the machine when its owner comes and goes."""

    def __init__(self, services: Services, workers: Callable[[], set[int]]) -> None:
        self._s, self._workers = services, workers
        try:
            self.rule = parse(services.config.provider.idle)
        except ValueError as error:
            raise fail("E1001", f"[provider] idle: {error}.") from error

    async def watch(self, tell: Callable[[ProviderEvent], Awaitable[object]]) -> None:
        """Until cancelled. A machine that was merely not quiet for long enough yet is not taken from whoever holds a
        lease of before a restart; it only takes nothing new."""
        if self.rule.always:
            return
        state, told = IdleState(), ""
        while True:
            reading = await asyncio.to_thread(self._s.machine.reading, self._workers())
            state = decide(self.rule, state, reading, self._s.clock.monotonic_s())
            reason = self._reason(state, reading)
            if reason != told:
                log.info("owner's rule", idle=state.idle, reason=reason)
                now_ms = self._s.clock.now_ms()
                if bool(reason) != bool(told):
                    await tell(OwnerReturned(now_ms, reason) if reason else OwnerLeft(now_ms))
                told = reason
            await self._s.clock.sleep(LOOK_EVERY_S)

    def _reason(self, state: IdleState, reading: Reading) -> str:
        busy = busy_because(self.rule, reading, state.idle)
        return "" if state.idle else busy or state.reason
