"""Doing a receipt's work again, in real worker processes: from folders of the owner's, from a node, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from tests.sdk.fake_node import FakeNode, running
from tests.workloads.tiny import RECIPE, TEXT, make_model

from fallow.adapters import hardware
from fallow.adapters.clock import SystemClock
from fallow.adapters.machine import ThisMachine
from fallow.adapters.runners.process import ProcessRunner
from fallow.errors import FallowError, fail
from fallow.kinds.generate.tasks import Generate, GenerateValue
from fallow.kinds.replay import Piece, ReplayPlan, Report
from fallow.kinds.spin import MAX_SPINS
from fallow.kinds.train.tasks import TrainFinish
from fallow.node.folders import tree_id
from fallow.node.replay import Done, Given, OnStep, ReplayBench, _limits, threads_for
from fallow.sdk.client import AsyncFallow
from fallow.units import GIB
from fallow.wire import codec, local
from fallow.wire.blob_id import blob_id_of
from fallow.wire.messages import EXACT
from fallow.wire.tasks import Part, TaskOutput, TaskSpec

HERE = hardware.numerics(1)
"""So that tests of the plumbing need no self-test."""
MACHINE = ThisMachine(SystemClock())
SPUN = TaskOutput(b"", ())


def quiet(_done: int, _total: int, _note: str) -> None:
    """Nobody looks."""


async def replay(client: AsyncFallow, receipt: bytes, plan: ReplayPlan, given: Given, tell: OnStep) -> Done:
    """Of one receipt; a task may fail without breaking the bench."""
    failure = None
    async with ReplayBench(client, ProcessRunner(), MACHINE) as bench:
        try:
            return await bench.replay(receipt, plan, given, tell)
        except FallowError as error:
            failure = error
    raise failure


def planned(task: TaskSpec, expected: TaskOutput = SPUN, numerics: str = HERE, **changes: bool) -> ReplayPlan:
    return ReplayPlan((Piece(task, expected),), numerics, 1, Report("", (), "", {}))._replace(**changes)


def task(kind: str, params: bytes, *inputs: Part, ram_bytes: int = 0) -> TaskSpec:
    return TaskSpec(kind, params, inputs, 3, 1, 60, ram_bytes)


async def code_of(home: Path, plan: ReplayPlan, given: Given | None = None) -> FallowError:
    with pytest.raises(FallowError) as refused:
        await replay(AsyncFallow(home), b"", plan, given or Given({}), quiet)
    left = [path.name for path in (home / "replay").glob("*")] if (home / "replay").is_dir() else []
    assert left == [], "nothing is left behind"
    return refused.value


@contextmanager
def node_with(home: Path, files: dict[str, Path]) -> Iterator[FakeNode]:
    """A node that has these parts, or with no files none at all."""
    with running(home) as node:

        def laid(request: local.LayOut) -> local.LaidOut:
            return local.LaidOut(request.parts, tuple(str(files.get(part.name, "")) for part in request.parts))

        node.router.on(local.LayOut)(node._plain(laid))
        yield node


async def test_what_agrees_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    plan = planned(task("echo", b"hi"), TaskOutput(b"hi", ()))
    done = await replay(AsyncFallow(tmp_path / "home"), b"", plan, Given({}), quiet)
    assert (done.differences, done.kept) == ((), None)
    assert not list((tmp_path / "home" / "replay").iterdir())


async def test_what_differs_keeps_what_it_started_from(tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "in.txt"
    file.write_text("input")
    plan = planned(task("echo", b"hi", Part("text", blob_id_of(b"input"), 5)), TaskOutput(b"ho", ()))
    with node_with(home, {"text": file}) as node:
        done = await replay(AsyncFallow(home), b"receipt", plan, Given({}), quiet)
        assert [request.receipt for request in node.requests(local.LayOut)] == [b"receipt"]
    assert [row.where for row in done.differences] == ["the value"]
    assert done.kept is not None
    assert done.kept.is_dir()
    assert done.kept.parent == home / "replay"
    assert [part.name for part in done.inputs] == ["text"]


async def test_many_parts_are_asked_for_a_few_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("x")
    parts = [Part(f"update/{n}", blob_id_of(b"x"), 1) for n in range(40)]
    with node_with(tmp_path / "home", {part.name: file for part in parts}) as node:
        plan = planned(task("echo", b"hi", *parts), TaskOutput(b"hi", ()))
        assert not (await replay(AsyncFallow(tmp_path / "home"), b"", plan, Given({}), quiet)).differences
        asked = node.requests(local.LayOut)
    assert [len(request.parts) for request in asked] == [16, 16, 8]
    assert asked[-1].limit_bytes == asked[0].limit_bytes - 32


# what is not at hand --------------------------------------------------------------------------------------------------


async def test_without_a_node_it_says_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    parts = Part("model", b"m" * 32, 0), Part("s", b"s" * 32, 0)
    error = await code_of(tmp_path / "home", planned(task("echo", b"", *parts)))
    assert error.code == "E1602"
    assert "model (b_6d6d6d6d6d6d), s (b_737373737373)" in error.what
    assert error.next_step == "fallow up   # or give --model"


async def test_states_that_nobody_holds_any_more_are_named(tmp_path: Path) -> None:
    with node_with(tmp_path / "home", {}):
        parts = [Part(f"trace/theta/{n:07d}", bytes([n]) * 32, 9) for n in range(1, 9)]
        error = await code_of(tmp_path / "home", planned(task("echo", b"", *parts)))
    assert error.code == "E1602"
    assert "and 3 more" in error.what
    assert "provider" in error.next_step


async def test_a_folder_that_is_not_the_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("another model")
    plan = planned(task("echo", b"", Part("model", b"m" * 32, 0)))
    error = await code_of(tmp_path / "home", plan, Given({"model": tmp_path / "model.txt"}))
    assert error.code == "E2001"
    assert "is not the model of this receipt" in error.what


async def test_a_lane_without_its_model(tmp_path: Path) -> None:
    plan = planned(task("generate", b""), names_inputs=False)
    assert "model" in (await code_of(tmp_path / "home", plan)).what

    def stranger(_request: local.LayOut) -> local.LaidOut:
        raise fail("E2002", "The receipt belongs to another account.")

    with running(tmp_path / "home") as node:
        node.router.on(local.LayOut)(node._plain(stranger))
        error = await code_of(tmp_path / "home", plan)
    assert (error.code, error.cause) == ("E1602", "The receipt belongs to another account.")


# machines -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numerics", ["vax/t1", f"x{HERE}", "x/t0", ""])
async def test_another_class_of_machine_is_no_witness(tmp_path: Path, numerics: str) -> None:
    error = await code_of(tmp_path / "home", planned(task("echo", b""), numerics=numerics))
    assert error.code == "E1504"


def test_threads_follow_the_class(tmp_path: Path) -> None:
    assert threads_for(hardware.numerics(3), MACHINE, tmp_path) == 3


def test_a_machine_that_does_not_compute_exactly_accuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThisMachine, "exactness", lambda _self, _threads: "other results for exp")
    with pytest.raises(FallowError) as refused:
        threads_for(EXACT, MACHINE, tmp_path)
    assert (refused.value.code, refused.value.cause) == ("E1504", "It was tried: other results for exp.")
    monkeypatch.setattr(ThisMachine, "exactness", lambda _self, _threads: EXACT)
    assert threads_for(EXACT, MACHINE, tmp_path) >= 1


# receipts made to hurt ------------------------------------------------------------------------------------------------


async def test_foreign_programs_do_not_run(tmp_path: Path) -> None:
    assert (await code_of(tmp_path / "home", planned(task("shell", b"rm -rf")))).code == "E1707"


async def test_work_without_end_is_ended(tmp_path: Path) -> None:
    error = await code_of(tmp_path / "home", planned(task("spin", str(MAX_SPINS).encode())), Given({}, timeout_s=2))
    assert error.code == "E1704"
    assert "not done in 2 s" in error.what


def test_a_receipt_cannot_ask_for_more_memory_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claimed need of an exbibyte becomes what the machine has, less what it needs itself."""
    plan = planned(task("train", b"", ram_bytes=1 << 60))
    assert _limits(plan.pieces, 2, 0, 8 * GIB).ram_bytes == 7 * GIB


