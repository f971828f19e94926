"""Worker processes: `python -m fallow.workloads.worker`, started in a process group of its own with a scrubbed
environment, shut in a box, watched, and stopped in under two seconds.

Defends against: workers that eat memory or disk, hang, flood the log, ignore requests to stop, outlive this process, or
do what the code of a stranger would do in their place (`box.py`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

import fallow
from fallow.adapters.runners import boxing, cgroup, leash
from fallow.adapters.runners.box import MAX_THREADS
from fallow.adapters.runners.cgroup import Cgroup
from fallow.adapters.runners.held import held_bytes, stored, threads
from fallow.errors import fail
from fallow.ports import READ, WORK, OnLine, OnMessages, WorkerLimits
from fallow.units import GIB, MIB, format_size
from fallow.wire.worker import FromWorker, ToWorker, WorkerFrames, worker_frame

COMMAND = (sys.executable, "-m", "fallow.workloads.worker")
WATCH_EVERY_S = 0.25
LOOK_AT_DISK_EVERY = 4
"""Memory is looked at so many times for each look at the disk, which costs more."""
BOX_BYTES = 64 * MIB
"""What the program that built the box may hold beside the worker, and what comes and goes between two looks."""
BOX_PROCESSES = 8
"""What comes on top of a worker's threads where the kernel counts both."""
MAX_FILES = 100_000
LEAST_FREE_BYTES = 256 * MIB
"""A worker that has written is ended before its disk is as full as this, whatever it was promised."""
STOP_GRACE_S = 0.7
MAX_LINE_BYTES = 2_000
READ_PAUSE_BYTES = 4 * MIB
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TZ")


def worker_environment(folder: Path, limits: WorkerLimits) -> dict[str, str]:
    """All that a worker learns from its environment: no secrets of the owner's, no way to a model hub, its threads and
    cards, and `folder` as its home and for temporary files; and where compiled kernels may lie."""
    threads = str(max(limits.threads, 1))
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    return kept | {
        "HOME": str(folder), "TMPDIR": str(folder), "XDG_CACHE_HOME": str(folder), "HF_HOME": str(folder),
        "USER": "worker", "LOGNAME": "worker", boxing.KERNELS_VARIABLE: str(boxing.kernels_folder()),
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

    def __init__(
        self, process: asyncio.subprocess.Process, link: _Link, limits: WorkerLimits, group: Cgroup | None
    ) -> None:
        self._process, self._link, self._limits, self._group = process, link, limits, group
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
            self._condemn(why)
            self._kill_all()

    def _condemn(self, why: str) -> None:
        self.why, self.condemned = self.why or why, self.condemned or not self.why

    def _kill_all(self) -> None:
        if self._group is not None:
            self._group.kill()
        _signal_group(self.pid, signal.SIGKILL)

    async def watch(self, work: Path) -> None:
        """Until it ends: kill it when it holds more memory than it may, or has written more into `work`."""
        look = 0
        while not self.ended.is_set():
            if threads(self.pid) > MAX_THREADS:  # first: what is counted next is counted for each of them
                self.kill(f"too many threads: more than {MAX_THREADS:,}")
                break
            held = held_bytes(self.pid)
            if self._limits.ram_bytes and held > self._limits.ram_bytes + BOX_BYTES:
                self.kill(f"out of memory: it held {format_size(held)} of {format_size(self._limits.ram_bytes)}")
            look = (look + 1) % LOOK_AT_DISK_EVERY
            if look == 0 and (too_much := await asyncio.to_thread(self._too_much_on_disk, work)):
                self.kill(too_much)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), WATCH_EVERY_S)

    def _too_much_on_disk(self, work: Path) -> str:
        """Why the worker must go; empty when it need not. What others write meanwhile is not its fault unless the disk
        is full."""
        found = stored(work, self.pid, MAX_FILES)
        limit = self._limits.disk_bytes
        if limit and found.size_bytes > limit:
            return f"out of disk: it has written {format_size(found.size_bytes)} of {format_size(limit)}"
        if found.hidden:
            return "out of disk: it has written what cannot be looked at"
        if found.files >= MAX_FILES:
            return f"out of disk: it has written {MAX_FILES:,} files"
        if found.size_bytes > LEAST_FREE_BYTES and found.free_bytes < LEAST_FREE_BYTES:
            return f"out of disk: {format_size(found.free_bytes)} are left of all"
        return ""

    async def wait(self) -> None:
        """Until the process is gone, whoever ended it."""
        code = await self._process.wait()
        if self._group is not None and self._group.starved():
            self._condemn(f"out of memory: it wanted more than {format_size(self._limits.ram_bytes)}")
        self.why = self.why or (f"killed by signal {-code}" if code < 0 else f"exited with status {code}")
        self._kill_all()  # whatever it started goes with it
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
        for insist in (lambda: _signal_group(self.pid, signal.SIGTERM), self._kill_all):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_GRACE_S)
                break
            insist()
        self._kill_all()  # what it started may hold its log open, and so the reading of it
        await self._process.wait()


