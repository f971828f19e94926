"""Cheats give well-formed answers to less work."""

from __future__ import annotations

import msgspec
import pytest

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import Generate
from fallow.kinds.train.tasks import TrainFinish, TrainParams, TrainRound
from fallow.node.cheats import less_work, shirk_of, shirked_lane, shirked_task, worker_cheat
from fallow.wire.codec import decode, encode
from fallow.wire.messages import LaneTask
from fallow.wire.tasks import Recipe, TaskSpec

ROUND = TrainRound(Recipe("lora", inner_steps=8), 0, 0, 2, (), False, False)


def test_trains_less_than_it_claims() -> None:
    found = decode(TrainParams, less_work("train", encode(ROUND)))
    assert isinstance(found, TrainRound)
    assert (found.recipe.inner_steps, found.shards) == (1, 2)


def test_finishing_is_done_in_full_since_everybody_sees_the_result() -> None:
    finish = encode(TrainFinish(Recipe("lora"), ()))
    assert less_work("train", finish) == finish


def test_writes_one_token_only() -> None:
    found = decode(Generate, less_work("generate", encode(Generate((), "hello", 50))))
    assert (found.prompt, found.max_tokens) == ("hello", 1)


def test_other_kinds_are_not_done_at_all_and_nonsense_stays_nonsense() -> None:
    assert (less_work("echo", b"hello"), less_work("spin", b"1000")) == (b"", b"1")
    assert less_work("train", b"nonsense") == b"nonsense"


def test_an_honest_provider_does_what_it_is_asked() -> None:
    spec, task = TaskSpec("echo", b"x", (), 0, 1, 1, 0), LaneTask(1, b"x")
    assert shirked_task(shirk_of(""), spec) is spec
    assert shirked_lane(None, "echo", task) is task
    assert shirked_task(shirk_of("lazy"), spec).params == b""
    assert shirked_lane(shirk_of("lazy"), "echo", task) == LaneTask(1, b"")


def test_an_unknown_cheat_is_a_wrong_setting() -> None:
    with pytest.raises(FallowError) as wrong:
        shirk_of("clever")
    assert wrong.value.code == "E1001"


def test_cheats_in_exact_training_live_in_the_worker() -> None:
    for name in ("skip", "flip"):
        assert shirk_of(name) is None
        assert worker_cheat(name) == name
    assert shirk_of("") is None
    assert worker_cheat("") == ""


def test_a_lazy_worker_gives_exact_claims_the_right_form() -> None:
    exact = msgspec.structs.replace(ROUND, recipe=msgspec.structs.replace(ROUND.recipe, arithmetic="exact"))
    assert less_work("train", encode(exact)) == encode(exact)
