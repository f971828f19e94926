"""A few of the moments of `kill_any`; the script goes through as many as one likes."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.kill_any import PROVIDERS, prepare, survive

from fallow.cli.demo_net import Network

MOMENTS = (("steward", 1.5, 0.2), ("provider-1", 3.0, 0.5), ("bank", 0.5, 1.0))


async def test_whoever_is_killed_nothing_is_lost_or_paid_twice(tmp_path: Path) -> None:
    prepare(tmp_path)
    with Network(tmp_path / "net") as network:
        client = await network.found(PROVIDERS, cheats=0)
        for victim, after_s, down_s in MOMENTS:
            view = await survive(network, client, tmp_path, network.member(victim), after_s, down_s)
            assert sum(lease.paid_ucr for lease in view.leases) > 0, victim
