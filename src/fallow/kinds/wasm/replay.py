"""Runs are done again whole, on any machine."""

from __future__ import annotations

from fallow.kinds.replay import ANYWHERE, ClaimedWork, Difference, LinkDraw, NoReplay, Piece, Replay, ReplayPlan, Report
from fallow.kinds.wasm.tasks import ENGINE, WasmTask, WasmValue
from fallow.wire.codec import decode
from fallow.wire.tasks import MAX_PARAMS_BYTES, MAX_VALUE_BYTES


class WasmReplay(Replay):
    """The same engine gives the same bytes and uses the same fuel everywhere."""

    def plan(self, claimed: ClaimedWork, draw: LinkDraw) -> ReplayPlan | NoReplay:
        asked = decode(WasmTask, claimed.task.params, MAX_PARAMS_BYTES)
        value = decode(WasmValue, claimed.output.value, MAX_VALUE_BYTES)
        if asked.engine != ENGINE:
            what = f"The program ran in {asked.engine[:40]}, this Fallow has {ENGINE}."
            return NoReplay("E1504", what, "Use the Fallow that was current then.")
        return ReplayPlan((Piece(claimed.task, claimed.output),), ANYWHERE, 0, _words(value))

    def compared(self, piece: Piece, value: bytes) -> list[Difference]:
        claimed, mine = (decode(WasmValue, one, MAX_VALUE_BYTES) for one in (piece.expected.value, value))
        rows = [
            Difference(f"the run's {name}", str(getattr(claimed, name)), str(getattr(mine, name)))
            for name in ("status", "trap", "fuel")
        ]
        printed = ("stdout", "stderr")
        return rows + [Difference(name, getattr(claimed, name).hex(), getattr(mine, name).hex()) for name in printed]


def _words(value: WasmValue) -> Report:
    redone = f"the whole run, {value.fuel:,} of fuel"
    proves = "The program gives exactly this output from these inputs, and uses exactly this much fuel."
    return Report(redone, ("whether the program does what its owner wants",), proves, {})
