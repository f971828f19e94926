from __future__ import annotations

from pathlib import Path

import pytest

from fallow.errors import FallowError
from fallow.wire.tasks import Part, TaskSpec
from fallow.workloads.task import TaskRun


def test_inputs_by_name() -> None:
    task = TaskSpec("echo", b"", (Part("model", b"m" * 32, 1),), 0, 1, 1, 0)
    work = TaskRun(task, {"model": Path("/model")}, Path("/out"), 1, lambda *_: None, lambda _: None)
    assert work.input("model") == Path("/model")
    assert (work.content("model"), work.content("data")) == (b"m" * 32, b"")
    with pytest.raises(FallowError, match="without its input 'data'") as caught:
        work.input("data")
    assert caught.value.code == "E1707"
