from __future__ import annotations

from tests.cli.terminal import Terminal
from tests.sdk.fake_node import JOB


def test_the_list(terminal: Terminal) -> None:
    data = terminal.json("jobs")
    assert [job["phase"] for job in data["jobs"]] == ["done", "running"]
    text = terminal.fallow("jobs").out
    assert "notes" in text and "other" in text


def test_one_job(terminal: Terminal) -> None:
    assert terminal.json("jobs", "j_aaaa")["id"] == "j_" + JOB.hex()
    assert "banned" in terminal.fallow("jobs", "notes").out


def test_without_a_node(terminal: Terminal) -> None:
    terminal.home = terminal.home.parent / "elsewhere"
    said = terminal.fallow("jobs")
    assert (said.code, said.out, said.error_code) == (2, "", "E2004")
