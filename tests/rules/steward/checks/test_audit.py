"""What audits cost and ask for; how they go is in the tests of their parts."""

from __future__ import annotations

import pytest
from tests.rules.steward.crowd import batch_spec, exact_spec

from fallow.rules.steward.checks.audit import Audit
from fallow.rules.steward.checks.registry import PolicyError, parse


def audit(text: str, *, in_links: bool = False) -> Audit:
    found = parse(text, in_links=in_links)
    assert isinstance(found, Audit)
    return found


@pytest.mark.parametrize(("text", "seats"), [("audit", 3), (" audit ", 3), ("audit:quorum=3", 4)])
def test_one_more_lease_than_agree_can_decide_a_dispute(text: str, seats: int) -> None:
    assert audit(text).least_seats() == seats


def test_more_checks_cost_more_and_links_cost_less() -> None:
    job, exact = batch_spec(100), exact_spec(rounds=50)
    assert audit("audit:rate=0").executions_ppm(job, 3) < audit("audit:rate=0.5").executions_ppm(job, 3)
    links, whole = audit("audit", in_links=True), audit("audit:links=0", in_links=True)
    assert links.executions_ppm(exact, 3) < whole.executions_ppm(exact, 3)


def test_settings_that_it_does_not_have_are_refused() -> None:
    assert isinstance(parse("audit:luck=3"), PolicyError)
