"""What is asked for again after a restart."""

from __future__ import annotations

from tests.rules.steward.crowd import Crowd, batch_spec, honest_crowd, lane_spec, lie, train_spec

from fallow.rules.steward import events as t
from fallow.rules.steward.redo import outstanding


def kinds(crowd: Crowd) -> list[str]:
    return [type(effect).__name__ for effect in outstanding(crowd.state)]


def test_every_stage_of_a_negotiation_is_asked_for_again() -> None:
    crowd = Crowd(honest_crowd(1))
    crowd.submit(batch_spec(1, 1, verify="none"))
    assert kinds(crowd) == ["FindOffers"]
    seen: list[list[str]] = []
    while crowd.queue:
        crowd.tell(crowd.queue.pop(0))
        seen.append(kinds(crowd))
    assert seen == [
        ["AskQuote"],
        ["ProposeLease"],
        ["FundEscrow"],
        ["Watch", "Assign"],
        ["Watch", "EndLease"],
        ["Watch", "EndLease"],
        [],
    ]


def test_what_is_asked_again_is_what_was_asked() -> None:
    """Word for word, so that peers and bank know it for the same."""
    crowd = Crowd(honest_crowd(3))
    crowd.submit(train_spec(rounds=2))
    while crowd.queue:
        for effect in outstanding(crowd.state):
            if not isinstance(effect, (t.Watch, t.EndLease)):
                assert effect in crowd.effects
        crowd.tell(crowd.queue.pop(0))
    assert crowd.of(t.JobEnded)


def test_draws_blobs_and_carries() -> None:
    crowd = Crowd(honest_crowd(3), hold={t.Draw, t.KeepBlob})
    crowd.submit(train_spec(rounds=2, verify="audit:rate=1"))
    crowd.run()
    assert {"Draw", "KeepBlob", "Watch"} == set(kinds(crowd))
    again = [effect for effect in outstanding(crowd.state) if isinstance(effect, t.KeepBlob)]
    assert again == crowd.of(t.KeepBlob)
    crowd.hold = set()
    for effect in outstanding(crowd.state):
        if isinstance(effect, t.Draw):
            crowd.do(effect)
    for effect in again:
        crowd.do(effect)
    real = crowd.do
    crowd.do = lambda effect: None if is_carry(effect) else real(effect)  # pyright: ignore[reportAttributeAccessIssue]
    crowd.run()
    carries = [effect for effect in outstanding(crowd.state) if is_carry(effect)]
    assert carries
    assert all(effect in crowd.effects for effect in carries)


def is_carry(effect: t.StewardEffect) -> bool:
    return isinstance(effect, t.KeepBlob) and effect.part.name == "carry"


def test_vouchers_until_they_are_taken_and_charges_until_they_are_judged() -> None:
    crowd = Crowd(honest_crowd(3), hold={t.Pay})
    crowd.submit(batch_spec(30, 3, verify="none"))
    crowd.run(until=lambda: bool(crowd.of(t.Pay)))
    pays = [effect for effect in outstanding(crowd.state) if isinstance(effect, t.Pay)]
    assert pays == crowd.of(t.Pay)
    crowd.tell(t.PeerTookVoucher(crowd.now_ms, pays[0].lease, 1 << 60))
    assert not any(isinstance(effect, t.Pay) for effect in outstanding(crowd.state))

    liar = honest_crowd(1, answer=lie(), price=900)[0]
    liar.name = "liar"
    crowd = Crowd([liar, *honest_crowd(3)], hold={t.Charge})
    crowd.submit(batch_spec(12, 4))
    crowd.run()
    (charge,) = crowd.of(t.Charge)
    assert charge in outstanding(crowd.state)
    assert crowd.escrow[charge.lease] == "open"
    crowd.hold.clear()
    crowd.do(charge)
    crowd.run()
    assert crowd.escrow[charge.lease] == "closed"


def test_lane_work() -> None:
    crowd = Crowd(honest_crowd(3), hold={t.Draw, t.AuditLane})
    crowd.submit(lane_spec())
    crowd.run()
    lease = next(iter(crowd.leases))
    claim = crowd.lane_claim(lease, 1, 1, 10, 10)
    crowd.tell(claim)
    assert t.Draw(lease, claim.claim_hash, claim.claim) in outstanding(crowd.state)
    crowd.tell(t.AuditorsDrawn(crowd.now_ms, claim.claim_hash, bytes(32)))
    (audit,) = crowd.of(t.AuditLane)
    assert audit in outstanding(crowd.state)
