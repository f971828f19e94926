"""Worker processes: `python -m fallow.workloads.worker`, started in a process group of its own with a scrubbed
environment, watched, and stopped in under two seconds.

Defends against: workers that eat memory, hang, flood the log, ignore requests to stop, or outlive this process. Does
not defend against code that means to escape: typed workloads run our own code on foreign data, foreign code needs a
sandbox.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

import fallow
from fallow.adapters.runners import leash
from fallow.ports import OnLine, OnMessages, WorkerLimits
from fallow.units import GIB, MIB, format_size
from fallow.wire.worker import FromWorker, ToWorker, WorkerFrames, worker_frame

COMMAND = (sys.executable, "-m", "fallow.workloads.worker")
WATCH_EVERY_S = 0.25
STOP_GRACE_S = 0.7
MAX_LINE_BYTES = 2_000
READ_PAUSE_BYTES = 4 * MIB
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TZ")


def worker_environment(folder: Path, limits: WorkerLimits) -> dict[str, str]:
    """All that a worker learns from its environment: no secrets of the owner's, no way to a model hub, its threads and
    cards, and `folder` as its home and for temporary files."""
    threads = str(max(limits.threads, 1))
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    return kept | {
        "HOME": str(folder), "TMPDIR": str(folder), "XDG_CACHE_HOME": str(folder), "HF_HOME": str(folder),
        "PYTHONPATH": str(Path(fallow.__file__).resolve().parent.parent), "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads, "NUMEXPR_NUM_THREADS": threads, "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "CUDA_VISIBLE_DEVICES": ",".join(limits.cards) or "-1",
        # glibc: what a step frees stays for the next, which else has every page cleared by the kernel anew
        "MALLOC_MMAP_THRESHOLD_": str(32 * MIB), "MALLOC_TRIM_THRESHOLD_": str(256 * MIB),
        # with cards, drivers map far more memory than anybody holds
        "FALLOW_RAM_BYTES": str(0 if limits.cards else limits.ram_bytes),
    }  # fmt: skip


class ProcessWorker:
    """One running worker process. Its messages come as many at once as one read of the socket held."""

    def __init__(self, process: asyncio.subprocess.Process, link: _Link, limits: WorkerLimits) -> None:
        self._process, self._link, self._limits = process, link, limits
        self.ended = asyncio.Event()
        self.why, self.condemned = "", False

    @property
    def pid(self) -> int:
        """Also the number of its process group."""
        return self._process.pid

    def send(self, message: ToWorker) -> None:
        self._link.write(worker_frame(message))

    async def drain(self) -> None:
        await self._link.writable.wait()

    def pause_reading(self) -> None:
        self._link.pause(True)

    def resume_reading(self) -> None:
        self._link.pause(False)

    def kill(self, why: str) -> None:
        if not self.ended.is_set():
            self.why, self.condemned = self.why or why, self.condemned or not self.why
            _signal_group(self.pid, signal.SIGKILL)

    async def watch(self) -> None:
        """Until it ends: kill it when it holds more memory than it may."""
        while not self.ended.is_set():
            held = held_bytes(self.pid)
            if self._limits.ram_bytes and held > self._limits.ram_bytes:
                self.kill(f"out of memory: it held {format_size(held)} of {format_size(self._limits.ram_bytes)}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), WATCH_EVERY_S)

    async def wait(self) -> None:
        """Until the process is gone, whoever ended it."""
        code = await self._process.wait()
        self.why = self.why or (f"killed by signal {-code}" if code < 0 else f"exited with status {code}")
        _signal_group(self.pid, signal.SIGKILL)  # whatever it started goes with it
        self._link.close()
        self.ended.set()

    async def read_log(self, on_line: OnLine) -> None:
        """Until it ends: hand on what it prints, line by line."""
        assert self._process.stdout is not None
        while line := await _read_line(self._process.stdout):
            text = line[:MAX_LINE_BYTES].decode("utf-8", "replace").rstrip()
            on_line(text)

    async def stop(self) -> None:
        """Close its socket, which asks it to end, then insist."""
        self.why = self.why or "stopped"
        self._link.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_GRACE_S)
                return
            _signal_group(self.pid, number)
        await self._process.wait()


class ProcessRunner:
    """Starts workers as processes of this machine; `command` gets the number of a socket, as `--fd N`."""

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self._command = command

    @asynccontextmanager
    async def open(
        self, folder: Path, limits: WorkerLimits, on_messages: OnMessages, on_line: OnLine
    ) -> AsyncGenerator[ProcessWorker]:
        """While the worker runs, a note in the folder above says so, for `kill_orphans`."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                command = (*self._command, "--fd", str(theirs.fileno()))
                process = await _spawn(command, folder, limits, theirs.fileno())
        except BaseException:  # a cancelled start, too, must not leave the socket to the garbage collector
            ours.close()
            raise
        note = folder.parent / f"{process.pid}.worker"
        with suppress(psutil.Error, OSError):
            note.write_text(str(psutil.Process(process.pid).create_time()), "ascii")
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(lambda: _Link(on_messages), sock=ours)
        worker = ProcessWorker(process, link, limits)
        link.broken = worker.kill
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(worker.wait(), name="worker wait")
                group.create_task(worker.watch(), name="worker watch")
                group.create_task(worker.read_log(on_line), name="worker log")
                try:
                    yield worker
                finally:
                    await _finish(worker)
        finally:
            note.unlink(missing_ok=True)

    def kill_orphans(self, folder: Path) -> int:
        """A process counts as the worker of a note only if it was born when the note says, since process numbers are
        used again."""
        killed = 0
        for note in folder.glob("*.worker"):
            with suppress(psutil.Error, OSError, ValueError):
                pid, born = int(note.stem), float(note.read_text("ascii"))
                if psutil.Process(pid).create_time() == born:
                    _signal_group(pid, signal.SIGKILL)
                    killed += 1
            note.unlink(missing_ok=True)
        return killed


