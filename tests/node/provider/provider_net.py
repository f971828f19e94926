"""A bank, a provider and a requester on a network in memory, with real books, logs, blobs and worker processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fallow.adapters.blobs_disk import DiskBlobs
from fallow.adapters.clock import SystemClock, SystemEntropy
from fallow.adapters.event_log import SqliteEventLog
from fallow.adapters.keys import Identity
from fallow.adapters.machine import ThisMachine
from fallow.adapters.runners.process import ProcessRunner
from fallow.node.bank import Bank, BankPolicy, open_books
from fallow.node.blobs import Fetcher, serve_blobs
from fallow.node.config import Config, ProviderConfig, Ticket, save_ticket
from fallow.node.directory import Directory
from fallow.node.provider.calls import serve_provider
from fallow.node.provider.role import Provider
from fallow.node.router import Router
from fallow.node.rpc import Rpc
from fallow.node.services import Services
from fallow.ports import Patience, Transport
from fallow.sim.transport import SimNetwork
from fallow.units import GIB, UCR_PER_CR
from fallow.wire.claims import task_id
from fallow.wire.documents import Lease, Order, Signed, Voucher
from fallow.wire.eip712 import hash_document, open_signed
from fallow.wire.ledger import Grant, LedgerDone, OpenEscrow
from fallow.wire.messages import (
    AssignTask,
    Claimed,
    LeaseEvent,
    LeaseSigned,
    Message,
    OpenLane,
    PayVoucher,
    Quoted,
    RequestQuote,
    SignLease,
    WatchLease,
)
from fallow.wire.tasks import TaskSpec

CONFIG = Config(provider=ProviderConfig(cpus=2, ram="2G", disk="1G", stake="10"))


def seeded(name: str) -> Identity:
    return Identity.from_secrets(name.encode().ljust(32, b"."), name.encode().rjust(32, b"."))


def spec(params: bytes = b"hello", kind: str = "echo", units: int = 1, timeout_s: int = 30) -> TaskSpec:
    return TaskSpec(kind, params, (), seed=0, units=units, timeout_s=timeout_s, ram_bytes=0)


@dataclass
class Pool:
    """The network, its bank, and whoever joined."""

    network: SimNetwork
    folder: Path
    stack: AsyncExitStack
    tasks: asyncio.TaskGroup
    ticket: Ticket
    clock: SystemClock = field(default_factory=SystemClock)
    running: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    bank: Bank = field(init=False)

    async def grant(self, account: bytes, amount_ucr: int) -> None:
        """Money that may be sent, unlike what the ticket gives."""
        operator = self.ticket.bank_account
        request = Grant(SystemEntropy().draw(32), account, amount_ucr)
        assert isinstance(await self.bank._ledger.apply(request, operator, self.clock.now_ms()), LedgerDone)

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self.tasks.create_task(work)
        self.running.append(task)
        return task

    async def services(self, name: str, router: Router, config: Config = CONFIG) -> Services:
        """A node of that name, with an account; its log and home stay over restarts."""
        identity, home = seeded(name), self.folder / name
        home.mkdir(exist_ok=True)
        save_ticket(home, self.ticket)
        transport: Transport = self.network.listen(identity.node)
        rpc = await self.stack.enter_async_context(Rpc(transport, router))
        log = SqliteEventLog(home / "log.db")
        self.stack.callback(log.close)
        blobs = DiskBlobs(home / "blobs", GIB)
        self.stack.callback(blobs.close)
        serve_blobs(router, blobs)
        assert rpc.server is not None
        self.spawn(rpc.server.run(transport, rpc))
        services = Services(
            home, config, identity, self.clock, SystemEntropy(), transport, rpc, log, blobs, Fetcher(rpc, blobs),
            ProcessRunner(), ThisMachine(self.clock), self.ticket, list(self.ticket.directories),
        )  # fmt: skip
        bank = services.settlement(Patience())
        await bank.open_account(identity.certificate(self.clock.now_ms()), self.ticket.token)
        return services


@asynccontextmanager
async def open_pool(folder: Path, clock: Any = None) -> AsyncGenerator[Pool]:
    network, identity, clock, router = SimNetwork(), seeded("bank"), clock or SystemClock(), Router()
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        books = open_books(folder / "ledger.db", identity, SystemEntropy(), BankPolicy(welcome_ucr=100 * UCR_PER_CR))
        stack.callback(books.close)
        bank = Bank(books, identity, clock)
        bank.register(router)
        Directory(clock).register(router)
        transport = network.listen(identity.node)
        rpc = await stack.enter_async_context(Rpc(transport, router))
        assert rpc.server is not None
        here = transport.address()
        ticket = Ticket(here, identity.account, (here,), await bank.new_token())
        pool = Pool(network, folder, stack, tasks, ticket, clock)
        pool.bank = bank
        pool.spawn(rpc.server.run(transport, rpc))
        try:
            yield pool
        finally:
            for task in reversed(pool.running):
                task.cancel()
            await asyncio.wait(pool.running)


@dataclass
class Seller:
    """A provider that can be killed and started again."""

    pool: Pool
    name: str = "pat"
    config: Config = CONFIG
    provider: Provider = field(init=False)
    services: Services = field(init=False)
    task: asyncio.Task[None] = field(init=False)

    async def start(self) -> Seller:
        router = Router()
        self.services = await self.pool.services(self.name, router, self.config)
        self.provider = Provider(self.services)
        serve_provider(router, self.provider)
        self.task = self.pool.spawn(self.provider.run())
        await self.provider.ready.wait()
        async with asyncio.timeout(20):
            while not self.provider.state.stake_ucr:
                await self.provider.wait_change()
        return self

    async def kill(self) -> None:
        """As if the process had ended here: connections break and nothing more is written."""
        self.pool.network.crash(self.services.transport)  # type: ignore[arg-type]
        self.task.cancel()
        await asyncio.wait({self.task})
        await self.services.rpc.close()
        self.services.log.close()


@dataclass
class Buyer:
    """Anna, who orders, leases, pays and watches."""

    services: Services
    seller: Seller
    lease_doc: Lease = field(init=False)
    lease: bytes = field(init=False)

    async def ask(self, request: Message) -> Message:
        return await self.services.rpc.call(self.seller.services.rpc.address(), request, 15)

    def order(self, kind: str = "echo", **changes: Any) -> Order:
        me, now_ms = self.services.identity, self.services.clock.now_ms()
        fields: dict[str, Any] = {
            "requester": me.account, "node": me.node, "job": b"j" * 32, "kind": kind, "numerics": "",
            "cpu_millis": 1_000, "ram_bytes": GIB, "disk_bytes": 0, "gpus": 0, "gpu_ram_bytes": 0, "units": 10_000,
            "max_price_ucr": 5_000, "min_stake_ucr": 0, "verify": "none", "ends_ms": now_ms + 600_000,
            "bank": self.services.bank_account, "nonce": self.services.entropy.draw(32),
        }  # fmt: skip
        return Order(**(fields | changes))

    async def quote(self, order: Order) -> Message:
        me = self.services.identity
        signed = me.sign(order, self.services.bank_account)
        certificate = me.certificate(self.services.clock.now_ms())
        return await self.ask(RequestQuote(signed, certificate, self.services.rpc.address()))

    async def sign(self, kind: str = "echo", cap_ucr: int = 1_000_000) -> Signed:
        """-> the provider's signature over the lease."""
        order = self.order(kind)
        answer = await self.quote(order)
        assert isinstance(answer, Quoted), answer
        bank, seller = self.services.bank_account, self.seller.services.identity
        quote: Any = open_signed(answer.quote, _quote_type(), bank, seller.account)
        self.lease_doc = Lease(
            order=hash_document(order, bank), quote=hash_document(quote, bank), requester=order.requester,
            provider=quote.provider, requester_node=order.node, provider_node=quote.node, kind=kind,
            price_ucr=quote.price_ucr, cap_ucr=cap_ucr, stake_ucr=quote.stake_ucr,
            starts_ms=self.services.clock.now_ms(), ends_ms=order.ends_ms, bank=bank,
        )  # fmt: skip
        self.lease = hash_document(self.lease_doc, bank)
        self.ours = self.services.identity.sign(self.lease_doc, bank)
        answer = await self.ask(SignLease(self.ours))
        assert isinstance(answer, LeaseSigned), answer
        return answer.lease

    async def open(self, kind: str = "echo", cap_ucr: int = 1_000_000) -> bytes:
        """A lease with open escrow; -> its id."""
        theirs = await self.sign(kind, cap_ucr)
        now_ms = self.services.clock.now_ms()
        bank = self.services.settlement(Patience())
        seller = self.seller.services.identity
        request = OpenEscrow(
            self.ours, theirs, self.services.identity.certificate(now_ms), seller.certificate(now_ms)
        )  # fmt: skip
        await bank.open(request)
        return self.lease

    async def assign(self, task: TaskSpec) -> bytes:
        await self.ask(AssignTask(self.lease, task, (self.services.rpc.address(),)))
        return task_id(task)

    async def pay(self, cumulative_ucr: int) -> None:
        voucher = Voucher(self.lease, cumulative_ucr)
        await self.ask(PayVoucher(self.services.identity.sign(voucher, self.services.bank_account)))

    async def events(self, after: int, until: Any) -> list[LeaseEvent]:
        """Durable events after a number, up to the first for which `until` holds."""
        found: list[LeaseEvent] = []
        address = self.seller.services.rpc.address()
        async with asyncio.timeout(30), self.services.rpc.open(address, WatchLease(self.lease, after)) as stream:
            async for event in stream:
                assert isinstance(event, LeaseEvent)
                if event.sequence:
                    found.append(event)
                    if until(event):
                        return found
        raise AssertionError("the stream ended")

    async def claimed(self, after: int = 0) -> Claimed:
        """The next claim of a task."""
        event = (await self.events(after, lambda event: isinstance(event.body, Claimed)))[-1]
        assert isinstance(event.body, Claimed)
        return event.body

    def lane(self, window: int = 1024) -> Any:
        return self.services.rpc.open(self.seller.services.rpc.address(), OpenLane(self.lease, window))


def _quote_type() -> Any:
    from fallow.wire.documents import Quote

    return Quote


@asynccontextmanager
async def market(folder: Path, config: Config = CONFIG) -> AsyncGenerator[Buyer]:
    """A provider that is ready, and a requester."""
    async with open_pool(folder) as pool:
        seller = await Seller(pool, config=config).start()
        yield Buyer(await pool.services("anna", Router()), seller)
