"""The work under one lease: its worker process, its inputs and outputs as files, its tasks one by one, and its lane.

A task ends in exactly one event for the machine, or in none when the machine itself stopped it. Whatever goes wrong in
between (a source that lies, a worker that dies, hangs or eats memory, a full disk) becomes a coded failure.

Defends against: inputs and outputs that take more room than was ordered, whatever sizes their tasks declare.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from fallow.errors import FallowError, PeerFault, UnavailableError, fail
from fallow.kinds.chain import MAX_TRACES_KEPT, is_state, too_many
from fallow.kinds.kind import READ_BYTES_PER_S
from fallow.node.folders import materialize, remove, with_files
from fallow.node.groups import begin
from fallow.node.provider.feed import Feeds
from fallow.node.provider.kept import KeptFor, LongWorker, WorkerShelf
from fallow.node.services import Services
from fallow.ports import READ, WORK, Worker, WorkerLimits
from fallow.rules.provider.events import ProviderEvent, StartTask, WorkerFailedTask, WorkerFinished
from fallow.units import BlobId
from fallow.wire.messages import LogLine, NodeAddress, Progress
from fallow.wire.tasks import Part, TaskOutput
from fallow.wire.trees import MAX_TREE_BYTES, decode_tree, is_tree
from fallow.wire.worker import (
    DropTask,
    FromWorker,
    LaneAnswers,
    RunTask,
    WorkerDone,
    WorkerFailed,
    WorkerLog,
    WorkerProgress,
    WorkerReady,
)

log = structlog.get_logger()

READY_S = 60.0
FETCH_S = 1_800.0
"""How long inputs may take on their way, and longer by their size at READ_BYTES_PER_S."""
CANCEL_S = 1.0
DEFAULT_TIMEOUT_S = 24 * 3600
LINES_PER_S = 50
MAX_PREFETCHES = 64
FREE_PART = 8
"""Of the disk space that is for sale, what a lease may use although its order asked for none."""
TellProvider = Callable[[ProviderEvent], Awaitable[object]]


@dataclass(frozen=True)
class Bench:
    """What all leases of a provider share: where work happens, and by which means."""

    services: Services
    group: asyncio.TaskGroup
    tell: TellProvider
    feeds: Feeds
    folder: Path
    threads: int
    disk_bytes: int
    shelf: WorkerShelf


def state_owners(lease: bytes) -> list[str]:
    """Who pins the states that a lease's last tasks committed to, in turn."""
    return [f"lease/{lease.hex()}/states/{number}" for number in range(MAX_TRACES_KEPT)]


def checks_owner(lease: bytes) -> str:
    """Who pins the states that a check under a lease starts from, while it runs."""
    return f"lease/{lease.hex()}/check"


class _Died(Exception):
    """The worker ended under a task; the text says how. `condemned` when that was for what the task made of it."""

    def __init__(self, how: str, *, condemned: bool = False) -> None:
        super().__init__(how)
        self.condemned = condemned


