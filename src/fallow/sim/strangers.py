"""Those who attack a simulated pool from outside, or as members who work for nobody: they have machines and keys of
their own, know every address, and speak whatever they like to whoever listens. How providers cheat is in `cheats.py`;
who does what in a world is in `gallery.py`.

A stranger looks for itself whether it got what it wanted, and tells the referee: nobody else knows what that was."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from fallow.adapters.keys import Identity
from fallow.errors import FallowError
from fallow.node.held import PEER_BYTES
from fallow.node.rpc import Rpc
from fallow.rules.escrow import EscrowRow
from fallow.sim.chain import digest
from fallow.sim.host import Host
from fallow.sim.plan import Plan
from fallow.sim.referee import Referee
from fallow.sim.transport import SimTransport
from fallow.sim.weather import Weather
from fallow.units import GIB, MIB, Account
from fallow.wire.certificates import sign_offer
from fallow.wire.documents import Order, Voucher
from fallow.wire.frames import FrameKind
from fallow.wire.ledger import (
    BalanceOf,
    CloseEscrow,
    Deposit,
    GetBalance,
    Grant,
    LedgerDone,
    OpenAccount,
    Redeem,
    Transfer,
)
from fallow.wire.local import CancelJob, ListJobs
from fallow.wire.messages import (
    AssignTask,
    CloseLease,
    Hardware,
    LeaseEvent,
    Message,
    NodeAddress,
    Offer,
    OffersFound,
    Ok,
    PayVoucher,
    PublishOffer,
    Quoted,
    Rate,
    RequestQuote,
    SearchOffers,
    WatchLease,
)

EVERY_S = 4.0
PATIENCE_S = 3.0
HALF_BYTES = 7 * MIB
CALLS = 5
"""As many half-sent calls as are more than one peer may hold."""


class Pool(Protocol):
    """The town that is attacked (`town.py`)."""

    hosts: dict[str, Host]
    bank: Host
    steward: Host
    providers: list[Host]
    listed: list[Host]
    network: Weather
    referee: Referee
    plan: Plan
    seed: int
    bank_account: Account

    def escrows(self) -> list[EscrowRow]: ...

    async def admit(self, me: Identity, grant_ucr: int) -> None: ...


class Stranger:
    """One key, one machine, and one thing that it does again and again."""

    def __init__(self, town: Pool, name: str, attack: Attack) -> None:
        self.town, self.name, self._attack = town, name, attack
        self.identity = Identity.from_secrets(digest("node", name), digest("account", name))
        self.rng = random.Random(f"{town.seed} {name}")
        self.rounds, self.brought_ucr = 0, 0
        self.rpc: Rpc
        self.transport: SimTransport

    async def live(self) -> None:
        """Attack until the world ends."""
        self.transport = self.town.network.listen(self.identity.node, self.name)
        async with Rpc(self.transport) as self.rpc:
            while True:
                with suppress(FallowError, TimeoutError):
                    await self._attack(self)
                self.rounds += 1
                await asyncio.sleep(EVERY_S)

    def another(self, number: int) -> Identity:
        """One more key: they cost nothing."""
        return Identity.from_secrets(digest("node", self.name, number), digest("account", self.name, number))

    def victim(self, *roles: str) -> Host:
        """Some machine with one of these roles, or any."""
        hosts = [host for host in self.town.hosts.values() if not roles or host.names & set(roles)]
        return self.rng.choice(hosts)

    async def say(self, host: Host, request: Message) -> Message | None:
        """The answer, or None for whatever is none."""
        with suppress(FallowError):
            return await self.rpc.call(address(host), request, PATIENCE_S)
        return None

    def won(self, what: str) -> None:
        """The attack worked."""
        self.town.referee.wrong(f"{self.name} {what}")


Attack = Callable[[Stranger], Awaitable[None]]


def address(host: Host) -> NodeAddress:
    """Where it listens."""
    return NodeAddress(host.identity.node, (host.name,))


# floods ---------------------------------------------------------------------------------------------------------------


async def half_calls(me: Stranger) -> None:
    """Most of a large message, several times over, and no more."""
    if me.rounds > 2:
        return
    host = me.victim()
    connection = await me.transport.connect(address(host), PATIENCE_S)
    for _ in range(CALLS):
        stream = await connection.open()
        await stream.send(struct.pack(">IB", HALF_BYTES + 1, FrameKind.CALL))
        for _ in range(HALF_BYTES // MIB):
            await stream.send(bytes(MIB))
    held = host.services.rpc.held.total_bytes
    if held > PEER_BYTES + MIB:  # the honest say little
        me.won(f"made {host.name} hold {held} bytes")


async def silence(me: Stranger) -> None:
    """Connections and streams on which nothing is ever said."""
    connection = await me.transport.connect(address(me.victim()), PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(40):
            await connection.open()


async def nonsense(me: Stranger) -> None:
    """Bytes that are no message, and beginnings of what might be one."""
    connection = await me.transport.connect(address(me.victim()), PATIENCE_S)
    for kind in (*FrameKind, 77):
        stream = await connection.open()
        body = me.rng.randbytes(me.rng.choice((0, 1, 40, 3_000)))
        await stream.send(struct.pack(">IB", len(body) + 1, kind) + body)
        await stream.finish()


async def empty_purse(me: Stranger) -> None:
    """As many requests as a member may think of, all of which the bank refuses and remembers."""
    await join(me, 1)
    requests = [Transfer(me.rng.randbytes(32), bytes(20), 1 << 50) for _ in range(60)]
    await asyncio.gather(*[me.say(me.town.bank, request) for request in requests])


# what others have -----------------------------------------------------------------------------------------------------


async def accounts(me: Stranger) -> None:
    """Accounts for which nobody sold a ticket, and what a bank tells or does for members only."""
    now_ms = me.victim().clock.now_ms()
    for token in ("", "fj_" + 32 * "0"):
        opened = await me.say(me.town.bank, OpenAccount(me.rng.randbytes(32), me.identity.certificate(now_ms), token))
        if isinstance(opened, LedgerDone):
            me.won("opened an account without a ticket")
    for request in (Deposit(me.rng.randbytes(32), 1), Grant(me.rng.randbytes(32), me.identity.account, 1_000_000)):
        if isinstance(await me.say(me.town.bank, request), LedgerDone):
            me.won(f"was given a {type(request).__name__}")


async def mint(me: Stranger) -> None:
    """A member grants itself money, and sends what it does not have."""
    await join(me, 1_000)
    other = me.another(1).account
    for request in (
        Grant(me.rng.randbytes(32), me.identity.account, 1_000_000), Transfer(me.rng.randbytes(32), other, 1_001),
        Transfer(me.rng.randbytes(32), me.identity.account, (1 << 64) - 1), Deposit(me.rng.randbytes(32), 1 << 60),
    ):  # fmt: skip
        if isinstance(await me.say(me.town.bank, request), LedgerDone):
            me.won(f"did a {type(request).__name__} with money that is not there")
    found = await me.say(me.town.bank, GetBalance(me.identity.account))
    if isinstance(found, BalanceOf) and found.available_ucr + found.staked_ucr > 1_000:
        me.won(f"has {found.available_ucr} ucr")


async def escrows(me: Stranger) -> None:
    """Other people's escrows: vouchers that it signs itself, and the closing of what it did not open."""
    await join(me, 1)
    for row in me.town.escrows()[-3:]:
        forged = me.identity.sign(Voucher(row.lease, row.cap_ucr), me.town.bank_account)
        for request in (Redeem(forged), CloseEscrow(row.lease)):
            if isinstance(await me.say(me.town.bank, request), LedgerDone) and not row.closed_ms:
                me.won("was obeyed over an escrow of others")