class ProcessRunner:
    """Starts workers as processes of this machine; `command` gets the number of a socket, as `--fd N`. `boxed` is for
    strangers' work; without, whatever runs as a worker can do all that this user can."""

    def __init__(self, command: tuple[str, ...] = COMMAND, *, boxed: bool = True) -> None:
        self._command, self._boxed = command, boxed

    def guard(self) -> str:
        """As the port says. Tried once a process, by starting a program in a box."""
        if not self._boxed:
            return "nothing: the owner asked for that"
        layers, why = boxing.strength()
        if not layers:
            raise fail("E1809", "Workers cannot be shut in on this machine, so no stranger's work is done.", cause=why)
        return boxing.LAYERS[layers]

    @asynccontextmanager
    async def open(
        self, folder: Path, limits: WorkerLimits, on_messages: OnMessages, on_line: OnLine
    ) -> AsyncGenerator[ProcessWorker]:
        """While the worker runs, a note in the folder above says so, for `kill_orphans`."""
        view = await asyncio.to_thread(self._view, folder, limits)
        async with _own_cgroup(limits) as group:
            process, ours = await self._start(folder / WORK, view, limits, group)
            note = folder.parent / f"{process.pid}.worker"
            with suppress(psutil.Error, OSError):
                note.write_text(str(psutil.Process(process.pid).create_time()), "ascii")
            _, link = await asyncio.get_running_loop().create_connection(lambda: _Link(on_messages), sock=ours)
            worker = ProcessWorker(process, link, limits, group)
            link.broken = worker.kill
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(worker.wait(), name="worker wait")
                    tasks.create_task(worker.watch(folder / WORK), name="worker watch")
                    tasks.create_task(worker.read_log(on_line), name="worker log")
                    try:
                        yield worker
                    finally:
                        await _finish(worker)
            finally:
                note.unlink(missing_ok=True)

    async def _start(
        self, work: Path, view: str, limits: WorkerLimits, group: Cgroup | None
    ) -> tuple[asyncio.subprocess.Process, socket.socket]:
        """The process, and our end of its socket."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                command = (*self._command, "--fd", str(theirs.fileno()))
                return await _spawn(command, view, work, limits, theirs.fileno(), group), ours
        except BaseException:  # a cancelled start, too, must not leave the socket to the garbage collector
            ours.close()
            raise

    def _view(self, folder: Path, limits: WorkerLimits) -> str:
        """What the worker may see, in words for the leash; raises OSError where no box can be had."""
        for name in (WORK, READ):
            (folder / name).mkdir(exist_ok=True)
        if not self._boxed:
            return ""
        layers, why = boxing.strength()
        if not layers:
            raise OSError(errno.ENOTSUP, f"no box can be had for it: {why}")
        return boxing.view(folder, limits, layers).words()

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


@asynccontextmanager
async def _own_cgroup(limits: WorkerLimits) -> AsyncGenerator[Cgroup | None]:
    """For one worker, where there can be one. Drivers of cards hold memory that the kernel counts, too."""
    spare = GIB if limits.cards else BOX_BYTES
    group = cgroup.make(limits.ram_bytes and limits.ram_bytes + spare, MAX_THREADS + BOX_PROCESSES)
    try:
        yield group
    finally:
        if group is not None:
            await asyncio.to_thread(group.remove)


async def _spawn(
    command: tuple[str, ...], view: str, folder: Path, limits: WorkerLimits, fd: int, group: Cgroup | None
) -> asyncio.subprocess.Process:
    bound = 2 * limits.ram_bytes + 2 * GIB if limits.ram_bytes and not limits.cards else 0
    members = group.members if group is not None else ""
    rein = (sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), str(limits.nice), str(bound), members, view)
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
