from __future__ import annotations

from tests.sim.worlds import HONEST, batch, liar, play

from fallow.rules.escrow import EscrowRow
from fallow.sim.run import simulate


def test_a_provider_that_says_yes_and_never_closes_keeps_nobody_s_money() -> None:
    world = play(batch(12), providers=[*HONEST, liar("hostage")])
    rows = [r for r in world.pool.bank.ledger.rows.values() if isinstance(r, EscrowRow)]
    held = [row for row in rows if row.provider == world.account("cheat")]
    assert held
    assert all(row.closed_ms >= row.ends_ms for row in held), "closed by the requester, after the term"


def test_seed_44_a_lost_redeem_is_repeated_before_the_provider_may_close() -> None:
    """The voucher and the steward's own Redeem were lost; the provider was asked to close and closed unpaid."""
    assert not simulate(44).failure
    for seed in range(3):
        world = play(batch(8), seed=seed, loss=0.25)
        assert world.code() == ""


def test_a_negotiation_that_is_not_answered_is_a_no() -> None:
    world = play(batch(3), providers=[*HONEST, liar("vanish")])
    assert world.earned_ucr("cheat") == 0
    assert world.code() == ""
