from __future__ import annotations

from tests.sim.worlds import HONEST, batch, play

from fallow.rules.escrow.rows import Table


def test_made_up_evidence_takes_nobody_s_stake() -> None:
    world = play(batch(), accuses=True)
    assert world.code() == ""
    assert all(world.slashed_ucr(p.name) == 0 for p in HONEST)
    assert not [key for key in world.pool.bank.ledger.rows if key.table is Table.VERDICT]


def test_the_charges_did_reach_the_bank() -> None:
    before, after = play(batch()), play(batch(), accuses=True)
    assert after.pool.network.packets > before.pool.network.packets + 6
