"""Bytes of messages that are not done with: what peers make this node hold, counted as they arrive.

Defends against: peers that send most of many large messages and no more, or ask for many large answers at once. Nobody
holds more than a share; together they hold no more than the whole, and who asks for little is served even then. Does
not defend against: what a handler keeps of the messages that it took.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from fallow.errors import fail
from fallow.units import MIB

PEER_BYTES = 32 * MIB
ALL_BYTES = 128 * MIB
LITTLE_BYTES = 16 << 10
"""What a peer may always have: a flood of large messages must not stop everybody's small ones."""


class Held:
    """How many bytes of each peer's messages are here now. A peer is a node's key, or an address."""

    def __init__(self, peer_bytes: int = PEER_BYTES, all_bytes: int = ALL_BYTES) -> None:
        self._peer_bytes, self._all_bytes = peer_bytes, all_bytes
        self._by_peer: Counter[Hashable] = Counter()
        self.total_bytes = 0

    def call(self, peer: Hashable) -> HeldCall:
        """The account of one call with a peer, whichever side made it."""
        return HeldCall(self, peer)

    def change(self, peer: Hashable, change_bytes: int) -> None:
        """More bytes, or fewer. Raises UnavailableError E1803, and counts nothing, for more than there is room for."""
        after = self._by_peer[peer] + change_bytes
        full = after > self._peer_bytes or (self.total_bytes + change_bytes > self._all_bytes and after > LITTLE_BYTES)
        if change_bytes > 0 and full:
            raise fail("E1803", "Too much of your messages is held here already.")
        self.total_bytes += change_bytes
        self._by_peer[peer] = after
        if not after:
            del self._by_peer[peer]


class HeldCall:
    """What one call holds. `close` lets go of all of it, and of whatever else would come."""

    def __init__(self, held: Held, peer: Hashable) -> None:
        self._held, self._peer = held, peer
        self._bytes = 0

    def set(self, held_bytes: int) -> None:
        """How much it is now. Raises as `Held.change`."""
        self._held.change(self._peer, held_bytes - self._bytes)
        self._bytes = held_bytes

    def close(self) -> None:
        """The call is over."""
        self.set(0)
