"""Doing the work of a receipt again on its owner's machine, as `rules/replay.py` planned it: its inputs from the
owner's own node or folders, each by its hash, in a worker process like a provider's.

Defends against: what a receipt names being something else (all of it is found by hash); work that eats the machine
(limits of memory and time, a scrubbed environment, only typed workloads' own code); a false accusation by a machine
that does not compute exactly (it must pass the golden self-test first). Does not defend against: the owner's own
folders changing while the work runs."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from fallow.adapters.blobs_files import measure
from fallow.errors import CODES, FallowError, fail
from fallow.kinds.registry import KINDS
from fallow.kinds.replay import ANYWHERE, Difference, Piece, ReplayPlan
from fallow.node.folders import remove, stored_bytes, tree_id
from fallow.ports import READ, WORK, Machine, Runner, Worker, WorkerLimits
from fallow.rules.replay import differences, replay_of, served_with
from fallow.sdk.client import LONG_CALL_S, AsyncFallow
from fallow.units import GIB
from fallow.wire import local
from fallow.wire.claims import task_id
from fallow.wire.messages import EXACT
from fallow.wire.tasks import Part, TaskOutput
from fallow.wire.worker import FromWorker, RunTask, WorkerDone, WorkerFailed, WorkerProgress, WorkerReady

READY_S = 60.0
LISTEN_S = 0.25
PARTS_A_CALL = 16
MAX_BYTES = 256 * GIB
MAX_THREADS = 16
MAX_NAMED = 5
_THREADS = re.compile(r"/t([1-9]\d{0,2})$")
OnStep = Callable[[int, int, str], None]


class Given(NamedTuple):
    """Files and folders that the owner points to, by the names of inputs: "model", "adapter", "data"."""

    paths: dict[str, Path]
    timeout_s: int = 24 * 3600


class Done(NamedTuple):
    """What came of it, and of what in the end: `plan` knows what its answer was served with. `inputs` are the parts
    that it was done from, `kept` the folder with them when something differed."""

    plan: ReplayPlan
    differences: tuple[Difference, ...]
    inputs: tuple[Part, ...]
    kept: Path | None


class Workbench:
    """Where tasks are done again: a folder of its own in `home`, and a worker that is kept from one to the next, since
    loading its libraries is most of the time. `async with Workbench(home, runner, machine) as bench`."""

    def __init__(self, home: Path, runner: Runner, machine: Machine) -> None:
        self._home, self._runner, self.machine = home, runner, machine
        self._stack = ExitStack()
        self.folder = Path()
        self._life: AsyncExitStack | None = None
        self._desk: _Desk | None = None
        self._limits: WorkerLimits | None = None

    async def __aenter__(self) -> Self:
        self.folder = self._stack.enter_context(_workspace(self._home))
        (self.folder / READ).mkdir()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._let_go()
        finally:
            self._stack.close()

    async def run(
        self, pieces: tuple[Piece, ...], paths: dict[str, str], parts: tuple[Part, ...], threads: int, timeout_s: int,
        folder: Path, tell: OnStep,
    ) -> list[TaskOutput]:  # fmt: skip
        """Run all pieces in one worker -> their outputs. After an error there is a new worker for the next. Errors:
        UnavailableError E1704 when the worker dies or takes longer than `timeout_s`, and what the workload says."""
        outputs = list[TaskOutput]()
        try:
            async with asyncio.timeout(timeout_s):
                model_bytes = await asyncio.to_thread(stored_bytes, Path(paths["model"])) if "model" in paths else 0
                here = await asyncio.to_thread(self.machine.measure, self.folder, threads)
                owners = tuple(Path(path) for path in paths.values() if not Path(path).is_relative_to(self.folder))
                desk = await self._ready(_limits(pieces, threads, model_bytes, here.ram_bytes, owners))
                for number, piece in enumerate(pieces):
                    told = _of_all(tell, pieces, number) if piece.links else tell
                    outputs.append(await desk.do(piece, paths, parts, folder / f"out-{number}", threads, told))
        except TimeoutError:
            await self._let_go()
            raise fail(
                "E1704", f"It was not done in {timeout_s} s.", next_step="Give it more with --timeout."
            ) from None
        except FallowError:
            await self._let_go()
            raise
        return outputs

    async def _ready(self, limits: WorkerLimits) -> _Desk:
        """The worker with these limits; the one of the last task when they are the same."""
        if self._desk is not None and self._limits == limits:
            return self._desk
        await self._let_go()
        await asyncio.to_thread(self._runner.guard)
        heard: asyncio.Queue[FromWorker] = asyncio.Queue()

        def take(messages: list[FromWorker]) -> None:
            for message in messages:
                heard.put_nowait(message)

        self._life = AsyncExitStack()
        worker = await self._life.enter_async_context(self._runner.open(self.folder, limits, take, lambda _line: None))
        self._desk, self._limits = _Desk(worker, heard), limits
        await self._desk.ready()
        return self._desk

    async def _let_go(self) -> None:
        """End the worker, if there is one."""
        life, self._life, self._desk = self._life, None, None
        if life is not None:
            await life.aclose()


class ReplayBench(Workbench):
    """Where the work of receipts is done again, with inputs from their owner's node."""

    def __init__(self, client: AsyncFallow, runner: Runner, machine: Machine) -> None:
        super().__init__(client.home, runner, machine)
        self._client = client
        self._count = 0

    async def replay(self, receipt: bytes, plan: ReplayPlan, given: Given, tell: OnStep) -> Done:
        """Do a plan again. Errors: RejectedError E1504 when this machine gives other bits; UnavailableError E1602 when
        inputs are nowhere; UsageError E2001 for a given folder that is not the one; and as `run`."""
        threads = await asyncio.to_thread(threads_for, plan.numerics, self.machine, self.folder)
        self._count += 1
        folder, inputs = self.folder / WORK / str(self._count), self.folder / READ
        folder.mkdir(parents=True)
        try:
            paths, parts, context_tokens = await _gather(self._client, receipt, plan, given, inputs, tell)
            plan = served_with(plan, context_tokens)
            found = await self.run(plan.pieces, paths, parts, threads, given.timeout_s, folder, tell)
            rows = tuple(row for piece, one in zip(plan.pieces, found, strict=True) for row in differences(piece, one))
            kept = await asyncio.to_thread(_keep, inputs, parts, self._count) if rows else None
        finally:
            await asyncio.to_thread(remove, folder)
        return Done(plan, rows, parts, kept)


