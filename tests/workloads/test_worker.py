from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.workloads.tiny import RECIPE, TEXT, make_model, without_an_exact_form

from fallow.errors import FallowError, fail
from fallow.kinds.generate.tasks import Generate, GenerateValue
from fallow.kinds.train.tasks import TrainRound
from fallow.wire import codec
from fallow.wire.messages import LaneResult, LaneTask
from fallow.wire.tasks import TaskSpec
from fallow.wire.worker import (
    NO_TASK,
    DropTask,
    FromWorker,
    LaneAnswers,
    LaneBatch,
    LaneCancel,
    Preload,
    RunTask,
    WorkerDone,
    WorkerFailed,
    WorkerFrames,
    WorkerLog,
    WorkerProgress,
    WorkerReady,
    worker_frame,
)
from fallow.workloads.worker import attempt

ONE, TWO = b"1" * 32, b"2" * 32


class Provider:
    """The other end of a real worker process."""

    def __init__(self) -> None:
        self.link, theirs = socket.socketpair()
        self.link.settimeout(60)
        command = [sys.executable, "-m", "fallow.workloads.worker", "--fd", str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        self._frames = WorkerFrames("provider")
        self._heard: list[FromWorker] = []
        assert self.hear() == WorkerReady()

    def send(self, *messages: object) -> None:
        self.link.sendall(b"".join(worker_frame(message) for message in messages))  # type: ignore[arg-type]

    def hear(self) -> FromWorker:
        while not self._heard:
            self._heard += self._frames.feed(self.link.recv(1 << 20))  # type: ignore[arg-type]
        return self._heard.pop(0)

    def outcome(self) -> WorkerDone | WorkerFailed:
        while True:
            message = self.hear()
            if isinstance(message, WorkerDone | WorkerFailed):
                return message

    def close(self) -> int:
        self.link.close()
        return self.process.wait(timeout=20)


@pytest.fixture
def provider() -> Iterator[Provider]:
    found = Provider()
    yield found
    found.link.close()
    found.process.kill()
    found.process.wait()


def order(task_id: bytes, kind: str, params: bytes, folder: Path, **inputs: Path) -> RunTask:
    task = TaskSpec(kind, params, (), 5, 1, 60, 0)
    return RunTask(task_id, task, {name: str(path) for name, path in inputs.items()}, str(folder), 1)


def test_tasks_one_after_the_other(provider: Provider, tmp_path: Path) -> None:
    provider.send(order(ONE, "echo", b"hello", tmp_path))
    assert provider.hear() == WorkerProgress(ONE, 1, 1)
    done = provider.outcome()
    assert isinstance(done, WorkerDone)
    assert (done.task_id, done.value, done.files) == (ONE, b"hello", {})
    assert done.metrics["peak_ram_kib"] > 0
    provider.send(order(TWO, "nonsense", b"", tmp_path))
    failed = provider.outcome()
    assert isinstance(failed, WorkerFailed)
    assert (failed.task_id, failed.code, failed.retryable) == (TWO, "E1707", False)
    assert "'nonsense'" in failed.what


def test_busy_and_cancelled(provider: Provider, tmp_path: Path) -> None:
    provider.send(order(ONE, "spin", b"999999999999", tmp_path))
    assert isinstance(provider.hear(), WorkerProgress)
    provider.send(order(TWO, "echo", b"", tmp_path))
    busy = provider.outcome()
    assert (busy.task_id, getattr(busy, "code", "")) == (TWO, "E1803")
    provider.send(DropTask(TWO), DropTask(ONE))
    cancelled = provider.outcome()
    assert (cancelled.task_id, getattr(cancelled, "code", "")) == (ONE, "E1402")
    provider.send(order(TWO, "echo", b"", tmp_path))
    assert isinstance(provider.outcome(), WorkerDone)


def test_lanes_in_bulk(provider: Provider) -> None:
    provider.send(LaneBatch((LaneTask(1, b"early"),)))
    early = provider.hear()
    assert isinstance(early, LaneAnswers)
    assert isinstance(early.answers[0], LaneResult)
    assert early.answers[0].code == "E1707"
    provider.send(Preload("echo", {}, 1))
    ready = provider.hear()
    assert isinstance(ready, WorkerReady)
    assert ready.kind == "echo"
    provider.send(*[LaneBatch((LaneTask(number, b"x"),)) for number in range(1, 3001)], LaneCancel((1,)))
    numbers: list[int] = []
    frames = 0
    while len(numbers) < 3000:
        message = provider.hear()
        assert isinstance(message, LaneAnswers)
        numbers += [answer.number for answer in message.answers]
        frames += 1
    assert numbers == list(range(1, 3001))
    assert frames < 300


def test_a_preload_that_fails(provider: Provider, tmp_path: Path) -> None:
    provider.send(Preload("generate", {"model": str(tmp_path)}, 1))
    failed = provider.hear()
    assert isinstance(failed, WorkerFailed)
    assert (failed.task_id, failed.code, failed.retryable) == (NO_TASK, "E1701", False)


def test_training_and_generating_in_one_worker(provider: Provider, tmp_path: Path) -> None:
    model, data, out = make_model(tmp_path / "model"), tmp_path / "data.txt", tmp_path / "out"
    data.write_text(TEXT)
    out.mkdir()
    params = codec.encode(TrainRound(RECIPE, 0, 0, 1, (), evaluate=True, checkpoint=False))
    provider.send(order(ONE, "train", params, out, model=model, data=data))
    done = provider.outcome()
    assert isinstance(done, WorkerDone), done
    assert sorted(done.files) == ["carry", "update"]
    assert all(Path(path).parent == out for path in done.files.values())
    provider.send(Preload("generate", {"model": str(model)}, 1, 64, 2))
    ready = provider.hear()
    assert isinstance(ready, WorkerReady)
    assert ready.context_tokens == 64
    request = codec.encode(Generate((), "The old", 4))
    provider.send(LaneBatch(tuple(LaneTask(number, request, stream=True) for number in (1, 2))))
    values: dict[int, GenerateValue] = {}
    pieces: dict[int, str] = {1: "", 2: ""}
    while len(values) < 2:
        message = provider.hear()
        assert isinstance(message, LaneAnswers)
        for answer in message.answers:
            if isinstance(answer, LaneResult):
                assert answer.code == "", answer.what
                values[answer.number] = codec.decode(GenerateValue, answer.value)
            else:
                pieces[answer.number] += answer.data.decode()
    assert values[1] == values[2]
    assert len(values[1].logits) == 32
    assert pieces == {1: values[1].text, 2: values[2].text}


def test_a_model_without_an_exact_form_is_answered_in_fp32_and_said_to_be_unless_it_must_be_exact(
    provider: Provider, tmp_path: Path
) -> None:
    model = without_an_exact_form(tmp_path / "model")
    provider.send(Preload("generate", {"model": str(model)}, 1, 64, 2, exact=True))
    refused = provider.hear()
    assert isinstance(refused, WorkerFailed)
    assert (refused.task_id, refused.code, refused.retryable) == (NO_TASK, "E1709", False)
    provider.send(Preload("generate", {"model": str(model)}, 1, 64, 2))
    said = provider.hear()
    assert isinstance(said, WorkerLog)
    assert "gpt2" in said.text
    assert "fp32" in said.text
    assert isinstance(provider.hear(), WorkerReady)
    provider.send(LaneBatch((LaneTask(1, codec.encode(Generate((), "The old", 4))),)))
    answers = provider.hear()
    assert isinstance(answers, LaneAnswers)
    assert isinstance(answers.answers[0], LaneResult)
    assert codec.decode(GenerateValue, answers.answers[0].value).logits == b""


def test_it_ends_with_its_provider_whatever_it_does(provider: Provider, tmp_path: Path) -> None:
    provider.send(order(ONE, "spin", b"999999999999", tmp_path))
    assert isinstance(provider.hear(), WorkerProgress)
    assert provider.close() == 0


def test_ctrl_c_is_the_providers_business(provider: Provider, tmp_path: Path) -> None:
    os.kill(provider.process.pid, signal.SIGINT)
    provider.send(order(ONE, "echo", b"still here", tmp_path))
    assert isinstance(provider.outcome(), WorkerDone)


def test_nonsense_ends_it(provider: Provider) -> None:
    provider.link.sendall(b"\xff" * 8)
    assert provider.process.wait(timeout=20) == 2


def raising(error: BaseException) -> WorkerFailed:
    def act() -> None:
        raise error

    found = attempt(ONE, act)
    assert isinstance(found, WorkerFailed)
    return found


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (fail("E1701", "no model"), "E1701", False),
        (fail("E1705", "bad update"), "E1705", False),
        (fail("E1708", "no torch"), "E1708", True),
        (fail("E1603", "full"), "E1603", True),
        (MemoryError(), "E1704", True),
        (OSError(28, "No space left on device"), "E1603", True),
        (ZeroDivisionError("bug"), "E9001", True),
        (KeyError("weights of a stranger"), "E1710", False),
        (RuntimeError("shapes do not fit"), "E1710", False),
        (RecursionError(), "E1710", False),
        (FallowError("E9001", "bug"), "E9001", True),
    ],
)
def test_what_is_told_of_a_failure(error: BaseException, code: str, retryable: bool) -> None:
    found = raising(error)
    assert (found.code, found.retryable) == (code, retryable)
    assert "/" not in found.what