async def leases(me: Stranger) -> None:
    """Other people's leases: work ordered under them, their ends, their events and their pay."""
    for row in me.town.escrows()[-3:]:
        host = next((one for one in me.town.providers if one.identity.account == row.provider), None)
        spec = next(iter(me.town.referee.specs.values()), None)
        if host is None or spec is None:
            continue
        forged = me.identity.sign(Voucher(row.lease, row.cap_ucr), me.town.bank_account)
        for request in (AssignTask(row.lease, spec, ()), PayVoucher(forged), CloseLease(row.lease)):
            if isinstance(await me.say(host, request), Ok) and host.ways.honest:
                me.won(f"was obeyed by {host.name} when it said {type(request).__name__}")
        async with asyncio.timeout(PATIENCE_S):
            async with me.rpc.open(address(host), WatchLease(row.lease, 0)) as events:
                async for event in events:
                    if isinstance(event, LeaseEvent):
                        me.won("was told what happens under a lease of others")


async def orders(me: Stranger) -> None:
    """What only its owner may ask of a node."""
    for job in [digest("job", plan.name) for plan in me.town.plan.jobs]:
        for request in (CancelJob(job), ListJobs()):
            if await me.say(me.town.steward, request) is not None:
                me.won(f"was answered a {type(request).__name__}")


