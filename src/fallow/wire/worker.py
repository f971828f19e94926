"""What a provider and its worker process say to each other over an inherited socket.

A worker is started as `python -m fallow.workloads.worker --fd N`, where N is one end of a stream socketpair. Frames in
both directions are `u32 big-endian length | msgpack of one message`. The worker speaks first (`WorkerReady` with kind
""). It runs one `RunTask` at a time and, beside it, any number of lane tasks of the one kind that `Preload` named. It
ends when its end of the socket reaches end of file or its parent dies.

Neither side is a peer: the worker is our own code. But it works on foreign data, so what it says is bounded and checked
like everything else.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from fallow.wire.documents import U64, Label, Word
from fallow.wire.messages import LaneItem, LaneResult, LaneTask, Text
from fallow.wire.tasks import MAX_VALUE_BYTES, Name, TaskSpec

MAX_WORKER_FRAME_BYTES = 16 << 20
MAX_LANE_BATCH = 4096
NO_TASK = bytes(32)
"""The task id in a `WorkerFailed` that answers a `Preload`."""

FilePath = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
Paths = Annotated[dict[Name, FilePath], msgspec.Meta(max_length=4096)]


class WorkerMessage(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True, array_like=True):
    """Base of everything on the worker's socket."""


# provider -> worker ---------------------------------------------------------------------------------------------------


class RunTask(WorkerMessage, frozen=True):
    """Run one task; answered by WorkerProgress and WorkerLog, then exactly one WorkerDone or WorkerFailed. `inputs`
    maps the names of the task's inputs to files (a tree: to a folder or, for a tree of one file, to that file);
    `outdir` is an empty folder for its output files; `threads` is how many CPU threads it may use, which is part of
    what makes fp32 results comparable. A second RunTask before the answer is refused with E1803."""

    task_id: Word
    task: TaskSpec
    inputs: Paths
    outdir: FilePath
    threads: U64


class DropTask(WorkerMessage, frozen=True):
    """Stop the running task at its next step; answered by its WorkerFailed with code E1402 (or WorkerDone, when it was
    faster). A task that does not come to its next step in time must be killed with its worker."""

    task_id: Word


class Preload(WorkerMessage, frozen=True):
    """Get ready for lane tasks of `kind` ("echo", "generate"): load input "model" and, when given, "adapter". Answered
    by WorkerReady with that kind, or WorkerFailed with NO_TASK. `context_tokens` bounds prompt and answer together (0:
    the model's own limit), `parallel` is how many streams are worked on side by side; with `exact` a model without an
    exact form is refused with E1709."""

    kind: Name
    inputs: Paths
    threads: U64
    context_tokens: U64 = 0
    parallel: U64 = 4
    exact: bool = False


class LaneBatch(WorkerMessage, frozen=True):
    """Lane tasks, of the kind that was preloaded. Their numbers are the lane's own."""

    tasks: Annotated[tuple[LaneTask, ...], msgspec.Meta(max_length=MAX_LANE_BATCH)]


class LaneCancel(WorkerMessage, frozen=True):
    """Nobody waits for these numbers any more; each is still answered by one LaneResult: with what was made so far and
    its units, or with code E1402 when nothing was, unless it was faster."""

    numbers: Annotated[tuple[U64, ...], msgspec.Meta(max_length=MAX_LANE_BATCH)]


# worker -> provider ---------------------------------------------------------------------------------------------------


class WorkerReady(WorkerMessage, frozen=True):
    """`kind` "" once at the start; later the kind that a Preload made ready, with the time that it took and the context
    it can hold."""

    kind: Label = ""
    load_ms: U64 = 0
    context_tokens: U64 = 0


class WorkerProgress(WorkerMessage, frozen=True):
    task_id: Word
    done: U64
    total: U64
    note: Label = ""


class WorkerLog(WorkerMessage, frozen=True):
    task_id: Word
    text: Text


class WorkerDone(WorkerMessage, frozen=True):
    """The task's output: its `value` and its files by name of part. `metrics` vary between honest runs and are never
    part of the output."""

    task_id: Word
    value: Annotated[bytes, msgspec.Meta(max_length=MAX_VALUE_BYTES)]
    files: Paths
    metrics: Annotated[dict[Label, int], msgspec.Meta(max_length=64)]


class WorkerFailed(WorkerMessage, frozen=True):
    """`retryable` says that the same task may succeed elsewhere or later (out of memory, our bug); false when the task
    itself is at fault (not a model, empty data), so that nobody else need try."""

    task_id: Word
    code: Label
    what: Text
    retryable: bool


class LaneAnswers(WorkerMessage, frozen=True):
    """Pieces and answers of lane tasks, in the order in which they came about: all LaneItem of a number come before its
    one LaneResult."""

    answers: tuple[LaneItem | LaneResult, ...]


ToWorker = RunTask | DropTask | Preload | LaneBatch | LaneCancel
FromWorker = WorkerReady | WorkerProgress | WorkerLog | WorkerDone | WorkerFailed | LaneAnswers

_to_worker = msgspec.msgpack.Decoder(ToWorker)
_from_worker = msgspec.msgpack.Decoder(FromWorker)
_encoder = msgspec.msgpack.Encoder()


def worker_frame(message: ToWorker | FromWorker) -> bytes:
    """One message as it goes over the socket. Raises ValueError when it is larger than MAX_WORKER_FRAME_BYTES."""
    body = _encoder.encode(message)
    if len(body) > MAX_WORKER_FRAME_BYTES:
        raise ValueError(f"a worker message of {len(body)} bytes")
    return len(body).to_bytes(4, "big") + body


class WorkerFrames:
    """Cuts a byte stream into messages. `feed` takes whatever was read and returns the messages that are complete now,
    in order; the rest waits. Raises ValueError (also msgspec's errors, which are ValueErrors) for bytes that are no
    message; the stream is then of no more use. Holds at most one frame and one read."""

    def __init__(self, side: str) -> None:
        """`side` is "worker" for the end that reads ToWorker, "provider" for the end that reads FromWorker."""
        self._decode = (_to_worker if side == "worker" else _from_worker).decode
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[ToWorker | FromWorker]:
        self._rest += data
        found: list[ToWorker | FromWorker] = []
        start, end = 0, len(self._rest)
        with memoryview(self._rest) as view:
            while end - start >= 4:
                size = int.from_bytes(view[start : start + 4], "big")
                if size > MAX_WORKER_FRAME_BYTES:
                    raise ValueError(f"a worker frame of {size} bytes")
                if end - start - 4 < size:
                    break
                found.append(self._decode(view[start + 4 : start + 4 + size]))
                start += 4 + size
        del self._rest[:start]
        return found
