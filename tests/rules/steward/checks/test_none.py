"""What `none` promises: nothing."""

from __future__ import annotations

from tests.rules.steward.crowd import Crowd, Provider, batch_spec, lie

from fallow.rules.steward import events as t
from fallow.rules.steward.checks.none import UNASKED, Unchecked
from fallow.rules.steward.checks.registry import CHECKS, PolicyError, parse


def test_everything_is_paid_as_claimed_and_the_receipt_says_so() -> None:
    crowd = Crowd([Provider("liar", answer=lie())])
    job = crowd.submit(batch_spec(3, 1, verify=Unchecked.name))
    crowd.run()
    assert crowd.outcome(job).code == ""
    assert {(kept.check, kept.reason) for kept in crowd.of(t.KeepReceipt)} == {(UNASKED.check, UNASKED.reason)}
    assert not crowd.of(t.Draw)
    assert crowd.paid_to(crowd.providers[0]) == 30


def test_it_has_no_settings_and_costs_nothing() -> None:
    assert isinstance(parse("none:rate=1"), PolicyError)
    check = parse("none")
    assert check is CHECKS["none"]
    assert isinstance(check, Unchecked)
    assert (check.least_seats(), check.executions_ppm(batch_spec(), 3)) == (1, 1_000_000)