# the market -----------------------------------------------------------------------------------------------------------


def invented(me: Stranger, who: Identity, where: NodeAddress, now_ms: int) -> Offer:
    """An offer of a machine that does not exist, for almost nothing and with all the stake there is."""
    hardware = Hardware("invented", 64_000, 512 * GIB, 1 << 45, (), "x86")
    rates = tuple(Rate(kind, 1, 1_000_000) for kind in ("echo", "train"))
    return Offer(
        who.account, where, who.certificate(now_ms), hardware, rates, me.town.bank_account, 1 << 60, "", now_ms, 600
    )


async def offers(me: Stranger) -> None:
    """Offers of machines that do not exist, and one in the name of a provider that does."""
    now_ms, real = me.victim("directory").clock.now_ms(), me.victim("provider").identity
    for number in range(6):
        who = me.another(me.rounds * 6 + number)
        rpc_address = NodeAddress(who.node, (f"{me.name} {number}",))
        async with Rpc(me.town.network.listen(who.node, f"{me.name} {number}")) as rpc:
            for host in me.town.listed:
                signed = sign_offer(invented(me, who, rpc_address, now_ms), who.node_secret)
                with suppress(FallowError):
                    await rpc.call(address(host), PublishOffer(signed), PATIENCE_S)
    theirs = invented(me, real, NodeAddress(real.node, (me.name,)), now_ms)
    for host in me.town.listed:
        await me.say(host, PublishOffer(sign_offer(theirs, me.identity.node_secret)))
        found = await me.say(host, SearchOffers("echo", limit=1, bank=me.town.bank_account))
        _first_is_honest(me, found)


def _first_is_honest(me: Stranger, found: Message | None) -> None:
    """Whoever has stake comes first, once the directory knows of anybody who has."""
    if isinstance(found, OffersFound) and found.offers and me.rounds > 2:
        first = found.offers[0].body
        if b"invented" in first:
            me.won("has the first place in a directory")


async def quotes(me: Stranger) -> None:
    """Orders for all that a machine has, by keys without money."""
    host = me.victim("provider")
    now_ms = host.clock.now_ms()
    for number in range(4):
        who = me.another(number)
        order = Order(
            who.account, me.identity.node, digest("job", me.name), "echo", "", 4_000, 64 * GIB, 1 << 39, 0, 0,
            1_000_000, 1 << 30, 0, "none", now_ms + 600_000, me.town.bank_account, me.rng.randbytes(32),
        )  # fmt: skip
        certificate = Identity(me.identity.node, who.account, me.identity.node_secret, who.account_secret).certificate(
            now_ms
        )
        request = RequestQuote(who.sign(order, me.town.bank_account), certificate, me.rpc.address())
        if isinstance(await me.say(host, request), Quoted) and host.ways.honest:
            me.won(f"had {host.name} keep itself free for nothing")


async def join(me: Stranger, grant_ucr: int) -> None:
    """Once: an account, as somebody with a ticket opens one."""
    if not me.rounds:
        me.brought_ucr = grant_ucr
        await me.town.admit(me.identity, grant_ucr)


STRANGERS: dict[str, Attack] = {
    "half-calls": half_calls, "silence": silence, "nonsense": nonsense, "empty-purse": empty_purse,
    "accounts": accounts, "mint": mint, "escrows": escrows, "leases": leases, "orders": orders, "offers": offers,
    "quotes": quotes,
}  # fmt: skip
"""By name."""
