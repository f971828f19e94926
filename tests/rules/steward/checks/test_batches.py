"""A lane's batch under audit (how whole jobs fare is in `shapes/test_lanes.py`)."""

from __future__ import annotations

from tests.rules.steward.crowd import Crowd
from tests.rules.steward.test_claims import batches

from fallow.rules.steward import events as t
from fallow.rules.steward.checks.batches import MAX_INDEXES, begin, check_last
from fallow.rules.steward.redo import outstanding
from fallow.rules.steward.state import Claim, Seat, Turn
from fallow.wire.ledger import Refusal


def drawn(seed: bytes | None = None) -> tuple[Crowd, Seat, Claim, Turn]:
    crowd, job, seat = batches(1)
    claim = next(iter(seat.claims.values()))
    claim.seed = seed if seed is not None else claim.hash
    turn = Turn(crowd.state)
    begin(turn, job, seat, claim)
    return crowd, seat, claim, turn


def test_a_new_accounts_batch_is_checked_and_asked_for_again_after_a_restart() -> None:
    crowd, seat, claim, turn = drawn(b"s" * 32)
    assert turn.effects == [claim.asked]
    assert isinstance(claim.asked, t.AuditLane)
    assert seat.lease not in claim.asked.auditors
    assert claim.asked in outstanding(crowd.state)


def test_a_batch_whose_draw_was_refused_is_checked_even_of_an_old_account() -> None:
    crowd, job, seat = batches(1)
    crowd.state.standings[seat.account] = crowd.state.standing(seat.account)._replace(passed=50)
    (claim,) = seat.claims.values()
    crowd.tell(t.LedgerRefusedDraw(crowd.now_ms, claim.hash, Refusal.NO_ESCROW))
    assert isinstance(claim.asked, t.AuditLane)
    assert len(claim.asked.indexes) <= MAX_INDEXES
    crowd.tell(t.LaneUnchecked(crowd.now_ms, seat.lease, claim.hash, "nobody"))
    assert (claim.asked, claim.provisional) == (None, True)
    check_last(Turn(crowd.state), job, seat, claim)
    assert isinstance(claim.asked, t.AuditLane)
