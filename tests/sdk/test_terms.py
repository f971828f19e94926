from __future__ import annotations

import pytest
from tests.sdk.fake_node import fitting, lacking

from fallow.errors import FallowError
from fallow.sdk.terms import capped, spec_of
from fallow.units import MAX_UCR
from fallow.wire.local import BatchJob, Estimate, LaneJob
from fallow.wire.messages import Shortfall

WORK = BatchJob("echo", (b"a",), (), 1)
RAM, DEAR = Shortfall("ram_bytes", 4 << 30, 1 << 30), Shortfall("price_ucr", 100, 500, "asks more than the limit")


def code_of(error: pytest.ExceptionInfo[FallowError]) -> str:
    return error.value.code


def test_terms_become_a_spec_with_an_open_price() -> None:
    spec = spec_of(WORK, {"budget": "0.5", "workers": 3, "prefer": "speed", "timeout_s": 60})
    assert (spec.budget_ucr, spec.max_price_ucr, spec.workers, spec.prefer) == (500_000, MAX_UCR, 3, "speed")


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"budget": "-1"}, "E1002"),
        ({"budget": "1e3"}, "E1002"),
        ({"budget": "0.0000001"}, "E1002"),
        ({"budget": "1", "max_price": "much"}, "E1002"),
        ({"budget": "0"}, "E1401"),
        ({}, "E2001"),
        ({"budget": "1", "workers": 0}, "E2001"),
        ({"budget": "1", "workers": 1025}, "E2001"),
        ({"budget": "1", "timeout_s": -1}, "E2001"),
        ({"budget": "1", "name": "x" * 201}, "E2001"),
        ({"budget": "9999999999999"}, "E2001"),
    ],
)
def test_terms_out_of_range_are_refused(terms: dict[str, object], code: str) -> None:
    with pytest.raises(FallowError) as error:
        spec_of(WORK, terms)  # pyright: ignore[reportArgumentType]
    assert code_of(error) == code


def test_the_price_limit_is_what_the_dearest_fitting_provider_asks() -> None:
    estimate = Estimate(10, 1, 2, (fitting(300), fitting(700), lacking(RAM)))
    assert capped(spec_of(WORK, {"budget": "1"}), estimate).max_price_ucr == 700
    assert capped(spec_of(WORK, {"budget": "1", "max_price": "0.0005"}), estimate).max_price_ucr == 500


@pytest.mark.parametrize(
    ("estimate", "code"),
    [
        (Estimate(10, 0, 0, ()), "E1201"),
        (Estimate(10, 0, 0, (lacking(RAM),)), "E1202"),
        (Estimate(10, 0, 0, (lacking(RAM, DEAR),)), "E1202"),
        (Estimate(10, 0, 0, (lacking(RAM), lacking(DEAR))), "E1203"),
        (Estimate(10, 1_000_001, 2_000_000, (fitting(),)), "E1401"),
    ],
)
def test_a_market_that_cannot_take_the_job_says_why(estimate: Estimate, code: str) -> None:
    with pytest.raises(FallowError) as error:
        capped(spec_of(WORK, {"budget": "1", "max_price": "0.0001"}), estimate)
    assert code_of(error) == code
    assert error.value.money == "Nothing was spent."


def test_the_nearest_miss_is_named_with_its_figures() -> None:
    estimate = Estimate(10, 0, 0, (lacking(RAM, Shortfall("gpus", 1, 0)), lacking(Shortfall("gpus", 2, 1))))
    with pytest.raises(FallowError) as error:
        capped(spec_of(LaneJob("echo", 1), {"budget": "1"}), estimate)
    assert "gpus: wanted 2, has 1" in error.value.cause