def test_an_answer_of_a_large_model_gets_room_for_it() -> None:
    answer = planned(task("generate", b"", ram_bytes=GIB))
    assert _limits(answer.pieces, 2, 0, 64 * GIB).ram_bytes == 2 * GIB
    assert _limits(answer.pieces, 2, 3 * GIB, 64 * GIB).ram_bytes == 13 * GIB
    assert _limits(planned(task("train", b"", ram_bytes=4 * GIB)).pieces, 2, 3 * GIB, 64 * GIB).ram_bytes == 4 * GIB


async def test_contents_that_make_no_sense_are_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "a.txt").write_text("no model")
    (tmp_path / "data.txt").write_text(TEXT)
    paths = {"model": tmp_path / "model", "data": tmp_path / "data.txt"}
    parts = [Part(name, tree_id(path), 0) for name, path in paths.items()]
    plan = planned(task("train", codec.encode(TrainFinish(RECIPE, ())), *parts))
    assert (await code_of(tmp_path / "home", plan, Given(paths))).code == "E1701"


# the real thing -------------------------------------------------------------------------------------------------------


async def test_a_finish_and_an_answer_from_folders_alone(tmp_path: Path) -> None:
    """No node: the model and the data are the owner's own. What agrees with itself differs from what was altered."""
    (tmp_path / "data.txt").write_text(TEXT)
    paths = {"model": make_model(tmp_path / "model"), "data": tmp_path / "data.txt"}
    parts = [Part(name, tree_id(path), 0) for name, path in paths.items()]
    recipe = msgspec.structs.replace(RECIPE, arithmetic="exact")
    finish = planned(task("train", codec.encode(TrainFinish(recipe, ())), *parts))
    answer = planned(task("generate", codec.encode(Generate((), "The old farmer", 4)), parts[0]))
    client, given = AsyncFallow(tmp_path / "home"), Given(paths)
    async with asyncio.timeout(300):
        found = await replay(client, b"", finish, given, quiet)
        files = {row.where: row.found for row in found.differences}
        assert "file adapter/adapter_model.safetensors" in files
        assert found.kept is not None
        value = (await replay(client, b"", answer, given, quiet)).differences[0].found
        said = codec.decode(GenerateValue, bytes.fromhex(value))
        assert len(said.logits) == 32
        claim = TaskOutput(codec.encode(said), ())
        agreed = await replay(client, b"", planned(answer.pieces[0].task, claim), given, quiet)
        assert agreed.differences == ()
        lie = TaskOutput(codec.encode(msgspec.structs.replace(said, logits=b"x" * 32)), ())
        caught = await replay(client, b"", planned(answer.pieces[0].task, lie), given, quiet)
        assert [row.where for row in caught.differences] == ["the answer's logits"]
