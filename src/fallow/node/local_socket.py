"""The owner's door to a node: a Unix socket in the home folder, answering the same frames as the network does.

Whoever can open the socket is the owner, so the folder is 0700 and the socket 0600. A lock file tells a running node
from a socket that a killed one left behind: the kernel lets go of the lock with the process.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path

import structlog

from fallow.errors import fail
from fallow.node.router import OWNER, Caller, Limits, Router, answer, refuse
from fallow.sdk.home import socket_path
from fallow.sdk.link import SocketStream, reachable

log = structlog.get_logger()

LOCK_NAME = "node.lock"
MAX_CALLS = 1024
BACKLOG = 256
CLOSE_S = 2.0
"""How long a caller that does not read its answer may keep a finished call's socket."""
FULL_PAUSE_S = 0.5
"""How long nobody is let in after this process ran out of file descriptors."""
_READ_AHEAD_BYTES = 1 << 19


@asynccontextmanager
async def local_socket(
    home: Path, router: Router, limits: Limits | None = None, *, locked: bool = False
) -> AsyncGenerator[Path]:
    """Answer the owner's calls while the block runs; yields the socket's path. On leaving, open calls are cancelled and
    every connection is closed, at the latest after `CLOSE_S`, whatever the callers do. `locked` says that the caller
    holds `lock_home`; otherwise it is taken here. Raises as that does."""
    path = socket_path(home)
    with ExitStack() if locked else lock_home(home):
        listener = await _bind(path)
        async with AsyncExitStack() as life:
            life.callback(listener.close)
            group = await life.enter_async_context(asyncio.TaskGroup())
            door = _Door(router, limits or Limits(), group, listener)
            door.open()
            keep = life.pop_all()  # errors of the block are the block's own, not the group's
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
            door.close()
            await keep.aclose()


class _Door:
    """Starts a task for everybody who comes in, and owns their sockets from the first moment. (asyncio's own servers
    accept in tasks that nobody can wait for: who comes as they close is never let in and never let go.)"""

    def __init__(self, router: Router, limits: Limits, group: asyncio.TaskGroup, listener: socket.socket) -> None:
        self._router, self._limits, self._group, self._listener = router, limits, group, listener
        self._loop = asyncio.get_running_loop()
        self._calls: dict[asyncio.Task[None], socket.socket] = {}
        self._pause: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Let people in."""
        self._pause = None
        self._listener.listen(BACKLOG)
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(BACKLOG):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # too many open files: the listener stays readable, so look away for a while
                log.warning("local socket cannot accept", what=error.strerror)
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(FULL_PAUSE_S, self.open)
                return
            connection.setblocking(False)
            task = self._group.create_task(self._serve(connection))
            self._calls[task] = connection
            task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._calls.pop(task).close()  # open still when the task was cancelled before its first step

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection, limit=_READ_AHEAD_BYTES)
        stream = SocketStream(reader, writer)
        try:
            if len(self._calls) > MAX_CALLS:
                await refuse(stream)
            else:
                await answer(self._router, Caller(OWNER), stream, self._limits)
        finally:
            await _let_go(stream)

    def close(self) -> None:
        """Let nobody in any more, and end the calls."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        for task in self._calls:
            task.cancel()


async def _let_go(stream: SocketStream) -> None:
    """Close, but do not wait for ever for a caller that does not read."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await stream.close()
    except TimeoutError:
        pass
    finally:
        stream.abort()


def lock_home(home: Path) -> ExitStack:
    """Make the folder ours alone and hold its lock until the stack closes: two processes that write one log would ruin
    it. Raises UsageError E1807 when another node runs on this home, E1004 when the folder cannot be used."""
    with ExitStack() as stack:
        try:
            home.mkdir(parents=True, exist_ok=True)
            home.chmod(0o700)
            lock = os.open(home / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise fail("E1004", f"{home} cannot be used: {error.strerror}.") from None
        stack.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
            raise fail("E1807", f"A node runs in {home} already (process {who or 'unknown'}).") from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return stack.pop_all()


async def _bind(path: Path) -> socket.socket:
    """A bound socket, not yet listening, so that nobody connects before its mode is right."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            path.unlink()  # left by a node that was killed: we hold the lock
        async with reachable(path) as name:
            listener.bind(name)
        path.chmod(0o600)
    except OSError as error:
        listener.close()
        raise fail("E1004", f"{path} cannot be made: {error.strerror}.") from None
    listener.setblocking(False)
    return listener
