from __future__ import annotations

import json

from tests.cli.terminal import Terminal
from tests.sdk.fake_node import JOB

from fallow.wire.local import WatchJob


def test_notes_for_people(terminal: Terminal) -> None:
    lines = terminal.fallow("logs", "notes").out.splitlines()
    assert len(lines) == 4
    assert "its answer was wrong" in lines[2]


def test_notes_for_programs_are_one_object_a_line(terminal: Terminal) -> None:
    said = terminal.fallow("logs", "notes", "--after", "2", "--json")
    assert [json.loads(line)["number"] for line in said.out.splitlines()] == [3, 4]


def test_only_follow_waits_for_more(terminal: Terminal) -> None:
    terminal.fallow("logs", "notes")
    terminal.fallow("logs", "-f", "notes")
    assert terminal.node.requests(WatchJob) == [WatchJob(JOB, 0, False), WatchJob(JOB, 0, True)]
