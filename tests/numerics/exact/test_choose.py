"""Choices: the same whatever sorts, ties to the lower index, samples that follow the distribution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fallow.numerics.exact import choose
from fallow.numerics.exact.softmax import softmax

INF, NAN = float("inf"), float("nan")
ROWS = st.lists(
    st.sampled_from([-INF, -3.0, -1.0, -0.0, 0.0, 1e-45, 1.0, 2.0, 3.5, 3e38, INF, NAN]), min_size=1, max_size=20
)


def ranked(row: list[float]) -> list[int]:
    values = [-INF if value != value else value for value in row]
    return sorted(range(len(row)), key=lambda i: (-values[i], i))


@given(ROWS)
def test_the_order_of_candidates(row: list[float]) -> None:
    x = torch.tensor(row)
    assert choose.top_k(x, len(row)).tolist() == ranked(row)
    assert choose.top_k(x, 3).tolist() == ranked(row)[:3]
    assert choose.argmax(x).item() == ranked(row)[0]


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=30), st.floats(0, 1))
def test_the_smallest_group_that_reaches_p(values: list[int], p: float) -> None:
    x = torch.tensor(values).float() / 4
    kept = choose.top_p(x, p)
    order = choose.top_k(x, len(values))
    count = int(kept.sum())
    assert kept[order[:count]].all()
    weight = softmax(x).double()[order].cumsum(0)
    assert count == 1 or weight[count - 2] < p + 1e-6
    assert weight[count - 1] >= p - 1e-6


def test_a_row_of_bad_numbers_still_has_a_choice() -> None:
    x = torch.tensor([[NAN, NAN], [-INF, -INF], [NAN, 1.0], [INF, INF]])
    assert choose.argmax(x).tolist() == [0, 0, 1, 0]
    assert choose.sample(x, 1.0, 1, 1, 0, k=2, p=0.5).tolist() == [0, 0, 1, 0]


def test_samples_depend_on_their_own_position_alone() -> None:
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(1))
    positions = torch.arange(10, 16)
    both = choose.sample(logits, 0.8, 5, 1, positions, k=40, p=0.9)
    alone = [choose.sample(logits[i], 0.8, 5, 1, int(positions[i]), k=40, p=0.9).item() for i in range(6)]
    assert both.tolist() == alone


def test_temperature_zero_is_the_argmax() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0]])
    assert choose.sample(logits, 0.0, 5, 1, 0).tolist() == [1]


def test_samples_follow_the_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    drawn = choose.sample(logits.expand(20_000, 4), 0.7, 9, 1, torch.arange(20_000))
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert (shares - (logits / 0.7).softmax(-1)).abs().max() < 0.012


def test_only_the_allowed_are_drawn() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0]).expand(500, 4)
    assert set(choose.sample(logits, 3.0, 9, 1, torch.arange(500), k=2).tolist()) == {1, 2}
    assert set(choose.sample(logits, 1.0, 9, 1, torch.arange(500), p=0.6).tolist()) == {2}


@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])
def test_top_p_is_the_same_however_many_are_put_in_order_first(spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 2000, generator=torch.Generator().manual_seed(4)) * spread
    x[1, 7] = 60.0
    for p in (0.0, 0.3, 0.9, 1.0):
        monkeypatch.setattr(choose, "LEADING", 2000)
        whole = choose.top_p(x, p)
        for leading in (1, 100, 1024):
            monkeypatch.setattr(choose, "LEADING", leading)
            assert torch.equal(choose.top_p(x, p), whole)
