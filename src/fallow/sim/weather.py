"""The network of a simulated pool: delay, loss, links that break or stall, partitions, and machines that are slow."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterable

from blake3 import blake3

from fallow.sim.plan import Plan
from fallow.sim.transport import SimConnection, SimNetwork, SimTransport, gone
from fallow.units import NodeId

NOTICED_S = (0.0, 0.0, 2.0)
"""How long after a death its peers find out, one of these."""


class Weather(SimNetwork):
    """Everything that travels is part of `trace`. `point` is told who is about to send, or has just sent: a moment at
    which a machine may die."""

    def __init__(self, seed: int, plan: Plan) -> None:
        super().__init__(seed)
        self.rng = random.Random(f"weather {seed}")
        self.loss, self.late, self.delay_s = plan.loss, plan.late, plan.delay_ms / 1_000
        self.point: Callable[[NodeId], None] = lambda _node: None
        self.slow: dict[NodeId, float] = {}
        self.trace = blake3()
        self.pieces = 0
        self._held: dict[tuple[NodeId, NodeId], float] = {}

    async def pause(self) -> None:
        """Streams cost nothing to open; what is sent on them takes its time."""

    async def carry(self, end: SimConnection, data: bytes) -> None:
        self.point(end.me)
        loop = asyncio.get_running_loop()
        self.pieces += 1
        self.trace.update(b"%d %s" % (int(loop.time() * 1e6), end.me[:4] + end.peer[:4]) + data)
        slow_s = self.slow.get(end.me, 0.0) + self.slow.get(end.peer, 0.0)
        late_s = 10 * self.delay_s if self.late and self.rng.random() < self.late else 0.0
        await asyncio.sleep(0.001 + self.rng.expovariate(1 / self.delay_s) + slow_s + late_s)
        await asyncio.sleep(max(0.0, self._held.get((end.me, end.peer), 0.0) - loop.time()))
        if self._lost():
            end.drop()
            raise gone(end.peer)

    def carried(self, end: SimConnection) -> None:
        if self._lost():  # it arrives, and its answer does not
            asyncio.get_running_loop().call_later(self.rng.uniform(0.0, 2 * self.delay_s), end.drop)
        self.point(end.me)

    def _lost(self) -> bool:
        return self.loss > 0 and self.rng.random() < self.loss

    def hold(self, one: Iterable[NodeId], other: Iterable[NodeId], until_s: float) -> None:
        """Nothing from `one` gets through to `other` until then; it is late, not lost."""
        self._held |= dict.fromkeys(itertools.product(one, other), until_s)

    def die(self, transport: SimTransport) -> None:
        """It says nothing more; its peers find out soon, or a little later."""
        self.leave(transport)
        noticed_s = self.rng.choice(NOTICED_S)
        for connection in transport.connections:
            connection.dead = True
            asyncio.get_running_loop().call_later(noticed_s, connection.drop)

    def clear_up(self) -> None:
        """No more faults; delay stays."""
        self.loss = self.late = 0.0
        self._held.clear()
        self._cuts.clear()
        self.slow.clear()
