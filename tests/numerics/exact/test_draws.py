"""Random numbers: published test vectors, any subset in any order, and the right distributions."""

from __future__ import annotations

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.numerics.exact.precision import bits, ulps

from fallow.numerics.exact import draws

SEED = 0x0123456789ABCDEF

# Random123, kat_vectors, "philox4x32 10": counter, key, output
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def numbers(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_published_vectors(counter: str, key: str, output: str) -> None:
    low, high = numbers(key)
    a, b, c, d = (torch.tensor([word]) for word in numbers(counter))
    assert [int(word) for word in draws.philox((a, b, c, d), high << 32 | low)] == numbers(output)


@given(st.lists(st.integers(0, 2**34 - 1), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_any_subset_in_any_order(indices: list[int], position: int) -> None:
    index = torch.tensor(indices)
    for draw in (draws.uniform, draws.gumbel64):
        alone = torch.stack([draw(SEED, 7, position, torch.tensor(one)) for one in indices])
        assert torch.equal(bits(draw(SEED, 7, position, index)), bits(alone))


def test_every_part_of_the_name_matters() -> None:
    index = torch.arange(8)
    base = draws.words(SEED, 1, 2, index)
    for other in ((SEED + 1, 1, 2), (SEED + 2**40, 1, 2), (SEED, 2, 2), (SEED, 1, 3)):
        assert not (draws.words(*other, index) == base).any()
    assert not (draws.words(SEED, 1, 2, index + 2**33) == base).any()


def test_positions_broadcast() -> None:
    index, positions = torch.arange(5), torch.tensor([4, 9])
    both = draws.uniform(SEED, 1, positions[:, None], index)
    assert torch.equal(both, torch.stack([draws.uniform(SEED, 1, at, index) for at in (4, 9)]))


def test_uniform_numbers_stay_inside_and_spread() -> None:
    u = draws.uniform(SEED, 1, 0, torch.arange(40_000))
    assert 0 < u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert abs(u.double().mean() - 0.5) < 0.005
    counts = torch.histc(u, 20, 0, 1)
    assert ((counts - 2000).abs() < 200).all()


def test_gumbel_has_its_moments() -> None:
    g = draws.gumbel64(SEED, 3, 0, torch.arange(40_000))
    assert abs(g.mean() - 0.5772) < 0.03
    assert abs(g.std() - 1.2825) < 0.03


def test_values_are_those_of_their_words() -> None:
    index = torch.arange(200)
    w = [(2 * word + 1) * mpmath.mpf(2) ** -33 for word in draws.words(SEED, 2, 0, index).tolist()]
    words = draws.words(SEED, 2, 0, index).tolist()
    assert draws.uniform(SEED, 2, 0, index).tolist() == [(2 * (word >> 9) + 1) * 2.0**-24 for word in words]
    for found, u in zip(draws.gumbel64(SEED, 2, 0, index).float().tolist(), w, strict=True):
        assert ulps(found, -mpmath.log(-mpmath.log(u))) < 0.501
