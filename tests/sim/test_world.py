"""What the machines of a simulated pool have around them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TypeVar

import pytest
from tests.sim.worlds import HONEST, batch

from fallow.node.config import Ticket
from fallow.sim import world as module
from fallow.sim.loop import VirtualLoop, play
from fallow.sim.plan import Plan
from fallow.sim.town import TIMING
from fallow.sim.world import World
from fallow.units import Account, NodeId
from fallow.wire.messages import LeaseEvent, LeaseLeaving, NodeAddress

T = TypeVar("T")


def look(at: Callable[[World], T]) -> T:
    async def main(loop: VirtualLoop) -> T:
        world = World(loop, 1, Plan(HONEST, (batch(),)), TIMING)
        try:
            return at(world)
        finally:
            shutil.rmtree(world.folder)

    return play(main)


def test_keys_follow_from_names_and_are_known_by_them() -> None:
    one, other, names = look(lambda world: (world.identity("p0"), world.identity("p1"), world.referee.names))
    assert look(lambda world: world.identity("p0").node) == one.node
    assert names == {one.account: "p0", one.node: "p0", other.account: "p1", other.node: "p1"}


def test_an_invitation_to_a_crowd_invites_nobody_new(monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = Ticket(NodeAddress(NodeId(b"b" * 32)), Account(b"a" * 20), (), "once")

    def invited(world: World) -> Ticket | None:
        world.invite(ticket)
        return world.invitation

    assert look(invited) == ticket
    monkeypatch.setattr(module, "MANY", len(HONEST))
    crowd = look(invited)
    assert crowd is not None
    assert crowd.token == ""


def test_what_is_no_claim_is_not_heard_as_one() -> None:
    def tell(world: World) -> object:
        world.telling(b"a" * 20, LeaseEvent(1, 1, LeaseLeaving("gone")), honest=True)
        return world.shown, world.claimed

    assert look(tell) == ([], set())


def test_a_node_that_ends_by_itself_is_a_finding() -> None:
    def fall(world: World) -> list[str]:
        world.fell_over("p0", ValueError("tripped"))
        return world.referee.found

    (found,) = look(fall)
    assert "the node of p0 ended: ValueError('tripped')" in found
