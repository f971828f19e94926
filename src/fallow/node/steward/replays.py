"""Tasks of the steward's own jobs, done again on its own machine where the answers of others do not decide.

It runs what a provider would run, in the same box, with the limits of the task. A machine that lacks the programs, has
no box, or computes in another class says so, and then it is no witness."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from fallow.errors import FallowError, fail
from fallow.kinds.replay import Piece
from fallow.node.replay import MAX_BYTES, Bench, threads_for
from fallow.node.services import Services
from fallow.node.steward.blobs import job_owner
from fallow.node.steward.shelf import Shelf
from fallow.ports import READ, WORK
from fallow.rules.steward import events as t
from fallow.wire.claims import output_hash
from fallow.wire.tasks import TaskOutput

log = structlog.get_logger()

LEAST_S = 600
"""A task is given this long at least: this machine may be slower than those that are paid for it."""


class Replays:
    """Carries out Replay effects, one at a time: they take the owner's own machine."""

    def __init__(self, services: Services) -> None:
        self._s, self._shelf, self._one = services, Shelf(services), asyncio.Lock()

    async def run(self, effect: t.Replay) -> t.StewardEvent:
        """-> what this machine gives, or why it gives nothing."""
        try:
            async with self._one:
                answer = await self._answer(effect)
        except FallowError as error:
            log.info("not done again here", lease=effect.lease.hex()[:12], code=error.code, what=error.what)
            return t.NotReplayed(self._s.clock.now_ms(), effect.lease, effect.claim_hash, error.what[:1000])
        return t.Replayed(self._s.clock.now_ms(), effect.lease, effect.claim_hash, answer)

    async def _answer(self, effect: t.Replay) -> bytes:
        home, machine, spec = self._s.home, self._s.machine, effect.spec
        if not await asyncio.to_thread(machine.can_do, spec.kind):
            raise fail("E1504", f"What work of kind {spec.kind} needs is not installed here.")
        numerics = effect.numerics
        threads = await asyncio.to_thread(threads_for, numerics, machine, home) if numerics else 1
        async with Bench(home, self._s.runner, machine) as bench:
            paths = await self._inputs(effect, bench.folder / READ)
            folder = bench.folder / WORK / "replay"
            folder.mkdir(parents=True)
            piece, timeout_s = Piece(spec, TaskOutput(b"", ())), max(spec.timeout_s, LEAST_S)
            (found,) = await bench.run((piece,), paths, spec.inputs, threads, timeout_s, folder, _told)
        return output_hash(found)

    async def _inputs(self, effect: t.Replay, folder: Path) -> dict[str, str]:
        """All inputs of the task as files; errors as of the store and the disk, E1602 for what nobody has."""
        paths: dict[str, str] = {}
        others = tuple(source for source in effect.sources if source.node != self._s.identity.node)
        for part in effect.spec.inputs:
            path, _ = await self._shelf.lay(part, folder, others, MAX_BYTES, job_owner(effect.job))
            if not path:
                raise fail("E1602", f"What the task starts from is not at hand: {part.name}.")
            paths[part.name] = path
        return paths


def _told(done: int, total: int, note: str) -> None:
    """Nobody watches."""
