from __future__ import annotations

import json

import pytest
from tests.sdk.fake_node import NOTES, fitting, job_view, lacking, offer

from fallow.cli import render
from fallow.wire.local import Estimate
from fallow.wire.messages import Shortfall


def test_a_job_as_data_has_stable_keys_and_no_bytes() -> None:
    data = render.job_data(job_view())
    assert list(data) == [
        "id", "kind", "name", "phase", "done", "total", "budget_ucr", "spent_ucr", "locked_ucr", "created_ms",
        "ended_ms", "failure_code", "failure", "served_name", "leases", "rounds",
    ]  # fmt: skip
    assert json.loads(json.dumps(data)) == data
    assert data["leases"][1]["slashed_ucr"] == 1_000_000


def test_a_job_as_text_shows_who_was_caught_and_what_was_paid() -> None:
    text = render.job_text(job_view(phase="failed", failure="because", failure_code="E1403"))
    assert "banned" in text
    assert "0.003 cr" in text
    assert "because (E1403)" in text
    assert "3.100000" in text


def test_no_jobs_say_what_to_try() -> None:
    assert "fallow run" in render.jobs_text(())


def test_offers_have_a_row_for_each_kind_of_work() -> None:
    rows = render.offers_text((offer(),)).splitlines()
    assert len(rows) == 3
    assert "train" in rows[1] and "0.0005 cr" in rows[1]
    assert "No offers" in render.offers_text(())


@pytest.mark.parametrize(
    ("shortfall", "text"),
    [
        (Shortfall("ram_bytes", 4 << 30, 1 << 30), "ram_bytes: wants 4.0 GiB, has 1.0 GiB"),
        (Shortfall("gpus", 2, 0), "gpus: wants 2, has 0"),
        (Shortfall("bank", 0, 0, "settles at another bank"), "bank: settles at another bank"),
        (Shortfall("owner", 0, 0), "owner"),
    ],
)
def test_shortfalls_say_by_how_much(shortfall: Shortfall, text: str) -> None:
    assert render.shortfall_text(shortfall.resource, shortfall.wanted, shortfall.have, shortfall.note) == text


def test_an_estimate_shows_those_that_fit_and_those_that_do_not() -> None:
    estimate = Estimate(1, 2, 3, (fitting(), lacking(Shortfall("gpus", 2, 0))))
    fits, lacks = render.estimate_text(estimate).splitlines()[1:]
    assert fits.endswith("fits")
    assert "gpus" in lacks
    assert [candidate["fits"] for candidate in render.estimate_data(estimate)["candidates"]] == [True, False]


def test_a_note_names_its_node() -> None:
    assert "[n_4444444444]" in render.note_text(NOTES[1])
    assert render.data_of(NOTES[0])["node"] == ""
