"""Who is there. Not being able to observe a node is a fact about the network; being dead is a decision, taken only
when a deadline has passed without hearing from it. A node that comes back before it is as if it had never been
away."""

from __future__ import annotations

from enum import Enum

import msgspec


class Presence(Enum):
    """What is known of a node."""

    OBSERVED = "observed"
    UNOBSERVED = "unobserved"
    DEAD = "dead"


class Roll(msgspec.Struct):
    """Nodes that cannot be observed, each with the time at which that began. Nodes not listed are observed. Bounded
    by the nodes that hold leases: the caller forgets the others."""

    since: dict[bytes, int] = {}

    def lose_sight(self, node: bytes, now_ms: int) -> bool:
        """-> whether this is news. Saying it again does not move the deadline."""
        if node in self.since:
            return False
        self.since[node] = now_ms
        return True

    def see(self, node: bytes) -> bool:
        """-> whether this is news."""
        return self.since.pop(node, None) is not None

    def presence(self, node: bytes, now_ms: int, lost_after_ms: int) -> Presence:
        since = self.since.get(node)
        if since is None:
            return Presence.OBSERVED
        return Presence.DEAD if now_ms - since >= lost_after_ms else Presence.UNOBSERVED

    def dead_at_ms(self, node: bytes, lost_after_ms: int) -> int | None:
        """When the node will count as dead; None while it is observed."""
        since = self.since.get(node)
        return None if since is None else since + lost_after_ms

    def begin_anew(self, nodes: list[bytes], now_ms: int) -> None:
        """The observer itself was away: nobody was observed meanwhile, and everyone's deadline starts now."""
        self.since = dict.fromkeys(nodes, now_ms)
