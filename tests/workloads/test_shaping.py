"""Penalties, a bias and a form, as they change what a token is chosen from."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch

from fallow.errors import FallowError, fail
from fallow.kinds.generate.tasks import Generate
from fallow.workloads.engines import read_sampling
from fallow.workloads.shaping import Shaping

PLAIN = Generate((), "x", 9)
LOGITS = torch.tensor([0.5, -1.0, 2.0, 0.0, 1e-3])


class OnlyEven:
    """A form of even tokens, until 4."""

    complete = False

    def mask(self) -> Any:
        if self.complete:
            raise fail("E1904", "over")
        return torch.arange(5).remainder(2).eq(0).numpy()

    def take(self, token: int) -> bool:
        self.complete = token == 4
        return token % 2 == 0


def shaping(given: tuple[int, ...] = (), guide: Any = None, **asked: Any) -> Shaping:
    request = msgspec.structs.replace(PLAIN, **asked)
    return Shaping(request, read_sampling(request), guide, len(LOGITS), given)


def test_nothing_asked_changes_nothing() -> None:
    plain = shaping()
    plain.take(3)
    assert plain.shaped(LOGITS) is LOGITS
    assert not plain.complete


def test_tokens_that_were_said_are_less_likely() -> None:
    before = LOGITS.clone()
    one = shaping(frequency_penalty="0.3", presence_penalty="-0.1", given=(2, 2, 0))
    one.take(4)
    wanted = [0.5 - 0.2, -1.0, 2.0 - 0.5, 0.0, 1e-3 - 0.2]
    torch.testing.assert_close(one.shaped(LOGITS), torch.tensor(wanted))
    assert torch.equal(before, LOGITS)


def test_the_additions_are_those_of_the_specification() -> None:
    one = shaping(frequency_penalty="0.1", presence_penalty="0.2", bias=((2, 7), (1, -10_000)), given=(2, 2, 2))
    by = 7 / 100 - (0.1 * 3 + 0.2)
    assert one.shaped(LOGITS)[2] == torch.tensor(2.0 + by, dtype=torch.float64).float()
    assert one.shaped(LOGITS)[1] == -101.0


@pytest.mark.parametrize("bias", [((5, 1),), ((1, 1), (1, 2))])
def test_a_bias_of_no_token_or_twice_is_refused(bias: Any) -> None:
    with pytest.raises(FallowError) as caught:
        shaping(bias=bias)
    assert caught.value.code == "E1904"


def test_a_form_leaves_only_what_fits_and_its_mistakes_wait() -> None:
    one = shaping(guide=OnlyEven(), bias=((3, 10_000),))
    assert one.shaped(LOGITS).isneginf().tolist() == [False, True, False, True, False]
    one.take(4)
    one.check()
    assert one.complete
    assert not one.shaped(LOGITS).isneginf().any()
    with pytest.raises(FallowError):
        one.check()


def test_a_token_that_does_not_fit_is_told() -> None:
    one = shaping(guide=OnlyEven())
    one.take(3)
    with pytest.raises(FallowError) as caught:
        one.check()
    assert caught.value.code == "E1904"
