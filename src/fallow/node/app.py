"""One node: its identity, its doors, and the roles it plays, wired together and run until it is told to stop."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

import structlog

from fallow.adapters.blobs_disk import DiskBlobs
from fallow.adapters.clock import SystemClock, SystemEntropy
from fallow.adapters.event_log import SqliteEventLog
from fallow.adapters.iroh_transport import IrohTransport
from fallow.adapters.keys import open_identity
from fallow.adapters.machine import ThisMachine
from fallow.adapters.runners.process import ProcessRunner
from fallow.errors import FallowError, first_of
from fallow.node.bank import BankPolicy, open_books
from fallow.node.blobs import Fetcher
from fallow.node.config import (
    Config,
    Ticket,
    load_config,
    load_ticket,
    prepare_home,
    remember_port,
    remembered_port,
    save_ticket,
)
from fallow.node.local_socket import local_socket, lock_home
from fallow.node.neighbours import announce, beyond_loopback
from fallow.node.pool import Pool
from fallow.node.roles import Roles, take_up
from fallow.node.router import Router
from fallow.node.rpc import Rpc
from fallow.node.services import Services
from fallow.ports import Ledger, Runner
from fallow.rules.steward.events import Timing
from fallow.sdk.home import socket_path
from fallow.units import NodeId, plain, to_text
from fallow.wire.codec import encode
from fallow.wire.messages import NodeAddress

log = structlog.get_logger()


@dataclass(frozen=True)
class Options:
    """How a node is started. `ticket` joins a pool (otherwise the one remembered in the home, or a new one when the
    node is a bank); `directories` are put into the ticket of a new pool; `beside` runs along with the node and gets the
    path of its local socket (a gateway, which is a room above this one); `ready` is called once with the ticket
    that others join with ("" without a pool), the node's address, account and node id; `runner` opens what a provider's
    workers run in, which is told whether they are to be `boxed`; `settings` take the place of those in the home's
    configuration."""

    roles: frozenset[str]
    ticket: Ticket | None = None
    directories: tuple[NodeAddress, ...] = ()
    bind: str = ""
    beside: Callable[[Path], Coroutine[None, None, None]] | None = None
    timing: Timing = field(default_factory=Timing)
    runner: Callable[..., Runner] = ProcessRunner
    ready: Callable[[dict[str, str]], None] = lambda _about: None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


class _Stderr(io.TextIOBase):
    """Standard error as it is at the moment of writing, for text that may come from strangers. One that is closed, or a
    terminal that went away, costs a log line and never a node."""

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError, ValueError):
            sys.stderr.write(plain(text))
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()


def quiet_logs(level: str) -> None:
    """Log to standard error, one line an event; libraries only from warnings on."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    logging.basicConfig(stream=cast(TextIO, _Stderr()), level=max(number, logging.WARNING), format="%(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stderr())),
    )


async def run_node(home: Path, options: Options) -> None:
    """Run until SIGINT or SIGTERM. Raises FallowError for a home, configuration or port that cannot be used."""
    prepare_home(home)
    config = load_config(home, options.settings)
    async with AsyncExitStack() as stack:
        stack.enter_context(lock_home(home))
        remote = Router()
        services = await _open(stack, home, config, options, remote)
        await until_told_to_stop(_work(services, options, remote))


async def until_told_to_stop(work: Coroutine[None, None, None]) -> None:
    """Run `work` until it ends or SIGINT or SIGTERM comes. Raises the first FallowError of many as it is."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    failure: FallowError | None = None
    try:
        async with asyncio.TaskGroup() as group:
            stopper = group.create_task(stop.wait(), name="stop signal")
            task = group.create_task(work, name="node")
            task.add_done_callback(lambda _: stop.set())
            await stopper
            task.cancel()
    except* FallowError as errors:
        failure = first_of(errors)
    if failure is not None:  # some versions of Python wrap what is raised in `except*`
        raise failure


async def _open(stack: AsyncExitStack, home: Path, config: Config, options: Options, remote: Router) -> Services:
    """The doors to the world, closed again in reverse order."""
    clock, entropy = SystemClock(), SystemEntropy()
    identity = open_identity(home / "keys", entropy)
    transport = await _bind(identity.node_secret, home, options.bind or config.bind, config.relay)
    stack.push_async_callback(transport.close)
    rpc = await stack.enter_async_context(Rpc(transport, remote))
    events = SqliteEventLog(home / "log.db")
    stack.callback(events.close)
    blobs = DiskBlobs(home / "blobs", config.quota_bytes)
    stack.callback(blobs.close)
    ticket = options.ticket or load_ticket(home)
    if options.ticket is not None:
        save_ticket(home, options.ticket)
    return Services(
        home, config, identity, clock, entropy, transport, rpc, events, blobs, Fetcher(rpc, blobs, _bad_source),
        options.runner(boxed=not config.provider.unboxed), ThisMachine(clock), ticket,
        list(options.directories or (ticket.directories if ticket is not None else ())),
    )  # fmt: skip


def _bad_source(source: NodeId, error: FallowError) -> None:
    """A node that sent something else than it was asked for. It was dropped from the download; who reads the log may
    want to know."""
    log.warning("bad blob source", node=source.hex()[:12], code=error.code, what=error.what)


async def _bind(seed: bytes, home: Path, bind: str, relay: str) -> IrohTransport:
    """On the port of last time when the owner named none, so that addresses that others hold stay good."""
    host, _, port = bind.rpartition(":")
    if port == "0" and (last := remembered_port(home)):
        try:
            return await IrohTransport.bind(seed, f"{host}:{last}", relay)
        except FallowError as error:
            if error.code != "E1804":
                raise
    transport = await IrohTransport.bind(seed, bind, relay)
    direct = transport.address().direct
    if direct:
        remember_port(home, int(direct[0].rpartition(":")[2]))
    return transport


async def _work(services: Services, options: Options, remote: Router) -> None:
    with ExitStack() as stack:

        def books(policy: BankPolicy) -> Ledger:
            where = services.config.ledger or services.home / "ledger.db"
            opened = open_books(where, services.identity, services.entropy, policy)
            stack.callback(opened.close)
            return opened

        roles = Roles(options.roles, options.timing, remote, Router())
        await _play(services, options, roles, Pool(services, options.directories, books))


async def _play(services: Services, options: Options, roles: Roles, pool: Pool) -> None:
    async with asyncio.TaskGroup() as group:
        await take_up(roles, services, pool, group)
        here = services.rpc.address()
        if services.ticket is not None and services.config.mdns and beyond_loopback(here):
            group.create_task(announce(here, roles.names, services.bank_account), name="mdns")
        if options.beside is not None:
            group.create_task(options.beside(socket_path(services.home)), name="beside")
        async with local_socket(services.home, roles.owner, locked=True):
            options.ready(_announcement(services, roles.ticket))
            log.info("node ready", roles=",".join(sorted(roles.names)), node=services.identity.node.hex()[:12])
            await asyncio.Event().wait()


def _announcement(services: Services, ticket: str) -> dict[str, str]:
    """What whoever started the node wants to know once it is up."""
    address = base64.b32encode(encode(services.rpc.address())).decode().rstrip("=").lower()
    account = to_text("account", services.identity.account)
    return {"ticket": ticket, "address": address, "account": account, "node": services.identity.node.hex()}
