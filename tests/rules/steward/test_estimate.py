"""What a job would cost, and who would take it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rules.test_market import BANK, BATCH, SERVE, offer

from fallow.rules.steward.estimate import MAX_CANDIDATES, estimate


def test_the_cheapest_fitting_come_first_and_the_rest_say_what_they_lack() -> None:
    offers = [offer(1, price=30), offer(2, price=10), offer(3, price=1, bank=b"x" * 20), offer(4, price=20)]
    found = estimate(msgspec.structs.replace(BATCH, verify="none"), BANK, offers, 2_000)
    assert [one.node[0] for one in found.candidates] == [2, 4, 1, 3]
    assert [len(one.shortfalls.shortfalls) for one in found.candidates] == [0, 0, 0, 1]
    assert found.candidates[-1].shortfalls.shortfalls[0].resource == "bank"
    assert (found.units, found.low_ucr, found.high_ucr) == (21, 1, 1)


def test_checks_cost_more_than_none() -> None:
    offers = [offer(node, price=1_000_000) for node in (1, 2, 3)]
    plain = estimate(msgspec.structs.replace(BATCH, verify="none"), BANK, offers, 2_000)
    checked = estimate(
        msgspec.structs.replace(BATCH, verify="audit:probation=2,rate=0.5,quorum=2"), BANK, offers, 2_000
    )
    assert plain.low_ucr < checked.low_ucr
    assert plain.units == checked.units


def test_checked_work_stays_on_one_class_of_machine() -> None:
    spec = msgspec.structs.replace(BATCH, work=msgspec.structs.replace(BATCH.work, workload="train"), verify="audit")  # pyright: ignore[reportArgumentType]
    offers = [offer(1), offer(2), offer(3, numerics="arm")]
    found = estimate(spec, BANK, offers, 2_000)
    assert [bool(one.shortfalls.shortfalls) for one in found.candidates] == [False, False, True]
    assert found.candidates[-1].node[0] == 3


@pytest.mark.parametrize("offers", [[], [offer(1, bank=b"x" * 20)]])
def test_with_nobody_who_fits_it_costs_nothing(offers: list[object]) -> None:
    found = estimate(BATCH, BANK, offers, 2_000)  # type: ignore[arg-type]
    assert (found.low_ucr, found.high_ucr, len(found.candidates)) == (0, 0, len(offers))


def test_a_service_has_no_end_to_be_priced() -> None:
    assert estimate(SERVE, BANK, [offer(1)], 2_000).units == 0


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 50)), max_size=30))
def test_low_is_never_above_high_and_candidates_are_bounded(rows: list[tuple[int, int]]) -> None:
    offers = [offer(node, price=price) for node, price in rows]
    found = estimate(BATCH, BANK, offers, 2_000)
    assert found.low_ucr <= found.high_ucr
    assert len(found.candidates) == len(offers)


def test_a_flood_of_offers_is_cut() -> None:
    assert len(estimate(BATCH, BANK, [offer(1)] * (MAX_CANDIDATES + 5), 2_000).candidates) == MAX_CANDIDATES


def test_a_job_under_way_keeps_to_its_class() -> None:
    spec = msgspec.structs.replace(BATCH, verify="audit")
    found = estimate(spec, BANK, [offer(1, numerics="x86"), offer(2, numerics="arm")], 2_000, "arm")
    assert [one.node[0] for one in found.candidates if not one.shortfalls.shortfalls] == [2]