async def _finish(worker: ProcessWorker) -> None:
    """Stop the worker even when we are being cancelled: first ask, and if there is no time for that, kill."""
    try:
        await worker.stop()
    except asyncio.CancelledError:
        worker.kill("stopped")
        raise


async def _spawn(command: tuple[str, ...], folder: Path, limits: WorkerLimits, fd: int) -> asyncio.subprocess.Process:
    bound = 2 * limits.ram_bytes + 2 * GIB if limits.ram_bytes and not limits.cards else 0
    rein = (sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), str(limits.nice), str(bound))
    return await asyncio.create_subprocess_exec(
        *rein, *command, cwd=folder, env=worker_environment(folder, limits), pass_fds=(fd,), start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        limit=1 << 16,
    )  # fmt: skip


class _Link(asyncio.Protocol):
    """Our end of the worker's socket."""

    def __init__(self, on_messages: OnMessages) -> None:
        self._on_messages = on_messages
        self._frames = WorkerFrames("provider")
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self.writable = asyncio.Event()
        self.writable.set()
        self.broken: Callable[[str], None] = lambda _why: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=READ_PAUSE_BYTES)

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._frames.feed(data)
        except ValueError as error:
            self.broken(f"it said what is no message: {error}")
            self.close()
            return
        if messages:
            self._on_messages([m for m in messages if isinstance(m, FromWorker)])

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def pause(self, paused: bool) -> None:
        if self._transport is None or paused == self._paused or self._transport.is_closing():
            return
        self._paused = paused
        self._transport.pause_reading() if paused else self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def held_bytes(pid: int) -> int:
    """The memory that a process and those it started hold for themselves; 0 when it is gone."""
    return sum(_private_bytes(one) for one in _family(pid))


def _family(pid: int) -> list[int]:
    """A process and all that it started. The kernel keeps the list; where it does not, psutil asks every process on the
    machine for its parent, which takes milliseconds, several times a second."""
    found, threads = [pid], f"/proc/{pid}/task"
    try:
        for thread in os.listdir(threads):  # by pathlib this was a fifth of what a serving provider computed
            for child in _said(f"{threads}/{thread}/children").split():
                found += _family(int(child))
    except FileNotFoundError:
        if os.path.exists(threads) and not os.path.exists(f"{threads}/{pid}/children"):
            return _family_by_psutil(pid)
    except (NotADirectoryError, ProcessLookupError, PermissionError):
        pass
    return found if sys.platform == "linux" else _family_by_psutil(pid)


def _said(file: str) -> bytes:
    """What a file of /proc says now."""
    with open(file, "rb", buffering=0) as opened:
        return opened.read()


def _family_by_psutil(pid: int) -> list[int]:
    try:
        process = psutil.Process(pid)
        return [one.pid for one in (process, *process.children(recursive=True))]
    except psutil.Error:
        return []


def _private_bytes(pid: int) -> int:
    """Without the pages of mapped files, which the kernel can drop: a mapped model is no one's memory."""
    try:
        status = _said(f"/proc/{pid}/status").decode("ascii", "replace")
    except OSError:
        with suppress(psutil.Error):
            return psutil.Process(pid).memory_info().rss
        return 0
    rows = dict(line.split(":", 1) for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem")))
    return sum(int(value.split()[0]) * 1024 for value in rows.values())


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    """A line, or the part of a longer one that fits; b"" at the end."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await reader.read(max(error.consumed, 1))
