"""A task done on this node's own machine by the node itself: nobody pays for it, and nobody else has to be believed. A
steward does it where the answers of others do not decide, a provider that is charged before it appeals.

It runs what a provider would run, in the same box, with the limits of the task. A machine that lacks the programs, has
no box, or computes in another class gives nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fallow.errors import fail
from fallow.kinds.replay import Piece
from fallow.node.replay import MAX_BYTES, Workbench, threads_for
from fallow.node.services import Services
from fallow.node.shelf import Shelf
from fallow.ports import READ, WORK
from fallow.wire.claims import output_hash
from fallow.wire.messages import NodeAddress
from fallow.wire.tasks import TaskOutput, TaskSpec

LEAST_S = 600
"""A task is given this long at least: this machine may be slower than those that are paid for it."""


class OwnMachine:
    """Does one task at a time."""

    def __init__(self, services: Services) -> None:
        self._s, self._shelf, self._one = services, Shelf(services), asyncio.Lock()

    async def answer(self, spec: TaskSpec, numerics: str, sources: tuple[NodeAddress, ...], owner: str) -> bytes:
        """The hash of what the task gives, computed as `numerics` says (EXACT, a class, or "" where any machine will
        do); `sources` may have its inputs, which are pinned for `owner` meanwhile. Raises FallowError when there is
        none: E1504 for what this machine cannot do, E1602 for inputs that nobody has, and as `Workbench.run`."""
        async with self._one:
            machine, home = self._s.machine, self._s.home
            if not await asyncio.to_thread(machine.can_do, spec.kind):
                raise fail("E1504", f"What work of kind {spec.kind} needs is not installed here.")
            threads = await asyncio.to_thread(threads_for, numerics, machine, home) if numerics else 1
            async with Workbench(home, self._s.runner, machine) as bench:
                paths = await self._inputs(spec, sources, owner, bench.folder / READ)
                folder = bench.folder / WORK / "replay"
                folder.mkdir(parents=True)
                piece, timeout_s = Piece(spec, TaskOutput(b"", ())), max(spec.timeout_s, LEAST_S)
                (found,) = await bench.run((piece,), paths, spec.inputs, threads, timeout_s, folder, _told)
        return output_hash(found)

    async def _inputs(
        self, spec: TaskSpec, sources: tuple[NodeAddress, ...], owner: str, folder: Path
    ) -> dict[str, str]:
        paths: dict[str, str] = {}
        others = tuple(source for source in sources if source.node != self._s.identity.node)
        for part in spec.inputs:
            path, _ = await self._shelf.lay(part, folder, others, MAX_BYTES, owner)
            if not path:
                raise fail("E1602", f"What the task starts from is not at hand: {part.name}.")
            paths[part.name] = path
        return paths


def _told(done: int, total: int, note: str) -> None:
    """Nobody watches."""
