"""Running the HTTP door: uvicorn on an address of the owner's choice, in front of the steward's local socket.

Defends against: connections that say nothing, or half of a request, or come without end (uvicorn alone keeps all of
them for ever, and takes the process's last file descriptor with them); when the door is full, whoever has been silent
for longest makes room. Does not defend against: as many addresses asking real questions.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter, OrderedDict
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from fallow.adapters.clock import SystemClock, SystemEntropy
from fallow.errors import fail
from fallow.gateway.app import create_app
from fallow.sdk.link import NodeSocket

GRACE_S = 1
BACKLOG = 256
HEADERS_S = 10.0
"""How long a client may take from connecting, or from an answer, to the end of its next request's headers."""
MAX_CONNECTIONS, MAX_FROM_ADDRESS = 1024, 256
FILES_PART = 4
"""Of the file descriptors that this process may have: the others are for the node."""


def claim_port(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UnavailableError E1804 when the port is taken, UsageError E2001 for a host that is not
    this machine's."""
    with ExitStack() as cleanup:
        listener = _bound(host, port, cleanup)
        cleanup.pop_all()
    return listener


def _bound(host: str, port: int, cleanup: ExitStack) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # asyncio switches Nagle's algorithm off only for sockets that say that they are TCP; it costs 40 ms an answer
        listener = cleanup.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise fail("E1804", f"Port {port} on {host} is taken.") from error
        raise fail("E2001", f"Cannot listen on {host}:{port}: {error.strerror}.") from error
    return listener


class _Visitors:
    """Everybody at one door."""

    def __init__(self) -> None:
        files = getrlimit(RLIMIT_NOFILE)[0]
        self.most = MAX_CONNECTIONS if files == RLIM_INFINITY else min(MAX_CONNECTIONS, files // FILES_PART)
        self.silent: OrderedDict[_Visitor, asyncio.TimerHandle] = OrderedDict()
        self._of: Counter[str] = Counter()

    def admit(self, visitor: _Visitor) -> bool:
        """Let somebody in, at the cost of whoever was silent for longest where it is full."""
        if self._of[visitor.origin] >= MAX_FROM_ADDRESS:
            return False
        if self._of.total() >= self.most:
            if not self.silent:
                return False
            self.turn_out(next(iter(self.silent)))
        self._of[visitor.origin] += 1
        self.wait(visitor)
        return True

    def wait(self, visitor: _Visitor) -> None:
        """A request is due."""
        self.heard(visitor)
        self.silent[visitor] = asyncio.get_running_loop().call_later(HEADERS_S, self.turn_out, visitor)

    def heard(self, visitor: _Visitor) -> None:
        """Its headers are here."""
        if (timer := self.silent.pop(visitor, None)) is not None:
            timer.cancel()

    def turn_out(self, visitor: _Visitor) -> None:
        """Close a connection now."""
        self.heard(visitor)
        visitor.transport.abort()

    def gone(self, visitor: _Visitor) -> None:
        """It has closed."""
        self.heard(visitor)
        self._of[visitor.origin] -= 1
        if not self._of[visitor.origin]:
            del self._of[visitor.origin]


class _Visitor(H11Protocol):
    """One connection. Pipelined requests wait for their turn unread, so h11's own bound holds for all that is read."""

    visitors: _Visitors
    origin = ""
    _admitted = False

    def connection_made(self, transport: Any) -> None:
        self.origin = str((transport.get_extra_info("peername") or ("",))[0])
        super().connection_made(transport)
        self._admitted = self.visitors.admit(self)
        if not self._admitted:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._admitted:
            self.visitors.gone(self)
        super().connection_lost(exc)

    def _should_upgrade_to_ws(self) -> bool:
        return False  # nothing here speaks it, and what does would count no connections

    def handle_events(self) -> None:
        super().handle_events()
        cycle: Any = self.cycle  # None before the first request
        if self._admitted and cycle is not None and not cycle.response_complete:
            self.visitors.heard(self)

    def on_response_complete(self) -> None:
        if self._admitted and not self.transport.is_closing():
            self.visitors.wait(self)
        super().on_response_complete()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own, and stops us by cancelling."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def run_gateway(steward_socket: Path, listener: socket.socket, origins: Sequence[str] = ()) -> None:
    """Serve until cancelled; then answers in flight get a second to end. `origins`: see `create_app`."""
    door = type("Door", (_Visitor,), {"visitors": _Visitors()})
    config = uvicorn.Config(
        create_app(NodeSocket(steward_socket), SystemClock(), SystemEntropy(), origins),
        log_level="warning", access_log=False, lifespan="on", http=door,
        timeout_graceful_shutdown=GRACE_S, server_header=False, proxy_headers=False,
    )  # fmt: skip
    server = _Server(config)
    # not in a TaskGroup, which would cancel it: uvicorn must end by itself to end its connections
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))  # noqa: TID251
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise
    finally:
        listener.close()
        await _let_go(server)


async def _let_go(server: _Server) -> None:
    """Close what uvicorn waits for in vain: clients that do not read, and those who came in its last moment."""
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    await asyncio.sleep(0)  # which takes them a turn of the loop
