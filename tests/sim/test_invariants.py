"""The referee itself: what it must not let pass. (`test_bugs.py` shows the same from the outside.)"""

from __future__ import annotations

import msgspec
import pytest
from tests.sim.worlds import HONEST, batch, play

from fallow.rules import trust
from fallow.rules.steward.events import JobEnded
from fallow.sim.invariants import Referee
from fallow.sim.people import digest
from fallow.sim.pool import Pool
from fallow.sim.world import Violation, World
from fallow.wire.documents import ClaimRoot, Lease, Voucher

ANN, JOB, LEASE = b"a" * 20, digest("job"), digest("lease")


def terms(cap_ucr: int = 100) -> Lease:
    word, account = bytes(32), bytes(20)
    return Lease(word, word, account, ANN, word, word, "echo", 1_000, cap_ucr, 0, 0, 1, account)


def referee() -> Referee:
    found = Referee(World(1))
    found.proposing(JOB, LEASE, terms())
    found.policies[JOB] = trust.DEFAULT
    return found


def test_two_roots_with_one_number() -> None:
    one = referee()
    one.signing(ANN, ClaimRoot(LEASE, 1, digest(1), 1, 1))
    one.signing(ANN, ClaimRoot(LEASE, 1, digest(1), 1, 1))
    with pytest.raises(Violation, match="two roots"):
        one.signing(ANN, ClaimRoot(LEASE, 1, digest(2), 1, 1))
    one.cheats.add(ANN)
    one.signing(ANN, ClaimRoot(LEASE, 1, digest(3), 1, 1))


def test_a_voucher_for_nothing() -> None:
    with pytest.raises(Violation, match="a voucher over 5"):
        referee().signing(bytes(20), Voucher(LEASE, 5))


def test_one_task_claimed_twice() -> None:
    one = referee()
    one.claiming(ANN, digest("task"), ClaimRoot(LEASE, 1, digest(1), 1, 1))
    one.claiming(ANN, digest("task"), ClaimRoot(LEASE, 1, digest(1), 1, 1))
    with pytest.raises(Violation, match="claimed one task twice"):
        one.claiming(ANN, digest("task"), ClaimRoot(LEASE, 2, digest(1), 1, 1))


def test_a_job_that_ends_twice() -> None:
    one = referee()
    one.records([JobEnded(JOB, "", "", ()), JobEnded(JOB, "", "", ())])
    with pytest.raises(Violation, match="ended twice"):
        one.records([JobEnded(JOB, "E1402", "", ())])


def finished() -> Pool:
    return play(batch()).pool


def test_receipts_that_do_not_hold() -> None:
    pool = finished()
    one = pool.referee
    key, good = next((k, r) for k, r in one.receipts.items() if r.check == "checked")
    assert good.output is not None
    one.records([good])
    with pytest.raises(Violation, match="contradict"):
        one.records([msgspec.structs.replace(good, paid_ucr=good.paid_ucr + 1)])
    wrong = msgspec.structs.replace(good.output, value=b"wrong")
    for changes, words in (
        ({"agreeing": ()}, "1 of 2 voices"),
        ({"output": wrong}, "a wrong result"),
        ({"units": good.units + 1}, "more units"),
        ({"check": "none"}, "without a check"),
    ):
        del one.receipts[key]
        one.paid_tasks.clear()
        with pytest.raises(Violation, match=words):
            one.records([msgspec.structs.replace(good, **changes)])
        one.receipts[key] = good
    one.paid_tasks.clear()
    one.records([msgspec.structs.replace(good, claim_hash=digest("another"))])
    with pytest.raises(Violation, match="final twice"):
        one.records([msgspec.structs.replace(good, claim_hash=digest("a third"))])


def test_an_honest_provider_that_is_paid_less_than_its_receipts_say() -> None:
    pool = finished()
    key, good = next(iter(pool.referee.receipts.items()))
    pool.referee.settled()
    pool.referee.receipts[key] = msgspec.structs.replace(good, paid_ucr=good.paid_ucr + 1)
    with pytest.raises(Violation, match="was paid"):
        pool.referee.settled()


def test_money_from_nowhere() -> None:
    pool = finished()
    pool.referee.minted_ucr += 1
    pool.bank.ledger.journal.append(pool.bank.ledger.journal[0])
    with pytest.raises(Violation, match="minted"):
        pool.referee.books()


def test_an_honest_provider_that_is_banned() -> None:
    pool = finished()
    state = pool.steward.state
    state.standings[next(iter(state.standings))] = trust.Standing(1, banned=True)
    with pytest.raises(Violation, match="honest p"):
        pool.referee.steward_turn(state, [])


def test_a_replay_that_differs() -> None:
    pool = finished()
    other = msgspec.structs.replace(pool.steward.state, now_ms=0)
    pool.referee.replayed(pool.steward.state, pool.steward.state)
    with pytest.raises(Violation, match="another state"):
        pool.referee.replayed(pool.steward.state, other)


def test_it_only_watches() -> None:
    """A world without cheats gives everybody's names to nobody."""
    pool = finished()
    assert {pool.referee.name(p.person.account) for p in pool.providers} == {p.name for p in HONEST}
    assert pool.referee.name(b"\xab" * 20) == "abababab"
