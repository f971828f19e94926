"""Events and effects are written to disk and read back."""

from __future__ import annotations

from typing import get_args

from tests.rules.steward.crowd import Crowd, Provider, batch_spec, honest_crowd, lane_spec, lie, train_spec

from fallow.rules.steward import events as t
from fallow.wire import codec


def test_everything_that_happens_survives_the_log() -> None:
    crowd = Crowd([Provider("liar", answer=lie(), price=900), *honest_crowd(3)])
    crowd.submit(train_spec(workers=4), "train")
    crowd.submit(batch_spec(), "batch")
    crowd.submit(lane_spec(), "lane")
    crowd.run()
    crowd.pass_time(6_000)
    for event in crowd.history:
        assert codec.decode(t.AnyStewardEvent, codec.encode(event)) == event
    for effect in crowd.effects:
        assert codec.decode(type(effect), codec.encode(effect)) == effect
    seen = {type(effect) for effect in crowd.effects}
    assert seen >= {t.Charge, t.KeepReceipt, t.Note, t.JobEnded, t.Pay, t.EndLease, t.PrepareLane, t.KeepBlob}


def test_events_keep_the_names_that_logs_know_them_by() -> None:
    assert {kind.__struct_config__.tag for kind in get_args(t.AnyStewardEvent)} == {
        "StewardStarted", "ClockTicked", "UserSubmitted", "UserCancelled", "OffersSeen", "PeerQuoted", "PeerDeclined",
        "PeerSigned", "LedgerOpened", "LedgerRefusedEscrow", "PeerClaimed", "PeerFailed", "PeerLeaving",
        "PeerUnobserved", "PeerObserved", "BlobKept", "BlobMissing", "AuditorsDrawn", "LedgerRefusedDraw", "LaneReady",
        "LaneUnready", "LaneAnswered", "LaneAudited", "LaneCaught", "LaneUnchecked", "Replayed", "NotReplayed",
        "PeerPaid", "LedgerSlashed", "LedgerRefusedCharge", "LedgerClosed",
    }  # fmt: skip


def test_records_are_effects() -> None:
    assert all(issubclass(kind, t.StewardEffect) for kind in t.RECORDS)