class LeaseWork:
    """One lease's worker and tasks."""

    def __init__(
        self, bench: Bench, lease: bytes, limits: WorkerLimits, disk_bytes: int = 0, keeping: KeptFor | None = None
    ) -> None:
        self._b, self.lease, self._limits, self._keeping = bench, lease, limits, keeping
        self._disk_bytes = max(disk_bytes, bench.disk_bytes // FREE_PART)
        self._taken: dict[BlobId, int] = {}
        self._kept = bench.shelf.take(keeping) if keeping is not None else None
        self.folder = self._kept.folder if self._kept is not None else bench.folder / lease.hex()[:32]
        self.owner = f"lease/{lease.hex()}"
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._prefetches: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._answer: asyncio.Future[WorkerDone | WorkerFailed] | None = None
        self._current = bytes(32)
        self._keeper: asyncio.Task[None] | None = None
        self._started: asyncio.Future[Worker] | None = None
        self._worker: Worker | None = None
        self._ready = False
        self._stopped = asyncio.Event()
        self._lines_from_s, self._lines = 0.0, 0
        self._traces: list[tuple[str, int]] = []
        self.on_lane: Callable[[FromWorker], None] = lambda _message: None
        self.on_gone: Callable[[str], None] = lambda _why: None

    @property
    def pid(self) -> int | None:
        """The worker's process, while there is one."""
        return self._worker.pid if self._worker is not None else None

    # tasks ----------------------------------------------------------------------------------------------------------

    def start(self, effect: StartTask) -> None:
        """Begin a task; one that is under way already is left alone."""
        if effect.task not in self._tasks and not self._stopped.is_set():
            self._tasks[effect.task] = begin(self._b.group, self._run(effect), "lease task")

    def stop_task(self, task: bytes) -> None:
        """End a task without a word to the machine."""
        if (running := self._tasks.pop(task, None)) is not None:
            running.cancel()

    async def stop(self) -> None:
        """End everything, worker included unless it is kept, and remove the files."""
        if self._stopped.is_set():
            return
        if self._tasks:
            self._keeping = None  # it is still at work on something
        self._stopped.set()
        for task in (*self._tasks.values(), *self._prefetches):
            task.cancel()
        self._tasks.clear()
        self.on_gone("the lease ended")
        if self._kept is not None:
            self._kept.over.set()
        if self._keeper is not None:
            await asyncio.wait({self._keeper})
        kept, self._kept = self._kept, None
        if kept is not None and kept.living is not None and self._keeping is not None:
            await self._b.shelf.put(self._keeping, kept, self._b.services.clock.monotonic_s())
            return
        if kept is not None:
            await kept.end()
        await asyncio.to_thread(remove, self.folder)

    async def _run(self, effect: StartTask) -> None:
        now_ms, lease, task = self._b.services.clock.now_ms, self.lease, effect.task
        try:
            output, metrics = await self._output(effect)
            event: ProviderEvent = WorkerFinished(now_ms(), lease, task, output, metrics)
        except _Died as death:
            what, died = f"The worker died: {death}.", not death.condemned
            event = WorkerFailedTask(now_ms(), lease, task, "E1704", what, True, died)
        except FallowError as error:
            # a source that lied is no fault of the task: another provider may find a better one
            again = error.retryable or isinstance(error, PeerFault)
            event = WorkerFailedTask(now_ms(), lease, task, error.code, error.what, again)
        except _SaidNo as no:
            event = WorkerFailedTask(now_ms(), lease, task, no.said.code, no.said.what, no.said.retryable)
        except Exception as error:  # the task boundary: our bug fails this task only
            log.error("task failed", lease=lease.hex()[:12], exc_info=error)
            event = WorkerFailedTask(now_ms(), lease, task, "E9001", "The provider had an error of its own.", True)
        if (here := asyncio.current_task()) is not None and here.cancelling():
            return  # stopped without a word, whatever else went wrong on the way out
        self._tasks.pop(task, None)  # the machine may want it started again at once
        await self._b.tell(event)

    async def _output(self, effect: StartTask) -> tuple[TaskOutput, dict[str, int]]:
        spec = effect.spec
        inputs = await self.inputs(spec.inputs, effect.sources)
        outdir = self.folder / WORK / f"out-{effect.task.hex()[:32]}"
        async with self._one_at_a_time:
            worker = await self._living_worker()
            await asyncio.to_thread(_fresh, outdir)
            try:
                done = await self._ask(worker, RunTask(effect.task, spec, inputs, str(outdir), self._b.threads))
                parts = await asyncio.to_thread(self._take_in, done, outdir)
            finally:
                await asyncio.to_thread(remove, outdir)
                await asyncio.to_thread(self._forget_states, spec.inputs)
        return TaskOutput(done.value, parts), done.metrics

    async def _living_worker(self) -> Worker:
        """A worker that is killed while it starts is no fault of the task."""
        try:
            return await self.worker()
        except UnavailableError as error:
            raise _Died(f"exited with an error: {error.what}") from None

    async def _ask(self, worker: Worker, order: RunTask) -> WorkerDone:
        """Run one task in the worker. However it ends, the worker is free again afterwards, or dead."""
        answer = self._answer = asyncio.get_running_loop().create_future()
        self._current = order.task_id
        try:
            worker.send(order)
            said = await asyncio.wait_for(answer, order.task.timeout_s or DEFAULT_TIMEOUT_S)
        except TimeoutError:
            await self._free(worker, order)
            raise _Died(f"time limit of {order.task.timeout_s} s", condemned=True) from None
        except asyncio.CancelledError:
            await self._free(worker, order)
            raise
        finally:
            self._answer, self._current = None, bytes(32)
        if isinstance(said, WorkerFailed):
            raise _SaidNo(said)
        return said

    async def _free(self, worker: Worker, order: RunTask) -> None:
        """Ask the worker to drop the task, and kill it when it does not in time."""
        if self._stopped.is_set():
            return
        answer = self._answer = asyncio.get_running_loop().create_future()
        worker.send(DropTask(order.task_id))
        with suppress(_Died):
            await asyncio.wait({answer}, timeout=CANCEL_S)
        if not answer.done():
            worker.kill("it did not stop when asked to")
        elif answer.exception() is not None:
            log.info("worker gone while stopping a task", lease=self.lease.hex()[:12])

    def _take_in(self, done: WorkerDone, outdir: Path) -> tuple[Part, ...]:
        """The output files as blobs, kept until the lease is forgotten. Blocks."""
        blobs, parts, paths = self._b.services.blobs, list[Part](), dict[str, Path]()
        for name, text in sorted(done.files.items()):
            try:
                paths[name] = Path(text).resolve()
            except (OSError, ValueError):  # no name that a file can have
                paths[name] = Path()
            if not paths[name].is_relative_to(outdir.resolve()):
                raise fail("E1704", "The worker offered a file from elsewhere as its output.")
        if sum(path.stat().st_size for path in paths.values() if path.is_file()) > self._disk_bytes:
            raise fail("E1604", "The task's output needs more disk space than was leased.")
        states = self._states_owner([path for name, path in paths.items() if is_state(name)])
        try:
            for name, path in paths.items():
                blob = blobs.take_file(path)
                blobs.pin(blob, states if is_state(name) else self.owner)
                parts.append(Part(name, blob, blobs.size(blob)))
        except FallowError:
            if states:  # some of a round's states are of no use to anybody
                blobs.unpin_all(states)
            raise
        return tuple(parts)

    def _states_owner(self, files: list[Path]) -> str:
        """Who pins the states that a round went through, once there is room for them: they are for those who check it,
        which happens soon or never, so the oldest go."""
        if not files:
            return ""
        kept, used = self._traces, {owner for owner, _ in self._traces}
        size_bytes = sum(path.stat().st_size for path in files if path.is_file())
        gone = too_many([*(size for _, size in kept), size_bytes])
        free = [owner for owner, _ in kept[:gone]] or [o for o in state_owners(self.lease) if o not in used][:1]
        for owner in free:  # what a process before kept under other owners may still be asked for
            self._b.services.blobs.unpin_all(owner)
        self._traces = [*kept[gone:], (free[0], size_bytes)]
        return free[0]

    # inputs ---------------------------------------------------------------------------------------------------------

    async def inputs(self, parts: tuple[Part, ...], sources: tuple[NodeAddress, ...]) -> dict[str, str]:
        """Fetch and lay out inputs: name -> path. The same blob under the same name keeps its path for the whole lease,
        so that a worker knows what it has loaded already."""
        found: dict[str, str] = {}
        needed = {BlobId(part.blob) for part in parts}
        for part in parts:
            folder = self._folder(part.blob)
            await self._fetch(part, sources, needed)
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            path = await asyncio.to_thread(materialize, self._b.services.blobs, part.name, BlobId(part.blob), folder)
            found[part.name] = str(path)
        return found

    def prefetch(self, parts: tuple[Part, ...], sources: tuple[NodeAddress, ...]) -> None:
        """Begin to fetch what a later task will want. At most MAX_PREFETCHES at a time are under way; more are
        forgotten, since a requester must not fill our memory with wishes."""
        for part in parts:
            if len(self._prefetches) < MAX_PREFETCHES and not self._stopped.is_set():
                task = begin(self._b.group, self._prefetch(part, sources), "prefetch")
                self._prefetches.add(task)
                task.add_done_callback(self._prefetches.discard)

    async def _prefetch(self, part: Part, sources: tuple[NodeAddress, ...]) -> None:
        """No task failed because of this; what is missing then is fetched then."""
        blob, limit = BlobId(part.blob), min(part.size_bytes, self._disk_bytes - sum(self._taken.values()))
        if limit <= 0:
            return
        self._taken.setdefault(blob, limit)  # at once: many may be under way
        try:
            await self._b.services.fetcher.fetch(blob, sources, limit, owner=self.owner, timeout_s=FETCH_S)
        except FallowError as error:
            self._taken.pop(blob, None)
            log.info("not prefetched", lease=self.lease.hex()[:12], code=error.code, what=error.what)

    def _forget_states(self, parts: tuple[Part, ...]) -> None:
        """Another's states are of no use once they were checked, and a long job has many."""
        for part in parts:
            if is_state(part.name):
                shutil.rmtree(self._folder(part.blob), ignore_errors=True)
                self._taken.pop(BlobId(part.blob), None)
        self._b.services.blobs.unpin_all(checks_owner(self.lease))

    def _folder(self, blob: bytes) -> Path:
        """Where an input lies for the worker."""
        return self.folder / READ / blob.hex()[:32]

    def _make_room(self, needed: set[BlobId]) -> int:
        """-> how much more room there is beside what is `needed` now. Inputs of former tasks are given up for that."""
        used = sum(size for blob, size in self._taken.items() if blob in needed)
        if sum(self._taken.values()) > self._disk_bytes:
            blobs = self._b.services.blobs
            for blob in self._taken.keys() - needed:
                for one in with_files(blobs, blob) if blobs.has(blob) else ():
                    blobs.unpin(one, self.owner)
                shutil.rmtree(self._folder(blob), ignore_errors=True)
                del self._taken[blob]
        return self._disk_bytes - used

    async def _fetch(self, part: Part, sources: tuple[NodeAddress, ...], needed: set[BlobId]) -> None:
        fetcher, blobs, blob = self._b.services.fetcher, self._b.services.blobs, BlobId(part.blob)
        self._taken.pop(blob, None)
        limit = await asyncio.to_thread(self._make_room, needed)
        owner = checks_owner(self.lease) if is_state(part.name) else self.owner
        size_bytes = self._taken[blob] = await fetcher.fetch(blob, sources, limit, owner=owner, timeout_s=FETCH_S)
        if size_bytes > MAX_TREE_BYTES:
            return
        raw = await asyncio.to_thread(blobs.read, blob, 0, size_bytes)
        if is_tree(raw):
            patience_s = FETCH_S + min(decode_tree(raw).size_bytes, limit) / READ_BYTES_PER_S
            self._taken[blob] += await fetcher.fetch_tree(blob, sources, limit, owner=self.owner, timeout_s=patience_s)

    # the worker -----------------------------------------------------------------------------------------------------

    async def worker(self) -> Worker:
        """The lease's worker, started if there is none. Raises UnavailableError E1704 when it does not start."""
        if self._stopped.is_set():
            raise fail("E1206", "The lease has ended.")
        if self._keeper is None or self._keeper.done():
            self._started, self._ready = asyncio.get_running_loop().create_future(), False
            self._keeper = begin(self._b.group, self._keep(self._started), "worker keeper")
        assert self._started is not None
        try:
            return await asyncio.wait_for(asyncio.shield(self._started), READY_S)
        except TimeoutError:
            raise fail("E1704", "The worker process did not start in time.") from None

    async def _keep(self, started: asyncio.Future[Worker]) -> None:
        """Own the worker process for as long as it lives."""
        why, condemned = "stopped", False
        try:
            kept = self._kept = self._kept if self._kept is not None and self._kept.living else LongWorker(self.folder)
            kept.listen(self._on_messages, self._on_line)
            kept.begin(self._b.group, self._b.services.runner, self._limits)
            worker = self._worker = await kept.worker()
            self._ready = self._ready or kept.ready
            self._announce()
            if not self._stopped.is_set():
                await kept.over.wait()
            if not self._stopped.is_set() or self._keeping is None:
                await kept.end()
            why, condemned = worker.why, worker.condemned
        except OSError as error:
            why = f"no process could be started: {error.strerror}"
        finally:
            self._worker = None
            self._gone(started, why, condemned)

    def _announce(self) -> None:
        """The worker is there and has said so, in whichever order we learnt it."""
        if self._ready and self._worker is not None and self._started is not None and not self._started.done():
            self._started.set_result(self._worker)

    def _gone(self, started: asyncio.Future[Worker], why: str, condemned: bool) -> None:
        if not started.done():
            started.set_exception(fail("E1704", f"The worker process ended before it was ready: {why}."))
            started.exception()  # nobody may be waiting
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(_Died(why, condemned=condemned))
        self.on_gone(why)

    def _on_messages(self, messages: list[FromWorker]) -> None:
        for message in messages:
            if isinstance(message, LaneAnswers):
                self.on_lane(message)
            else:
                self._on_message(message)

    def _on_message(self, message: FromWorker) -> None:
        match message:
            case WorkerReady(kind) if not kind:
                self._ready = True
                self._announce()
            case WorkerProgress(task, done, total, note):
                self._b.feeds.passing(self.lease, Progress(task, done, total, note))
            case WorkerLog(task, text):
                self._line(LogLine(task, text))
            case WorkerDone(task) | WorkerFailed(task) if task == self._current and self._answer is not None:
                if not self._answer.done():
                    self._answer.set_result(message)
            case _:
                self.on_lane(message)

    def _on_line(self, text: str) -> None:
        self._line(LogLine(self._current, text[:4000]))

    def _line(self, line: LogLine) -> None:
        """At most LINES_PER_S, so that a chatty worker fills no queue."""
        now_s = self._b.services.clock.monotonic_s()
        if now_s - self._lines_from_s >= 1:
            self._lines_from_s, self._lines = now_s, 0
        self._lines += 1
        if self._lines <= LINES_PER_S:
            self._b.feeds.passing(self.lease, line)


class _SaidNo(Exception):
    """The worker said that the task failed."""

    def __init__(self, said: WorkerFailed) -> None:
        super().__init__(said.what)
        self.said = said


def _fresh(folder: Path) -> None:
    remove(folder)
    folder.mkdir(parents=True)
