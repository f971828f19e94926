"""Runs are done again whole."""

from __future__ import annotations

import msgspec
from tests.kinds.wasm.test_kind import PARAMS, TASK, VALUE

from fallow.kinds.replay import ANYWHERE, ClaimedWork, NoReplay, Piece, ReplayPlan
from fallow.kinds.wasm.kind import read_task
from fallow.kinds.wasm.replay import WasmReplay
from fallow.wire.codec import encode
from fallow.wire.tasks import TaskOutput

REPLAY = WasmReplay()
OUTPUT = TaskOutput(encode(VALUE), ())


def test_a_run_is_done_again_on_any_machine() -> None:
    found = REPLAY.plan(ClaimedWork(TASK, OUTPUT, ""), lambda _count: ())
    assert isinstance(found, ReplayPlan)
    assert (found.pieces, found.numerics) == ((Piece(TASK, OUTPUT),), ANYWHERE)
    assert "3,000,000 of fuel" in found.words.redone


def test_a_run_of_another_engine_is_not() -> None:
    old = encode(msgspec.structs.replace(read_task(PARAMS), engine="wasmtime 1.0.0"))
    found = REPLAY.plan(ClaimedWork(msgspec.structs.replace(TASK, params=old), OUTPUT, ""), lambda _count: ())
    assert isinstance(found, NoReplay)
    assert found.code == "E1504"


def test_what_differs_is_named() -> None:
    mine = encode(msgspec.structs.replace(VALUE, fuel=7, stdout=b"else"))
    rows = REPLAY.compared(Piece(TASK, OUTPUT), mine)
    assert [row.where for row in rows if row.expected != row.found] == ["the run's fuel", "stdout"]
