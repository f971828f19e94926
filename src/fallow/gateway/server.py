"""Running the HTTP door: uvicorn on an address of the owner's choice, in front of the steward's local socket."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvicorn

from fallow.adapters.clock import SystemClock, SystemEntropy
from fallow.errors import fail
from fallow.gateway.app import create_app
from fallow.sdk.link import NodeSocket

GRACE_S = 1
BACKLOG = 256


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


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own, and stops us by cancelling."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def run_gateway(steward_socket: Path, listener: socket.socket) -> None:
    """Serve until cancelled; then answers in flight get a second to end."""
    config = uvicorn.Config(
        create_app(NodeSocket(steward_socket), SystemClock(), SystemEntropy()),
        log_level="warning", access_log=False, lifespan="on",
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
