from __future__ import annotations

import pytest

from fallow.sim.run import describe, main, replay_command, simulate


def test_the_command_says_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("seed 3: ")
    assert "FAILED" not in told


def test_a_failure_prints_how_to_see_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "0", "--count", "2", "--bug", "claim-counted-twice"]) == 1
    told = capsys.readouterr().out
    assert "FAILED: " in told
    assert f"Again: {replay_command(0, 'claim-counted-twice')}" in told
    assert "2 seeds, " in told


def test_the_replay_command_replays(capsys: pytest.CaptureFixture[str]) -> None:
    first = simulate(0, "claim-counted-twice")
    assert first.failure
    assert main(replay_command(0, "claim-counted-twice").split()[3:]) == 1
    told = capsys.readouterr().out
    assert first.failure in told
    assert describe(first) in told
    assert "steward StewardStarted" in told


def test_unknown_bugs_are_refused() -> None:
    with pytest.raises(SystemExit):
        main(["--bug", "no such thing"])
