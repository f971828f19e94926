from __future__ import annotations

import msgspec

from fallow.kinds.train.tasks import TrainFinish, TrainRound, TrainValue
from fallow.sim.chain import digest
from fallow.sim.work import honest_output, lane_value, wrong_output
from fallow.wire import codec
from fallow.wire.tasks import Part, Recipe, TaskSpec

ECHO = TaskSpec("echo", b"params", (), 3, 10, 60, 1)
ROUND = TrainRound(Recipe("lora"), 8, 0, 2, (), evaluate=True, checkpoint=True)


def train(params: TrainRound | TrainFinish) -> TaskSpec:
    return TaskSpec("train", codec.encode(params), (Part("data", digest("data"), 9),), 0, 40, 60, 1)


def test_work_follows_from_the_task_and_not_from_its_time_limit() -> None:
    assert honest_output(ECHO) == honest_output(msgspec.structs.replace(ECHO, timeout_s=61))
    assert honest_output(ECHO) != honest_output(msgspec.structs.replace(ECHO, seed=4))


def test_rounds_have_the_form_that_the_rules_want() -> None:
    output = honest_output(train(ROUND))
    assert [part.name for part in output.parts] == ["carry", "checkpoint", "update"]
    assert codec.decode(TrainValue, output.value).loss == "2.200000"
    finish = honest_output(train(TrainFinish(Recipe("lora"), ())))
    assert [part.name for part in finish.parts] == ["adapter/weights"]


def test_everybody_starts_a_round_from_the_same_state() -> None:
    shards = [honest_output(train(msgspec.structs.replace(ROUND, shard=shard))) for shard in (0, 1)]
    states = {codec.decode(TrainValue, output.value).state for output in shards}
    assert len(states) == 1
    assert shards[0].parts != shards[1].parts


def test_lies_have_the_right_form_and_agree_by_salt() -> None:
    for spec in (ECHO, train(ROUND)):
        lie = wrong_output(spec, "one")
        assert lie == wrong_output(spec, "one") != wrong_output(spec, "other")
        assert lie != honest_output(spec)
        assert [part.name for part in lie.parts] == [part.name for part in honest_output(spec).parts]


def test_lane_answers_follow_from_the_question() -> None:
    assert lane_value(b"x", 1) == lane_value(b"x", 1) != lane_value(b"x", 2)
