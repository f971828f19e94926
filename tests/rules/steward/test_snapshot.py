"""A snapshot stands for the events before it, and jobs that are over leave."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.rules.steward.crowd import Crowd, Provider, batch_spec, exact_spec, honest_crowd, lane_spec, train_spec, word
from tests.rules.steward.test_machine_chaos import WAYS

from fallow.errors import FallowError
from fallow.rules.steward import events as t
from fallow.rules.steward.machine import State, transition, view
from fallow.rules.steward.snapshot import (
    FORM,
    Papers,
    Snapshot,
    read_snapshot,
    refuted_output,
    retire,
    write_snapshot,
)
from fallow.wire.codec import encode, recall
from fallow.wire.local import JobSpec

SPECS: dict[str, JobSpec] = {
    "batch": batch_spec(12), "train": train_spec(rounds=2), "exact": exact_spec(rounds=2), "lane": lane_spec(),
}  # fmt: skip
SAMPLE = Path(__file__).parent / "steward_snapshot_3.bin"
"""A snapshot as Fallow wrote it when this form was new: homes hold such."""


class Forgetful(Crowd):
    """Loses its memory before every event but for the snapshot."""

    def tell(self, event: t.StewardEvent) -> list[t.StewardEffect]:
        self.state = read_snapshot(write_snapshot(self.state, len(self.history))).state
        return super().tell(event)


def play(kind: type[Crowd], seed: int, ways: list[str], specs: list[str]) -> Crowd:
    r = random.Random(seed)
    ways_of: list[dict[str, Any]] = [WAYS[way](random.Random(seed + n)) for n, way in enumerate(ways)]
    providers = [Provider(f"p{n}", **way) for n, way in enumerate(ways_of)]
    crowd = kind(providers, shuffle=r)
    for name in specs:
        crowd.submit(SPECS[name], name)
    crowd.run()
    for _ in range(12):
        crowd.pass_time(60_000)
    for name in specs:
        crowd.tell(t.UserCancelled(crowd.now_ms, word(name)))
    crowd.run()
    crowd.pass_time(7_200_000)
    return crowd


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 10_000),
    st.lists(st.sampled_from(sorted(WAYS)), min_size=3, max_size=5),
    st.lists(st.sampled_from(sorted(SPECS)), min_size=1, max_size=3, unique=True),
)
def test_who_remembers_nothing_but_snapshots_decides_the_same(seed: int, ways: list[str], specs: list[str]) -> None:
    """Also the order of what it asks for is the same, which hangs on the order of its dicts."""
    whole, forgetful = play(Crowd, seed, ways, specs), play(Forgetful, seed, ways, specs)
    assert forgetful.history == whole.history
    assert forgetful.effects == whole.effects
    assert forgetful.state == whole.state


def test_a_check_that_nobody_needs_any_more_asks_for_no_states() -> None:
    """It once waited for a seat for ever: states were kept for it, let go since its claim was decided, kept again."""
    play(Crowd, 2790, ["withholder", "sometimes", "honest", "malformed"], ["batch", "lane", "exact"])


def test_a_check_whose_auditors_were_all_caught_is_over() -> None:
    ways = ["withholder", "failing", "withholder", "malformed", "honest"]
    play(Crowd, 9193, ways, ["lane", "exact", "train"])


def over(cheat: bool = False) -> tuple[Crowd, bytes, bytes]:
    """A crowd with a job that is over and one that is not."""
    crowd = Crowd(honest_crowd(3))
    if cheat:
        crowd.providers.append(Provider("liar", price=1, answer=lambda s, hn: msgspec.structs.replace(hn, value=b"no")))
    first = crowd.submit(batch_spec(verify="audit:rate=1"), "first")
    crowd.run()
    crowd.pass_time(7_200_000)
    second = crowd.submit(lane_spec(), "second")
    crowd.run()
    assert crowd.state.jobs[first].over
    return crowd, first, second


def test_a_job_that_is_over_leaves_with_its_view_and_its_leases() -> None:
    crowd, first, second = over()
    shown, leases = view(crowd.state, first), set(crowd.leases)
    ended_ms = crowd.state.jobs[first].ended_ms
    before = write_snapshot(crowd.state, 1)
    assert retire(crowd.state, ended_ms, {}) == []
    (gone,) = retire(crowd.state, ended_ms + 1, {})
    assert retire(crowd.state, 1 << 60, {}) == []
    assert gone.view == shown
    kept = set(gone.leases)
    assert kept
    assert kept | set(crowd.state.leases) == leases
    assert all(recall(Papers, encode(one)) == one and one.job == first for one in gone.leases.values())
    assert list(crowd.state.jobs) == [second]
    assert all(job == second for seats in crowd.state.accounts.values() for job, _ in seats)
    assert len(write_snapshot(crowd.state, 1)) < len(before)


def test_events_about_a_job_that_has_left_are_dropped() -> None:
    crowd, first, _ = over()
    history = list(crowd.history)
    retire(crowd.state, 1 << 60, {})
    fresh = write_snapshot(crowd.state, 1)
    for event in history:
        about = getattr(event, "job", b"") == first or getattr(event, "lease", b"") not in (b"", *crowd.state.leases)
        if about and not isinstance(event, t.UserSubmitted):
            assert transition(crowd.state, event) == []
    assert write_snapshot(crowd.state, 1) == fresh


def test_what_a_caught_provider_answered_stays_with_its_lease() -> None:
    crowd, first, _ = over(cheat=True)
    charges = {charge.lease: charge for charge in crowd.of(t.Charge)}
    assert charges
    expected = {lease: refuted_output(crowd.state.jobs[first], charge) for lease, charge in charges.items()}
    (gone,) = retire(crowd.state, 1 << 60, charges)
    assert {lease: one.refuted for lease, one in gone.leases.items() if one.refuted is not None} == expected
    assert {output.value for output in expected.values() if output is not None} == {b"no"}


def test_a_running_job_and_one_with_an_open_lease_stay() -> None:
    crowd = Crowd(honest_crowd(3), hold={t.EndLease})
    crowd.submit(batch_spec(verify="none"))
    crowd.submit(lane_spec(), "lane")
    crowd.run()
    assert retire(crowd.state, 1 << 60, {}) == []


def test_a_snapshot_of_today_can_still_be_read_tomorrow() -> None:
    found = read_snapshot(SAMPLE.read_bytes())
    assert found.number == 90
    assert {job.kind for job in found.state.jobs.values()} == {"echo", "train"}
    effects = transition(found.state, t.StewardStarted(2_000_000, found.state.identity, found.state.timing))
    assert isinstance(effects, list)
    assert read_snapshot(write_snapshot(found.state, 91)).state == found.state


def test_what_cannot_be_read_is_a_coded_error() -> None:
    newer = msgspec.msgpack.encode(Snapshot(FORM + 1, 5, State()))
    for raw in (b"", b"\xc1", newer, write_snapshot(State(), 5)[:-1]):
        with pytest.raises(FallowError) as error:
            read_snapshot(raw)
        assert error.value.code == "E1810"
