from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.errors import FallowError
from fallow.kinds.generate.tasks import ChatTurn, Generate
from fallow.workloads.engines import SamplingSettings, StopWatch, read_sampling, split_opening

USER = ChatTurn("user", "Hi")


@pytest.mark.parametrize(
    "request_",
    [
        Generate((), "", 5),
        Generate((USER,), "both", 5),
        Generate((), "x", 5, temperature="hot"),
        Generate((), "x", 5, temperature="-1"),
        Generate((), "x", 5, temperature="nan"),
        Generate((), "x", 5, top_p="1.1"),
        Generate((), "x", 5, stop=("",)),
        Generate((), "x", 5, stop=("s" * 5000,)),
        Generate((), "x", 5, frequency_penalty="2.5"),
        Generate((), "x", 5, presence_penalty="much"),
    ],
)
def test_settings_out_of_bounds(request_: Generate) -> None:
    with pytest.raises(FallowError) as caught:
        read_sampling(request_)
    assert caught.value.code == "E1904"


def test_settings_within_bounds() -> None:
    assert read_sampling(Generate((), "x", 5, "0.5", "0.9")) == SamplingSettings(0.5, 0.9)


def test_the_beginning_of_an_answer() -> None:
    assert split_opening(Generate((USER,), "", 5, resume="So ")) == ((USER,), "")
    turns = (USER, ChatTurn("assistant", "Well, "))
    assert split_opening(Generate(turns, "", 5, resume="so")) == ((USER,), "Well, ")


def test_stop_strings_across_pieces() -> None:
    watch = StopWatch(("END", "\n\n"))
    assert [watch.feed(piece) for piece in ("one E", "N", "O\n", "two", "\n", "\nrest")] == [
        "one ", "", "ENO", "\ntwo", "", "",
    ]  # fmt: skip
    assert watch.stopped
    assert watch.flush() == ""


@given(
    text=st.text(alphabet="ab", max_size=30),
    stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 30)),
)
def test_however_it_is_cut_the_answer_ends_before_the_first_stop(text: str, stops: list[str], cuts: list[int]) -> None:
    watch, said = StopWatch(tuple(stops)), ""
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for start, end in itertools.pairwise(edges):
        said += watch.feed(text[start:end])
    stopped = watch.stopped
    said += watch.flush()
    assert stopped == any(stop in text for stop in stops)
    assert text.startswith(said)
    assert not any(stop in said for stop in stops)
    if not stopped:
        assert said == text
    else:
        assert any(text[len(said) :].startswith(stop) for stop in stops)
