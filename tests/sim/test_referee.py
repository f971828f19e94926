"""The referee notices. That it does so in whole worlds is shown by the planted bugs."""

from __future__ import annotations

import pytest
from tests.sim.worlds import batch, play

from fallow.sim.referee import Referee, Violation
from fallow.wire.documents import ClaimRoot
from fallow.wire.local import JobView

ME, LEASE = b"m" * 20, b"l" * 32


def root(digest: bytes) -> ClaimRoot:
    return ClaimRoot(LEASE, 1, digest, 1, 1)


def test_two_roots_with_one_number_are_an_equivocation() -> None:
    referee = Referee(lambda: 5, 1_000)
    referee.signing(ME, root(b"a" * 32))
    referee.signing(ME, root(b"a" * 32))
    referee.look()
    referee.signing(ME, root(b"b" * 32))
    with pytest.raises(Violation, match="at 5 ms: honest 6d6d6d6d signed two roots as number 1"):
        referee.look()


def test_who_cheats_may_do_so() -> None:
    referee = Referee(lambda: 5, 1_000)
    referee.cheats.add(ME)
    referee.signing(ME, root(b"a" * 32))
    referee.signing(ME, root(b"b" * 32))
    referee.look()


def test_a_job_that_shows_more_than_its_budget_is_wrong() -> None:
    referee = Referee(lambda: 5, 1_000)
    view = JobView(LEASE, "batch", "x", "running", 0, 1, 10, 6, 5, 0, 0, "", "", (), (), "")
    referee.jobs([view])
    with pytest.raises(Violation, match="6 spent and 5 locked on a budget of 10"):
        referee.look()


def test_the_books_of_a_world_that_went_well_are_noticed_when_they_are_changed() -> None:
    world = play(batch())
    referee = world.town.referee
    referee.settled()
    referee.look()
    gone = next(key for key, receipt in referee.receipts.items() if receipt.paid_ucr)
    del referee.receipts[gone]
    referee.settled()
    with pytest.raises(Violation, match="paid under a lease whose receipts say"):
        referee.look()
