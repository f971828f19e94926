"""A simulated process: it can die between any two things that it does, and start again over its disk.

Actors say `point()` before every write and every effect. A death that was ordered takes place at one of these points,
so that every gap between "decided", "written" and "done" is torn open by some seed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple

from fallow.sim.event_log import Disk, MemoryEventLog
from fallow.sim.network import Network, Reply, Then
from fallow.sim.world import World
from fallow.wire.messages import Message


class Died(Exception):
    """The process stops here, in the middle of what it was doing."""


class Ask(NamedTuple):
    """A call that a flow waits for."""

    target: bytes
    request: Message
    timeout_ms: int = 3_000


Flow = Generator[Ask | int, Message | None, None]
"""What a process does in several steps: it yields a call (and gets the answer, None for none in time) or a pause in
ms."""


class Process:
    """One node. Subclasses answer in `on_request` and begin in `on_start`; whatever they schedule with `later` or ask
    with `call` is forgotten when they die. `disk` alone outlives them."""

    def __init__(self, world: World, network: Network, name: str, node: bytes) -> None:
        self.world, self.network, self.name, self.node = world, network, name, node
        self.disk = Disk()
        self.log = MemoryEventLog(self.disk)
        self.up = False
        self.lives = 0
        self.deaths = 0
        self.doomed_in = 0
        """Points until an ordered death; 0 for none."""
        self.rest_ms = 0
        self.skew_ms = 0
        """How far this machine's clock is ahead."""
        network.join(self)

    @property
    def now_ms(self) -> int:
        """What this machine's clock says."""
        return self.world.now_ms + self.skew_ms

    def on_start(self) -> None:
        """Rebuild everything from the disk."""

    def on_request(self, caller: bytes, request: Message, reply: Reply) -> None:
        """Answer a peer."""

    def on_death(self) -> None:
        """Let oracles look at what is about to be lost."""

    def start(self) -> None:
        """Begin a life."""
        self.lives += 1
        self.up = True
        self.log = MemoryEventLog(self.disk)
        self.world.note(f"{self.name} starts")
        self.guard(self.on_start)

    def kill(self, rest_ms: int) -> None:
        """Die now; start again after `rest_ms`."""
        if not self.up:
            return
        self.up, self.doomed_in = False, 0
        self.lives += 1
        self.deaths += 1
        self.on_death()
        self.disk.crash()
        self.world.note(f"{self.name} dies")
        self.world.after(rest_ms, self.start)

    def doom(self, points: int, rest_ms: int) -> None:
        """Die at the `points`-th point from now."""
        self.doomed_in, self.rest_ms = max(1, points), rest_ms

    def point(self) -> None:
        """A moment at which the process may die. Raises Died."""
        if self.doomed_in:
            self.doomed_in -= 1
            if not self.doomed_in:
                raise Died

    def guard(self, act: Callable[[], None]) -> None:
        """Run `act` as part of this life; a death in it ends the life and goes no further."""
        try:
            act()
        except Died:
            self.kill(self.rest_ms)

    def take(self, caller: bytes, request: Message, reply: Reply) -> None:
        """A request arrived."""
        self.guard(lambda: self.on_request(caller, request, reply))

    def later(self, delay_ms: int, act: Callable[[], None]) -> None:
        """Do `act` in `delay_ms`, if this life lasts that long."""
        life = self.lives
        self.world.after(delay_ms, lambda: self.guard(act) if self.up and self.lives == life else None)

    def call(self, target: bytes, request: Message, timeout_ms: int, then: Then) -> None:
        """Ask a peer; `then(None)` says that no answer came in time."""
        life = self.lives

        def answered(answer: Message | None) -> None:
            if self.up and self.lives == life:
                self.guard(lambda: then(answer))

        self.network.call(self.node, target, request, timeout_ms, answered)

    def follow(self, flow: Flow) -> None:
        """Carry out a flow from here to its end, or to the end of this life."""
        self._step(flow, None)

    def _step(self, flow: Flow, answer: Message | None) -> None:
        try:
            wanted = flow.send(answer)
        except StopIteration:
            return
        if isinstance(wanted, Ask):
            self.call(wanted.target, wanted.request, wanted.timeout_ms, lambda got: self._step(flow, got))
        else:
            self.later(wanted, lambda: self._step(flow, None))
