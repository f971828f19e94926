"""Inputs at which a workload stumbles: they end their own job, soon, and harm nobody else."""

from __future__ import annotations

import pytest
from tests.rules.steward.crowd import Crowd, batch_spec, honest_crowd

from fallow.rules.jobs import Blame, blame
from fallow.rules.steward import events as t

CODES = ("E1710", "E1707", "E1604", "E9001", "E1102")


@pytest.mark.parametrize("code", CODES)
def test_an_input_that_breaks_every_worker_ends_its_job(code: str) -> None:
    """A job whose every task fails wherever it is tried. Gained: a bounded number of attempts, none of which is paid;
    no provider is banned or charged for them. Cost: the job."""
    providers = honest_crowd(4)
    for provider in providers:
        provider.fails = code
    crowd = Crowd(providers)
    job = crowd.submit(batch_spec(3, workers=2))
    crowd.run()
    for _ in range(60):
        if crowd.state.jobs[job].ending is not None or crowd.of(t.JobEnded):
            break
        crowd.pass_time(60_000)
    crowd.run()
    assert crowd.of(t.JobEnded)
    assert crowd.outcome(job).code != ""
    assert not crowd.of(t.Charge)
    assert not any(crowd.state.standing(provider.account).banned for provider in providers)
    assert len(crowd.of(t.Assign)) < 60


def test_what_inputs_cause_is_the_works_fault() -> None:
    """An exception over inputs speaks against the work, where two agree; a bug of one machine's never does."""
    assert blame("E1710", retryable=False) is Blame.WORK
    assert blame("E9001", retryable=True) is Blame.PLACE
