from __future__ import annotations

import queue
import threading

import pytest
from blake3 import blake3

from fallow.errors import FallowError, fail
from fallow.kinds.generate.tasks import Generate, GenerateValue
from fallow.wire.messages import LaneItem, LaneResult, LaneTask
from fallow.wire.worker import MAX_LANE_BATCH, LaneAnswers, Preload
from fallow.workloads import lane as lanes
from fallow.workloads.engines import Emit
from fallow.workloads.lane import StreamLane, open_lane


def test_echo_answers_one_read_together_and_in_order() -> None:
    told: list[LaneAnswers] = []
    lane = open_lane(Preload("echo", {}, 1), told.append, print)
    lane.take([LaneTask(1, b"a"), LaneTask(2, b"b")])
    lane.take([LaneTask(3, b"c")])
    assert told == []
    lane.settle()
    lane.settle()
    lane.cancel([1])
    assert told == [LaneAnswers((LaneResult(1, b"a", 1), LaneResult(2, b"b", 1), LaneResult(3, b"c", 1)))]


def test_large_answers_are_sent_in_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[LaneAnswers] = []
    lane = open_lane(Preload("echo", {}, 1), told.append, print)
    lane.take([LaneTask(number, b"") for number in range(MAX_LANE_BATCH + 1)])
    lane.settle()
    monkeypatch.setattr(lanes, "MAX_BATCH_BYTES", 10)
    lane.take([LaneTask(number, b"1234") for number in range(5)])
    lane.settle()
    assert [len(answers.answers) for answers in told] == [MAX_LANE_BATCH, 1, 3, 2]


def test_spin_and_its_refusals() -> None:
    told: list[LaneAnswers] = []
    lane = open_lane(Preload("spin", {}, 1), told.append, print)
    lane.take([LaneTask(1, b"1", seed=5), LaneTask(2, b"x")])
    lane.settle()
    first, second = told[0].answers
    assert first == LaneResult(1, blake3(blake3((5).to_bytes(8, "big")).digest()).digest(), 1)
    assert isinstance(second, LaneResult)
    assert (second.code, second.units, second.value) == ("E1707", 0, b"")


@pytest.mark.parametrize("order", [Preload("train", {}, 1), Preload("generate", {}, 1)])
def test_what_has_no_lane(order: Preload) -> None:
    with pytest.raises(FallowError) as caught:
        open_lane(order, lambda _: None, print)
    assert caught.value.code == "E1707"


class Stub:
    """An engine that says its parameters letter by letter, one for each time that `gate` lets it."""

    context_tokens = 9

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)

    def answer(self, request: Generate, seed: int, emit: Emit) -> GenerateValue:
        raise NotImplementedError

    def speak(self, _: object, params: bytes, seed: int, emit: Emit) -> tuple[bytes, int]:
        if params == b"bug":
            raise ZeroDivisionError("oops")
        for letter in params.decode():
            self.gate.acquire()
            if not emit(letter):
                raise fail("E1402", "The answer was cancelled.")
        return params.upper(), len(params)


