from __future__ import annotations

from tests.cli.terminal import Terminal
from tests.sdk.fake_node import JOB

from fallow.wire.local import CancelJob


def test_cancelling_says_where_the_money_is(terminal: Terminal) -> None:
    said = terminal.fallow("cancel", "notes")
    assert said.code == 0
    assert "cancelled" in said.out and "0.003 cr paid" in said.out
    assert terminal.node.requests(CancelJob) == [CancelJob(JOB)]


def test_an_unknown_job_is_not_cancelled(terminal: Terminal) -> None:
    assert terminal.fallow("cancel", "nothing").error_code == "E2002"
    assert not terminal.node.requests(CancelJob)
