"""What every typed workload is given and gives back. A workload is a function
`run(work: TaskRun) -> TaskResult` that raises FallowError; everything else (processes, sockets, blobs) is somebody
else's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from fallow.errors import fail
from fallow.kinds.kind import Kind
from fallow.wire.tasks import TaskSpec


@dataclass(frozen=True)
class TaskRun:
    """One task to run: its spec, its inputs as files or folders by name, an empty folder for its output files, the
    number of CPU threads it may use, and two ways to be heard. `progress(done, total, note)` is called at every step
    and raises FallowError E1402 once the task is cancelled."""

    task: TaskSpec
    inputs: dict[str, Path]
    outdir: Path
    threads: int
    progress: Callable[[int, int, str], None]
    log: Callable[[str], None]

    def input(self, name: str) -> Path:
        """Where input `name` lies. Errors: E1707 when the task came without it."""
        if name not in self.inputs:
            raise fail("E1707", f"The task came without its input {name!r}.")
        return self.inputs[name]

    def content(self, name: str) -> bytes:
        """The hash of input `name`'s content, b"" when the task's spec does not name it."""
        return next((part.blob for part in self.task.inputs if part.name == name), b"")


@dataclass(frozen=True)
class TaskResult:
    """A finished task: its value, its output files by name of part, and figures that may differ between honest runs."""

    value: bytes
    files: dict[str, Path] = field(default_factory=dict[str, Path])
    metrics: dict[str, int] = field(default_factory=dict[str, int])


def program(kind: Kind, name: str) -> Any:
    """The function that `name` ("module:function") stands for, imported only now. Errors: E1708 when a package that it
    needs is not installed."""
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except ImportError as error:
        step = f"pip install 'fallow[{kind.extras[0].name}]'" if kind.extras else ""
        raise fail("E1708", f"{error.name} is not installed.", next_step=step) from error