def threads_for(numerics: str, machine: Machine, folder: Path) -> int:
    """How many threads give the bits of this class here, where work is done in `folder`. Blocks. Raises RejectedError
    E1504 where none do."""
    if numerics == EXACT:
        threads = max(1, min(machine.measure(folder, 1).cpu_millis // 1_000, MAX_THREADS))
        why = machine.exactness(threads)
        if why != EXACT:
            what = "This machine does not compute exactly, so a difference would say nothing."
            raise fail("E1504", what, cause=f"It was tried: {why}.", next_step="fallow doctor")
        return threads
    if numerics == ANYWHERE:
        return 1
    found = _THREADS.search(numerics)
    threads = int(found[1]) if found else 1
    ours = machine.measure(folder, threads).numerics
    if ours != numerics:
        cause = f"The work was done as {numerics}, this machine computes as {ours}."
        raise fail(
            "E1504", "The work gives the same bits only on machines of one class, and this is none of them.",
            cause=cause, next_step="Run the command on a machine of that class.",
        )  # fmt: skip
    return threads


@contextmanager
def _workspace(home: Path) -> Generator[Path]:
    """A folder of our own, beside the node's store if there is one, so that files can be links into it. Removed at the
    end, but for what `_keep` has moved away."""
    parent = home / "replay" if home.is_dir() else None
    try:
        if parent is not None:
            parent.mkdir(mode=0o700, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="fallow-replay-", dir=parent))
    except OSError as error:
        raise fail("E1004", f"{parent or 'The temporary folder'} cannot be written: {error.strerror}.") from error
    try:
        yield folder
    finally:
        remove(folder)


def _keep(inputs: Path, parts: tuple[Part, ...], number: int) -> Path:
    """Put the inputs of one receipt, as far as they are not the owner's own folders, out of a workspace that is about
    to go."""
    workspace = inputs.parent
    kept = workspace.with_name(f"{workspace.name.replace('fallow-replay-', 'evidence-')}-{number}")
    kept.mkdir(mode=0o700)
    for blob in {part.blob.hex() for part in parts}:
        if (inputs / blob).is_dir():
            shutil.copytree(inputs / blob, kept / blob, copy_function=_link)
    return kept


def _link(source: str, target: str) -> None:
    """A second name for a file that nobody writes to, a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


# inputs ---------------------------------------------------------------------------------------------------------------


async def _gather(
    client: AsyncFallow, receipt: bytes, plan: ReplayPlan, given: Given, folder: Path, tell: OnStep
) -> tuple[dict[str, str], tuple[Part, ...], int]:
    """All inputs of the plan as files -> their paths by name, the parts, and the context that a lane is served with.
    The same blob keeps its path, since a worker that has loaded it goes on reading there."""
    wanted = {part.name: part for piece in plan.pieces for part in piece.task.inputs}
    paths: dict[str, str] = {}
    for name, path in given.paths.items():
        if name not in wanted and (plan.names_inputs or name == "data"):
            continue
        tell(0, 0, f"hashing {name}")
        blob = await asyncio.to_thread(tree_id, path)
        part = wanted.setdefault(name, Part(name, blob, 0))
        if part.blob != blob:
            cause = f"It hashes to b_{blob.hex()[:12]}, the receipt's {name} is b_{part.blob.hex()[:12]}."
            raise fail("E2001", f"{path} is not the {name} of this receipt.", cause=cause, next_step="Leave it out.")
        paths[name] = str(_only_file(path))
    rest = [part for name, part in wanted.items() if name not in paths]
    asks = [tuple(rest[at : at + PARTS_A_CALL]) for at in range(0, len(rest), PARTS_A_CALL)]
    if not plan.names_inputs and "model" not in wanted:
        asks = [()]  # the node knows what it serves
    missing, left_bytes, why, context_tokens = list[Part](), MAX_BYTES, "", 0
    for number, ask in enumerate(asks):
        tell(number * PARTS_A_CALL, len(rest), "fetching what it starts from")
        laid, why = await _lay_out(client, local.LayOut(receipt, ask, str(folder), left_bytes), why)
        context_tokens = laid.context_tokens
        for part, path in zip(laid.parts, laid.paths, strict=True):
            wanted[part.name] = part
            if path:
                paths[part.name] = path
                left_bytes -= await asyncio.to_thread(stored_bytes, Path(path))
            else:
                missing.append(part)
    if not plan.names_inputs and "model" not in wanted:
        missing.append(Part("model", bytes(32), 0))
    if missing:
        raise _missing(missing, why)
    return paths, tuple(wanted.values()), context_tokens


async def _lay_out(client: AsyncFallow, request: local.LayOut, why: str) -> tuple[local.LaidOut, str]:
    """What the node has of it; nothing, and why, when there is no node or it is none of its business."""
    try:
        return await client.call(request, local.LaidOut, LONG_CALL_S), why
    except FallowError as error:
        if error.code not in ("E2004", "E2002"):
            raise
        return local.LaidOut(request.parts, ("",) * len(request.parts)), error.what


def _missing(parts: list[Part], why: str) -> FallowError:
    names = [part.name if not any(part.blob) else f"{part.name} (b_{part.blob.hex()[:12]})" for part in parts]
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    able = {"model": "--model", "data": "--data", "adapter": "--adapter"}
    ours = [option for name, option in able.items() if any(part.name == name for part in parts)]
    step = "fallow up" if why else "Start the provider that did the work, and try again."
    if ours:
        step += f"   # or give {' and '.join(ours)}"
    return fail(
        "E1602", f"What it starts from is not at hand: {', '.join(names[:MAX_NAMED])}{more}.",
        cause=why or "Neither your node nor the job's providers hold it any more, or they are off.",
        next_step=step,
    )  # fmt: skip


def _only_file(path: Path) -> Path:
    """What a worker is given for a folder of one file is that file."""
    found = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return found[0] if len(found) == 1 else path


# the worker -----------------------------------------------------------------------------------------------------------


def _limits(
    pieces: tuple[Piece, ...], threads: int, model_bytes: int, here_bytes: int, reads: tuple[Path, ...] = ()
) -> WorkerLimits:
    """What a provider's worker gets for such a task; never more than this machine has, which is `here_bytes`."""
    usual = [piece.task.ram_bytes for piece in pieces]
    usual += [KINDS[piece.task.kind].usual_ram_bytes for piece in pieces if piece.task.kind in KINDS]
    sides = (replay_of(piece.task.kind) for piece in pieces)
    usual += [side.ram_bytes(model_bytes) for side in sides if side is not None]
    return WorkerLimits(min(max(usual), max(here_bytes - GIB, here_bytes // 2)), threads, reads=reads)


def _of_all(tell: OnStep, pieces: tuple[Piece, ...], number: int) -> OnStep:
    """Progress within a piece that does links again, as progress within all that were drawn."""
    before, drawn = (sum(len(piece.links) for piece in some) for some in (pieces[:number], pieces))
    return lambda done, _total, note: tell(before + done, drawn, note)


class _Desk:
    """Talks with one worker."""

    def __init__(self, worker: Worker, heard: asyncio.Queue[FromWorker]) -> None:
        self._worker, self._heard = worker, heard

    async def ready(self) -> None:
        """Until it says that it is there. Raises E1704 when it does not."""
        try:
            async with asyncio.timeout(READY_S):
                while not isinstance(await self._next(), WorkerReady):
                    pass
        except TimeoutError:
            raise fail("E1704", "The worker process did not start in time.") from None

    async def do(
        self, piece: Piece, paths: dict[str, str], parts: tuple[Part, ...], outdir: Path, threads: int, tell: OnStep
    ) -> TaskOutput:
        """One piece. Raises what the worker says of it, E1704 when it dies."""
        outdir.mkdir()
        task = piece.task
        inputs = {part.name: paths[part.name] for part in (task.inputs or parts)}
        self._worker.send(RunTask(task_id(task), task, inputs, str(outdir), threads))
        while True:
            match await self._next():
                case WorkerProgress(_, done, total, note):
                    tell(done, total, note)
                case WorkerFailed(_, code, what, _):
                    raise fail(code if code in CODES else "E1704", f"It could not be done again: {what}")
                case WorkerDone(_, value, files):
                    return TaskOutput(value, await asyncio.to_thread(_parts_of, dict(files), outdir))
                case _:
                    pass

    async def _next(self) -> FromWorker:
        while True:
            try:
                return await asyncio.wait_for(self._heard.get(), LISTEN_S)
            except TimeoutError:
                if self._worker.ended.is_set() and self._heard.empty():
                    raise fail("E1704", f"The worker died: {self._worker.why}.", next_step="fallow doctor") from None


def _parts_of(files: dict[str, str], outdir: Path) -> tuple[Part, ...]:
    """Output files by their hashes."""
    found: list[Part] = []
    for name, text in sorted(files.items()):
        path = Path(text).resolve()
        if not path.is_relative_to(outdir.resolve()):
            raise fail("E1704", "The worker offered a file from elsewhere as its output.")
        with path.open("rb") as opened:
            blob, entry = measure(opened.fileno())
        found.append(Part(name, blob, entry.size_bytes))
    return tuple(found)