def stream_lane(parallel: int) -> tuple[StreamLane, Stub, queue.SimpleQueue[LaneAnswers]]:
    stub, told = Stub(), queue.SimpleQueue[LaneAnswers]()
    return StreamLane(stub, stub.speak, parallel, told.put), stub, told


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is for pieces; by default each comes a second after the one before."""
    now, step = [0.0], [1.0]

    def passing() -> float:
        now[0] += step[0]
        return now[0]

    monkeypatch.setattr(lanes.time, "perf_counter", passing)
    return step


def hear(told: queue.SimpleQueue[LaneAnswers]) -> LaneItem | LaneResult:
    return told.get(timeout=10).answers[0]


def test_pieces_come_before_the_answer_and_only_when_asked_for() -> None:
    lane, stub, told = stream_lane(1)
    assert lane.context_tokens == 9
    stub.gate.release(4)
    lane.take([LaneTask(1, b"hi", stream=True), LaneTask(2, b"ho")])
    lane.settle()
    assert [hear(told) for _ in range(4)] == [
        LaneItem(1, b"h"), LaneItem(1, b"i"), LaneResult(1, b"HI", 2), LaneResult(2, b"HO", 2),
    ]  # fmt: skip


def test_pieces_that_come_fast_are_joined_but_for_the_first(clock: list[float]) -> None:
    clock[0] = lanes.GATHER_S * 0.4
    lane, stub, told = stream_lane(1)
    stub.gate.release(6)
    lane.take([LaneTask(1, b"abcdef", stream=True)])
    assert [told.get(timeout=10) for _ in range(3)] == [
        LaneAnswers((LaneItem(1, b"a"),)),
        LaneAnswers((LaneItem(1, b"bcd", 3),)),
        LaneAnswers((LaneItem(1, b"ef", 2), LaneResult(1, b"ABCDEF", 6))),
    ]


def test_streams_side_by_side_share_a_sending(clock: list[float]) -> None:
    clock[0] = lanes.GATHER_S * 0.4
    told: list[LaneAnswers] = []
    out = lanes._Out(told.append)
    for number, piece in [(1, "a"), (2, "b"), (1, "c"), (2, "d"), (1, "e"), (2, "f")]:
        out.piece(number, piece)
    out.result(LaneResult(1, b"ace", 3))
    out.result(LaneResult(2, b"bdf", 3))
    assert told == [
        LaneAnswers((LaneItem(1, b"a"),)),
        LaneAnswers((LaneItem(2, b"b"),)),
        LaneAnswers((LaneItem(1, b"ce", 2), LaneItem(2, b"d"))),
        LaneAnswers((LaneResult(1, b"ace", 3),)),
        LaneAnswers((LaneItem(2, b"f"), LaneResult(2, b"bdf", 3))),
    ]


def test_what_was_held_back_comes_before_a_failure_too(clock: list[float]) -> None:
    clock[0] = 0.0
    lane, stub, told = stream_lane(1)
    lane.take([LaneTask(1, b"abc", stream=True)])
    stub.gate.release()
    assert hear(told) == LaneItem(1, b"a")
    lane.cancel([1])
    stub.gate.release()
    item, result = told.get(timeout=10).answers
    assert item == LaneItem(1, b"b")
    assert isinstance(result, LaneResult)
    assert result.code == "E1402"


def test_cancelling_running_waiting_and_finished() -> None:
    lane, stub, told = stream_lane(1)
    lane.take([LaneTask(1, b"abc", stream=True), LaneTask(2, b"x"), LaneTask(3, b"y")])
    stub.gate.release()
    assert hear(told) == LaneItem(1, b"a")
    lane.cancel([1, 2, 99])
    stub.gate.release(2)
    results = [answer for answer in (hear(told) for _ in range(4)) if isinstance(answer, LaneResult)]
    assert [(result.number, result.code) for result in results] == [(1, "E1402"), (2, "E1402"), (3, "")]
    assert not lane._unwanted
    assert not lane._open


def test_a_bug_in_one_answer_ends_no_other() -> None:
    lane, stub, told = stream_lane(1)
    stub.gate.release(1)
    lane.take([LaneTask(1, b"bug"), LaneTask(2, b"x")])
    first, second = hear(told), hear(told)
    assert isinstance(first, LaneResult)
    assert (first.code, first.what) == ("E9001", "ZeroDivisionError: oops")
    assert second == LaneResult(2, b"X", 1)


def test_side_by_side() -> None:
    lane, stub, told = stream_lane(2)
    lane.take([LaneTask(1, b"a", stream=True), LaneTask(2, b"b", stream=True)])
    stub.gate.release(2)
    heard = [hear(told) for _ in range(4)]
    assert {answer.number for answer in heard} == {1, 2}
