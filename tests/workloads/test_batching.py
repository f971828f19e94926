from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from tests.numerics.exact.small_llama import small_llama, some_tokens

from fallow.errors import FallowError
from fallow.numerics.exact.exactify import exactify
from fallow.numerics.exact.generation import GrowingText, Sampling, generate
from fallow.numerics.exact.llama import ExactLlama
from fallow.workloads import batching
from fallow.workloads.batching import Batch

DRAWN = Sampling(temperature=0.9, seed=7)
Take = Callable[[int], bool]


@pytest.fixture(scope="module")
def model() -> ExactLlama:
    return exactify(small_llama(), {})


def text(length: int) -> GrowingText:
    return GrowingText(some_tokens(1, length, length)[0].tolist(), DRAWN)


def until(count: int, then: Callable[[], None] = lambda: None) -> Take:
    """Wants so many tokens; `then` is called with the last."""
    heard: list[int] = []

    def take(token: int) -> bool:
        heard.append(token)
        if len(heard) == count:
            then()
        return len(heard) < count

    return take


def together(batch: Batch, texts: list[GrowingText], counts: list[int]) -> None:
    threads = [
        threading.Thread(target=batch.run, args=(one, 100, until(count), lambda: True))
        for one, count in zip(texts, counts, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize(("streams", "room"), [(8, 10_000), (2, 10_000), (8, 150), (1, 100)])
def test_no_company_changes_a_bit(model: ExactLlama, streams: int, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "PIECE_TOKENS", 16)
    monkeypatch.setattr(batching, "SHARED_PIECE_TOKENS", 5)
    lengths, counts = [3, 40, 1, 23, 64], [9, 3, 12, 1, 6]
    alone = [text(length) for length in lengths]
    for one, count in zip(alone, counts, strict=True):
        generate(model, [one], count, mark=True)
    texts = [text(length) for length in lengths]
    together(Batch(model, 1, streams, room), texts, counts)
    assert [one.tokens for one in texts] == [one.tokens for one in alone]
    assert [one.logits_hash() for one in texts] == [one.logits_hash() for one in alone]
    assert all(not one.caches for one in texts)  # nothing is kept of what is over


def test_a_newcomer_joins_those_in_flight_and_others_go_on_while_its_prompt_is_read(
    model: ExactLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "SHARED_PIECE_TOKENS", 4)
    companies: list[int] = []
    passes = batching.advance

    def watched(model: ExactLlama, texts: list[GrowingText], piece: int, *, mark: bool) -> None:
        companies.append(len(texts))
        passes(model, texts, piece, mark=mark)

    monkeypatch.setattr(batching, "advance", watched)
    batch, joined = Batch(model, 1, 8, 10_000), threading.Event()
    late = threading.Thread(target=batch.run, args=(text(40), 100, until(2, joined.set), lambda: True))

    def take(_: int) -> bool:
        if not late.ident:
            late.start()
        return not joined.is_set()

    batch.run(text(3), 5_000, take, lambda: True)
    late.join(60)
    assert companies.count(2) >= 11  # 40 tokens in pieces of 4, and a second token, each beside one of the other's


def test_a_text_waits_until_there_is_room_for_all_that_it_may_need(model: ExactLlama) -> None:
    batch, order = Batch(model, 1, 8, 100), list[str]()
    first = threading.Event()

    def take(_: int) -> bool:
        first.set()
        order.append("first")
        return len(order) < 5

    one = threading.Thread(target=batch.run, args=(text(3), 60, take, lambda: True))
    one.start()
    assert first.wait(60)
    batch.run(text(4), 60, until(1, lambda: order.append("second")), lambda: True)
    one.join(60)
    assert order == ["first"] * 5 + ["second"]


def test_one_that_fails_or_is_not_wanted_ends_alone(model: ExactLlama) -> None:
    batch, failures = Batch(model, 1, 8, 10_000), dict[str, Exception]()
    whole = text(9)

    def broken(_: int) -> bool:
        raise ZeroDivisionError("a bug in a stop string")

    def run(name: str, take: Take, wanted: Callable[[], bool]) -> None:
        try:
            batch.run(text(5), 100, take, wanted)
        except (ZeroDivisionError, FallowError) as error:
            failures[name] = error

    threads = [
        threading.Thread(target=run, args=("broken", broken, lambda: True)),
        threading.Thread(target=run, args=("unwanted", until(1), lambda: False)),
    ]
    for thread in threads:
        thread.start()
    batch.run(whole, 100, until(6), lambda: True)
    for thread in threads:
        thread.join(60)
    assert whole.made == 6
    assert isinstance(failures["broken"], ZeroDivisionError)
    assert isinstance(failures["unwanted"], FallowError)
    assert failures["unwanted"].code == "E1402"


def test_a_pass_that_fails_is_told_to_all_in_it_and_the_next_one_works(
    model: ExactLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch(model, 1, 8, 10_000)

    def out_of_memory(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(batching, "advance", out_of_memory)
        with pytest.raises(MemoryError):
            batch.run(text(5), 100, until(3), lambda: True)
    batch.run(again := text(5), 100, until(3), lambda: True)
    assert again.made == 3
