"""The socket: names are known or refused by name."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rules.steward.crowd import Crowd, batch_spec, honest_crowd

from fallow.rules.steward import events as t
from fallow.rules.steward.check import Check, PolicyError, check_of, parse
from fallow.rules.steward.checks.registry import CHECKS
from fallow.rules.steward.snapshot import read_snapshot, write_snapshot


@pytest.mark.parametrize("text", ["", "audit:", "none:", "zk", "zk:proof=1", "Audit", "audit;rate=1", "x" * 500])
def test_what_nobody_registered_is_refused_by_name(text: str) -> None:
    found = parse(text)
    assert isinstance(found, PolicyError)
    assert text[:40] in found.what
    assert all(name in found.what for name in CHECKS)
    assert len(found.what) < 200


@given(st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    for name in ("", *CHECKS):
        assert isinstance(parse(f"{name}:{text}"), (Check, PolicyError))


def test_a_job_whose_check_is_unknown_ends_before_anything_is_spent() -> None:
    crowd = Crowd(honest_crowd(2))
    job = crowd.submit(msgspec.structs.replace(batch_spec(), verify="zk:proof=1"))
    crowd.run()
    ended = crowd.outcome(job)
    assert (ended.code, "zk" in ended.what) == ("E2001", True)
    assert not crowd.of(t.FindOffers)
    assert check_of(crowd.state.jobs[job]).name == ""


def test_the_check_of_a_job_is_read_once_and_no_part_of_what_is_remembered() -> None:
    crowd = Crowd(honest_crowd(3))
    job = crowd.submit(batch_spec(verify="audit:quorum=3"))
    crowd.run()
    check = check_of(crowd.state.jobs[job])
    assert check_of(crowd.state.jobs[job]) is check
    state = read_snapshot(write_snapshot(crowd.state, 1)).state
    assert state == crowd.state
    again = check_of(state.jobs[job])
    assert again is not check
    assert again.least_seats() == check.least_seats() == 4
