"""Cheats give well-formed answers to less work, or false links of a chain, and check others honestly."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.contracts.test_runner import Desk
from tests.workloads.test_exact import FULL, LORA, Pool, _forget, a_round, base, false_links

from fallow.adapters.runners.process import ProcessRunner
from fallow.errors import FallowError
from fallow.kinds.generate.tasks import Generate
from fallow.kinds.train.tasks import TrainFinish, TrainParams, TrainRound
from fallow.ports import WorkerLimits
from fallow.sim.cheating_worker import cheat, false_chain, less_work
from fallow.wire.codec import decode, encode
from fallow.wire.messages import LaneTask
from fallow.wire.tasks import Recipe
from fallow.wire.worker import LaneBatch, Preload, WorkerDone, WorkerReady
from fallow.workloads import exact

__all__ = ["_forget", "base"]
ROUND = TrainRound(Recipe("lora", inner_steps=8), 0, 0, 2, (), False, False)


def test_trains_less_than_it_claims() -> None:
    found = decode(TrainParams, less_work("train", encode(ROUND)))
    assert isinstance(found, TrainRound)
    assert (found.recipe.inner_steps, found.shards) == (1, 2)


def test_finishing_is_done_in_full_since_everybody_sees_the_result() -> None:
    finish = encode(TrainFinish(Recipe("lora"), ()))
    assert less_work("train", finish) == finish


def test_a_lazy_worker_gives_exact_claims_the_right_form() -> None:
    in_steps = msgspec.structs.replace(ROUND, recipe=msgspec.structs.replace(ROUND.recipe, arithmetic="exact"))
    assert less_work("train", encode(in_steps)) == encode(in_steps)


def test_writes_one_token_only() -> None:
    found = decode(Generate, less_work("generate", encode(Generate((), "hello", 50))))
    assert (found.prompt, found.max_tokens) == ("hello", 1)


def test_other_kinds_are_not_done_at_all_and_nonsense_stays_nonsense() -> None:
    assert (less_work("echo", b"hello"), less_work("spin", b"1000")) == (b"", b"1")
    assert less_work("train", b"nonsense") == b"nonsense"


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(FallowError) as wrong:
        cheat("clever")
    assert wrong.value.code == "E1001"


@pytest.mark.parametrize(("way", "params"), [("lazy", b""), ("skip", b"hello")])
async def test_a_lazy_process_does_nothing_and_says_that_it_did(tmp_path: Path, way: str, params: bytes) -> None:
    desk = Desk(tmp_path)
    runner = ProcessRunner((sys.executable, "-m", "fallow.sim.cheating_worker", way))
    async with runner.open(tmp_path, WorkerLimits(), desk.on_messages, lambda _line: None) as desk.worker:
        await desk.hear(WorkerReady)
        desk.say(desk.order("echo", b"hello"), Preload("echo", {}, 1))
        assert (await desk.hear(WorkerDone)).value == params
        await desk.hear(WorkerReady)
        desk.say(LaneBatch((LaneTask(1, b"hello"), LaneTask(2, b"hello"))))
        assert [one.value for one in await asyncio.wait_for(desk.answers(2), 20)] == [params, params]


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has rounds computed by a cheat until it is undone: the checks after that are others'."""

    def lie(pool: Pool, spec: Any, way: str) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(exact, "run_chain", false_chain(way, exact.run_chain))
            return pool.run(spec)[0]

    return lie


@pytest.mark.parametrize(("way", "broken"), [("skip", [0, 1, 2]), ("flip", [0]), ("lazy", [0, 1, 2, 3, 4, 5])])
@pytest.mark.parametrize("recipe", [LORA, FULL], ids=["lora", "full"])
def test_a_cheat_breaks_just_the_links_that_it_falsified(
    base: dict[str, Path], tmp_path: Path, lying: Any, recipe: Recipe, way: str, broken: list[int]
) -> None:
    pool = Pool(base, tmp_path)
    spec = pool.spec(params := a_round(recipe))
    assert false_links(pool, spec, params, lying(pool, spec, way)) == broken


@pytest.mark.parametrize("batch", [1, 2])
def test_a_flip_is_found_however_the_batch_is_cut(
    base: dict[str, Path], tmp_path: Path, lying: Any, batch: int
) -> None:
    recipe = msgspec.structs.replace(LORA, batch_sequences=batch, inner_steps=2)
    pool = Pool(base, tmp_path)
    spec = pool.spec(params := a_round(recipe))
    assert false_links(pool, spec, params, lying(pool, spec, "flip")) == [0]
