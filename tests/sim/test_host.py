"""Lives and deaths of one machine."""

from __future__ import annotations

import pytest
from tests.sim.worlds import HONEST, batch

from fallow.sim.loop import VirtualLoop, play
from fallow.sim.plan import Plan
from fallow.sim.town import Town


def watch(script: str) -> Town:
    """A world in which the provider p0 dies as told, in the middle of a job."""
    towns: list[Town] = []

    async def main(loop: VirtualLoop) -> None:
        towns.append(town := Town(loop, 1, Plan(HONEST, (batch(),), calm_ms=12_000)))
        host = town.hosts["p0"]
        loop.call_later(1.3, host.doom, 1, 0.5) if script == "doom" else loop.call_later(1.3, host.kill, 0.5)
        await town.run()

    play(main)
    towns[0].close()
    return towns[0]


@pytest.mark.parametrize("script", ["doom", "kill"])
def test_a_machine_dies_and_starts_again_over_its_disk(script: str) -> None:
    town = watch(script)
    host = town.hosts["p0"]
    assert host.deaths == 1
    assert host.up
    said = [line.split(" ", 1)[1].strip() for line in (line.strip() for line in town.lines) if " p0 " in line]
    assert said == ["p0 starts", "p0 is up", "p0 dies", "p0 starts", "p0 is up"]
    assert host.services.home.name == "p0-1"


def test_keys_follow_from_names() -> None:
    one, other = watch("kill"), watch("kill")
    for name in one.hosts:
        assert one.hosts[name].identity.node == other.hosts[name].identity.node
    assert len({host.identity.node for host in one.hosts.values()}) == len(one.hosts)
