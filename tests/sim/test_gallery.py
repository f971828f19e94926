"""Two hundred small worlds with attackers of the gallery. A failure names its seed and how to see it again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from fallow.sim.cheats import GALLERY
from fallow.sim.gallery import ATTACKERS, cast_of, draw, gains, judge, main
from fallow.sim.run import simulate
from fallow.sim.strangers import STRANGERS
from fallow.wire.local import UNCHECKED

SEEDS, HALVES = 200, 2
OPEN = 135
"""A world in which the honest job is harmed: an input that is withheld counts against the task that needs it. Whoever
mends that finds that this world ends well, and takes it out of here and of the page."""
PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "threat-model.md"


@pytest.mark.slow
def test_nobody_gains_or_harms_in_any_world() -> None:
    """On two processors."""
    share = SEEDS // HALVES
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "fallow.sim.gallery", "--seed", str(share * half), "--count", str(share)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": str(half)},
        )
        for half in range(HALVES)
    ]  # fmt: skip
    told = [run.communicate()[0] for run in runs]
    failed = {int(seed) for text in told for seed in re.findall(r"seed (\d+): .*(?:\n  .*)*\nFAILED", text)}
    assert failed == {OPEN}, "\n\n".join(told)


@pytest.mark.parametrize("name", ["lazy", "accuse", "half-calls"])
def test_an_attacker_alone(name: str) -> None:
    outcome = simulate(0, plan=draw(0, name), judge=judge)
    assert not outcome.failure, outcome.failure
    assert cast_of(outcome.plan) == [name]
    assert gains(outcome.town)[name] <= 0


def test_every_way_and_every_stranger_is_in_the_gallery_and_drawn() -> None:
    assert {way for one in ATTACKERS.values() for way in one.ways} == set(GALLERY)
    assert {one.stranger for one in ATTACKERS.values()} - {""} == set(STRANGERS)
    assert {name for seed in range(SEEDS) for name in cast_of(draw(seed))} == set(ATTACKERS)


def test_a_lie_that_wins_is_seen() -> None:
    """Else the referee would be blind: nobody checks, and the liar is the cheapest."""
    plan = draw(2, "wrong")
    job = plan.jobs[0]
    unchecked = msgspec.structs.replace(job.spec, verify=UNCHECKED, workers=1)
    cheap = tuple(replace(one, price_ucr=100) if one.way == "wrong" else one for one in plan.providers)
    outcome = simulate(2, plan=replace(plan, providers=cheap, jobs=(replace(job, spec=unchecked),)), judge=judge)
    assert "wrong result" in outcome.failure
    assert "has won" in outcome.failure


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3", "--attacker", "quotes"]) == 0
    assert '"attacker": "quotes", "worlds": 1, "most_won_ucr": 0' in capsys.readouterr().out


def test_the_page_names_them_all() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*?) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert rows == [(name, one.tries) for name, one in ATTACKERS.items()]
