"""In which order the effects on a lease are carried out."""

from __future__ import annotations

import asyncio

from fallow.rules.steward.events import Assign, Cancel, EndLease, Pay, StewardEffect

Ordered = Assign | Cancel | Pay | EndLease
"""What goes to the provider of a lease and changes something there."""


class LeaseOrder:
    """Who waits for whom: what is asked of a task for what was asked of it before, the end of a lease for everything
    that was asked under it. All else goes side by side, so that a slow answer about one task holds up no other."""

    def __init__(self) -> None:
        self._under_way: dict[bytes, dict[asyncio.Task[None], bytes]] = {}

    def before(self, effect: StewardEffect) -> list[asyncio.Task[None]]:
        """What is under way and must be over first."""
        if not isinstance(effect, Assign | Cancel | EndLease):
            return []
        earlier = self._under_way.get(effect.lease, {})
        return [one for one, task in earlier.items() if isinstance(effect, EndLease) or task == effect.task]

    def add(self, effect: StewardEffect, carrying: asyncio.Task[None]) -> None:
        """`carrying` carries the effect out, until it is done."""
        if not isinstance(effect, Ordered):
            return
        lease = effect.lease
        task = effect.task if isinstance(effect, Assign | Cancel) else b""
        self._under_way.setdefault(lease, {})[carrying] = task
        carrying.add_done_callback(lambda done: self._drop(lease, done))

    def _drop(self, lease: bytes, done: asyncio.Task[None]) -> None:
        left = self._under_way[lease]
        del left[done]
        if not left:
            del self._under_way[lease]
