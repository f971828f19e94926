"""What peers make a node hold; the floods themselves are in tests/attacks."""

from __future__ import annotations

import pytest

from fallow.errors import UnavailableError
from fallow.node.held import LITTLE_BYTES, Held


def test_a_peer_has_a_share_over_all_of_its_calls() -> None:
    held = Held(peer_bytes=100, all_bytes=1_000)
    one, two = held.call("a"), held.call("a")
    one.set(60)
    two.set(40)
    with pytest.raises(UnavailableError) as full:
        two.set(41)
    assert full.value.code == "E1803"
    assert held.total_bytes == 100
    one.set(10)
    two.set(90)
    one.close()
    two.close()
    two.close()
    assert held.total_bytes == 0


def test_together_they_have_the_whole_and_little_is_always_taken() -> None:
    held = Held(peer_bytes=1 << 20, all_bytes=1 << 20)
    held.call("flood").set(1 << 20)
    with pytest.raises(UnavailableError):
        held.call("large").set(LITTLE_BYTES + 1)
    held.call("small").set(LITTLE_BYTES)
    assert held.total_bytes == (1 << 20) + LITTLE_BYTES


def test_less_is_never_refused() -> None:
    held = Held(peer_bytes=100, all_bytes=100)
    call = held.call("a")
    call.set(100)
    call.set(99)
    call.set(0)
    assert held.total_bytes == 0
