"""Generate tasks: one completion of one model, by the engine that fits the model's layout. Inputs: "model" (a folder in
Hugging Face's layout, or a GGUF file), and maybe "adapter" (a LoRA in PEFT's format, for the former)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fallow.errors import FallowError, fail
from fallow.kinds.generate.kind import metered
from fallow.kinds.generate.tasks import Generate
from fallow.wire import codec
from fallow.wire.worker import Preload
from fallow.workloads.engines import Emit, Engine
from fallow.workloads.lane import SendAnswers, StreamLane, WorkerLane
from fallow.workloads.model_files import inspect_model
from fallow.workloads.task import TaskResult, TaskRun

MAX_PARALLEL = 64
_last: list[tuple[object, Engine]] = []
"""The engine of the last whole task, kept for the next one."""


def _nobody(_: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Opening:
    """How a model is opened: `context_tokens` 0 means the model's own limit (GGUF: 2,048), `parallel` is how many
    answers are worked on side by side; with `exact` nothing but exact arithmetic will do, else `log` is told where it
    is not used."""

    context_tokens: int = 0
    parallel: int = 1
    threads: int = 1
    exact: bool = False
    log: Callable[[str], None] = _nobody


DEFAULT = Opening()


def open_engine(model: Path, adapter: Path | None = None, how: Opening = DEFAULT) -> Engine:
    """Load a model for answering: in exact arithmetic where it has an exact form. Errors: UsageError E1701 for what is
    no model or adapter, E1708 when the package that it needs is not installed, E1709 where it must be exact and cannot
    be."""
    facts = inspect_model(model)  # before the imports: seconds, for what is no model
    gguf = facts.weights[0] if facts.layout == "gguf" else None
    parallel = max(1, min(how.parallel, MAX_PARALLEL))
    try:
        if gguf is None:
            return _open_folder(model, adapter, parallel, how)
        from fallow.workloads.engine_llama import LlamaEngine
    except ImportError as error:
        extra = "train" if gguf is None else "llm"
        raise fail("E1708", f"{error.name} is not installed.", next_step=f"pip install 'fallow[{extra}]'") from error
    if adapter is not None:
        raise fail("E1701", "An adapter needs its model as a Hugging Face folder, and this one is a GGUF file.")
    if how.exact:
        raise fail("E1709", "A GGUF file has no exact form.", next_step="Serve the folder that it was made from.")
    return LlamaEngine(gguf, how.context_tokens, parallel, how.threads)


def _open_folder(model: Path, adapter: Path | None, parallel: int, how: Opening) -> Engine:
    from fallow.workloads.engine_exact import ExactEngine
    from fallow.workloads.engine_torch import TorchEngine
    from fallow.workloads.model import load_model

    loaded = load_model(model)
    try:
        return ExactEngine(loaded, adapter, how.context_tokens, parallel, how.threads)
    except FallowError as error:
        if error.code != "E1709" or how.exact:
            raise
        how.log(f"{error.what} Answers are made in fp32: only like machines can check them.")
    return TorchEngine(loaded, adapter, how.context_tokens, how.threads)


def run(work: TaskRun) -> TaskResult:
    """Answer one Generate. Errors as in `open_engine` and `Engine.answer`."""
    request = codec.decode(Generate, work.task.params)
    began = time.perf_counter()
    first: list[float] = []

    def emit(piece: str) -> bool:
        if piece and not first:
            first.append(time.perf_counter())
        work.progress(0, request.max_tokens, "")
        return True

    engine = _engine(work)
    loaded = time.perf_counter()
    value = engine.answer(request, work.task.seed, emit)
    metrics = {
        "load_ms": int((loaded - began) * 1e3),
        "ttft_ms": int(((first[0] if first else time.perf_counter()) - loaded) * 1e3),
        "answer_ms": int((time.perf_counter() - loaded) * 1e3),
    }
    return TaskResult(codec.encode(value), {}, metrics)


def answer_lane(engine: Engine, params: bytes, seed: int, emit: Emit) -> tuple[bytes, int]:
    """Answer a lane task: its value and its units, which are the tokens read and made."""
    value = engine.answer(codec.decode(Generate, params), seed, emit)
    return codec.encode(value), metered(value)


def open_lane(order: Preload, tell: SendAnswers, log: Callable[[str], None]) -> WorkerLane:
    """A lane of answers, some of them worked on side by side. Errors: E1707 without a model, and those of
    `open_engine`."""
    if "model" not in order.inputs:
        raise fail("E1707", "The lane came without its input 'model'.")
    adapter = Path(order.inputs["adapter"]) if "adapter" in order.inputs else None
    how = Opening(order.context_tokens, order.parallel, order.threads, order.exact, log)
    engine = open_engine(Path(order.inputs["model"]), adapter, how)
    return StreamLane(engine, answer_lane, max(1, order.parallel), tell)


def _engine(work: TaskRun) -> Engine:
    adapter = work.inputs.get("adapter")
    key = (work.content("model") or object(), work.content("adapter"), work.threads)
    if not _last or _last[0][0] != key:
        _last.clear()
        _last.append((key, open_engine(work.input("model"), adapter, Opening(threads=work.threads, log=work.log))))
    return _last[0][1]
