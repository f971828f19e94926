"""The simulated network: one call is one request and one reply, each of which may come late, twice, out of order, or
never.

What real connections hide (a stream keeps its order) is not used by the actors above; what they do not hide (a lost
peer, a stalled link, an answer that comes after its asker has given up) is all here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fallow.sim.world import World
from fallow.wire.messages import Message

Reply = Callable[[Message], None]
Then = Callable[[Message | None], None]


class Peer(Protocol):
    """What answers calls."""

    name: str
    node: bytes
    up: bool

    def take(self, caller: bytes, request: Message, reply: Reply) -> None:
        """Answer now, later, or never."""
        ...


@dataclass
class Weather:
    """How bad the network is. Times in ms, probabilities per packet. `cuts` are directed pairs (who, to whom) that do
    not get through; `clogs` hold all packets of a pair back until a moment."""

    delay_min: int = 1
    delay_mean: int = 20
    loss: float = 0.0
    twice: float = 0.0
    reorder: float = 0.0
    cuts: set[tuple[bytes, bytes]] = field(default_factory=set[tuple[bytes, bytes]])
    clogs: dict[tuple[bytes, bytes], int] = field(default_factory=dict[tuple[bytes, bytes], int])

    def clear_up(self) -> None:
        """No more faults; delay stays."""
        self.loss = self.twice = self.reorder = 0.0
        self.cuts.clear()
        self.clogs.clear()


class Network:
    """All peers by node id, and the weather between them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.weather = Weather()
        self.peers: dict[bytes, Peer] = {}
        self.packets = 0

    def join(self, peer: Peer) -> None:
        """Make a peer reachable under its node id."""
        self.peers[peer.node] = peer

    def reachable(self, one: bytes, other: bytes) -> bool:
        """Whether both are up and hear each other just now."""
        up = all(node in self.peers and self.peers[node].up for node in (one, other))
        return up and not {(one, other), (other, one)} & self.weather.cuts

    def call(self, source: bytes, target: bytes, request: Message, timeout_ms: int, then: Then) -> None:
        """Ask `target`; `then` is called once, with the first reply or, after `timeout_ms`, with None."""
        answered = False

        def finish(answer: Message | None) -> None:
            nonlocal answered
            if not answered:
                answered = True
                then(answer)

        def reply(answer: Message) -> None:
            self._send(target, source, type(answer).__name__, lambda: finish(answer))

        def arrive() -> None:
            peer = self.peers.get(target)
            if peer is not None and peer.up:
                peer.take(source, request, reply)

        self._send(source, target, type(request).__name__, arrive)
        self.world.after(timeout_ms, lambda: finish(None))

    def _send(self, source: bytes, target: bytes, what: str, act: Callable[[], None]) -> None:
        weather, world = self.weather, self.world
        self.packets += 1
        if (source, target) in weather.cuts or world.chance(weather.loss):
            world.note(f"{self._name(source)} -x {self._name(target)} {what}")
            return
        for _ in range(2 if world.chance(weather.twice) else 1):
            delay = weather.delay_min + int(world.rng.expovariate(1 / weather.delay_mean))
            if world.chance(weather.reorder):
                delay += 10 * weather.delay_mean
            held = weather.clogs.get((source, target), 0)
            world.after(max(delay, held - world.now_ms), lambda: self._arrive(source, target, what, act))

    def _arrive(self, source: bytes, target: bytes, what: str, act: Callable[[], None]) -> None:
        self.world.note(f"{self._name(source)} -> {self._name(target)} {what}")
        act()

    def _name(self, node: bytes) -> str:
        peer = self.peers.get(node)
        return peer.name if peer is not None else node.hex()[:8]
