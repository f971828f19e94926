from __future__ import annotations

from tests.sdk.fake_node import fitting

from fallow.cli.spending import price_line
from fallow.sdk.terms import spec_of
from fallow.wire.local import BatchJob, Estimate, LaneJob


def test_the_price_of_finite_work() -> None:
    spec = spec_of(BatchJob("echo", (b"",), (), 1), {"budget": "1"})
    assert price_line(spec, Estimate(10, 5_000, 5_000, (fitting(),))) == (
        "1 of 1 providers fit, asking 0.0005 cr per 1,000 units.\n"
        "10 units: about 0.005 cr, checks included; never above 1.00 cr."
    )
    assert "0.005 cr to 0.006 cr" in price_line(spec, Estimate(10, 5_000, 6_000, (fitting(),)))


def test_long_work_says_how_long_and_unchecked_work_that_it_is() -> None:
    spec = spec_of(BatchJob("generate", (b"",), (), 1), {"budget": "1", "verify": "none"})
    said = price_line(spec, Estimate(1_000_000, 500_000, 500_000, (fitting(),)))
    assert "1,000,000 tokens: about 0.50 cr, unchecked" in said
    assert "At their speed that takes 8 min or more." in said
    assert said.endswith("Nothing is checked (verify none): all is paid as claimed.")


def test_the_price_of_work_without_an_end() -> None:
    spec = spec_of(LaneJob("echo", 1), {"budget": "1"})
    assert "until cancelled or 1.00 cr is spent" in price_line(spec, Estimate(0, 0, 0, (fitting(),)))
