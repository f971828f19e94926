from __future__ import annotations

import pytest

from fallow.sim.plan import draw
from fallow.sim.run import describe, everything, kept, main, replay_command, shrink, simulate


def test_a_world_says_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3", "--trace"]) == 0
    said = capsys.readouterr().out
    assert "seed 3:" in said
    assert "steward is up" in said
    assert main(["--seed", "3", "--count", "2"]) == 0
    assert "2 seeds, 0 failed" in capsys.readouterr().out


def test_a_failure_says_how_to_see_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "0", "--bug", "final-without-check", "--shrink"]) == 1
    said = capsys.readouterr().out
    again = said.split("Again: ")[1].strip().removesuffix(" --trace")
    assert main(again.split()[3:]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_failing_world_is_shrunk_to_what_it_needs() -> None:
    keep, found = shrink(0, "final-without-check")
    assert found.failure
    assert len(keep) < len(everything(draw(0)))
    assert all(not simulate(0, "final-without-check", kept(draw(0), keep - {one})).failure for one in keep)


def test_what_is_kept_is_counted_through() -> None:
    plan = next(plan for plan in map(draw, range(100)) if plan.happenings and plan.cheats)
    assert kept(plan, everything(plan)) == plan
    nothing = kept(plan, set())
    assert not nothing.happenings
    assert not nothing.cheats
    assert not nothing.jobs


def test_the_command_names_seed_bug_and_what_is_kept() -> None:
    assert replay_command(7) == "python -m fallow.sim.run --seed 7 --trace"
    assert replay_command(7, "x", {3, 1}) == "python -m fallow.sim.run --seed 7 --bug x --keep 1,3 --trace"
    assert "FAILED" not in describe(simulate(2))


@pytest.mark.parametrize("seed", [1373, 1468, 1583])
def test_a_machine_that_starts_while_the_bank_does_knows_its_pool(seed: int) -> None:
    assert not simulate(seed).failure
