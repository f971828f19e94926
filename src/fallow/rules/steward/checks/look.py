"""What an audit remembers of the claims that it looks at."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

import msgspec

from fallow.rules import trust
from fallow.rules.steward.state import CheckState, Slot
from fallow.rules.trust import Reason
from fallow.wire.receipts import MAX_UNDRAWN


class Look(CheckState, msgspec.Struct, array_like=True, tag="audit-look"):
    """Of a slot whose claim is looked at: why, since when, by which randomness, and whether others answered something
    else. `called` are auditors that were asked but are busy, `undrawn` the next in the order of the draw for the claim
    whose hash is `drawn_for`; `drawn` are the accounts that the bank drew for that, `outside` those of all these that
    were not taken for their price. `sample` is the key of the slot in which some links of the claim are done again,
    `dissent` that of one that found something else, while it is decided who is right. `replay` is the hash of a claim
    whose task our own machine does again.

    Of such a slot: `expected` is the answer that agrees with the claim, whose hash is `accused`."""

    reason: Reason | None = None
    since_ms: int = 0
    seed: bytes = b""
    disputed: bool = False
    called: tuple[bytes, ...] = ()
    sample: int | None = None
    dissent: int | None = None
    expected: bytes = b""
    accused: bytes = b""
    drawn_for: bytes = b""
    drawn: tuple[bytes, ...] = ()
    undrawn: tuple[bytes, ...] = ()
    outside: tuple[bytes, ...] = ()
    replay: bytes = b""

    def begun(self) -> tuple[int, ...]:
        return () if self.sample is None else (self.sample,)

    def serves(self, key: int) -> bool:
        return key in (self.sample, self.dissent)

    def contested(self) -> bool:
        return self.disputed

    def drop(self) -> None:
        self.sample = None

    def forget(self) -> None:
        self.reason, self.disputed, self.called, self.dissent = None, False, (), None
        self.seed, self.drawn_for, self.drawn, self.outside, self.replay = b"", b"", (), (), b""

    def call(self, order: Sequence[bytes], outside: Container[bytes], wanted: int) -> tuple[bytes, ...]:
        """The first `wanted` are asked; what a receipt will say of those who could have been is kept."""
        self.undrawn = tuple(order[wanted : wanted + MAX_UNDRAWN])
        named = (account for account in order[: wanted + MAX_UNDRAWN] if account in outside)
        self.outside = tuple(dict.fromkeys((*self.outside, *named)))
        return tuple(order[:wanted])

    def after(self, asked: Iterable[bytes]) -> tuple[bytes, ...]:
        """Those of `undrawn` who come after all that were asked."""
        return trust.after(self.seed, asked, self.undrawn, self.drawn, self.outside)


class Paying(CheckState, msgspec.Struct, array_like=True, tag="audit-paying"):
    """Of a seat: the `claim` that is checked so that what was claimed `before` it can be paid."""

    claim: bytes
    before: tuple[bytes, ...]


class Closing(CheckState, msgspec.Struct, array_like=True, tag="audit-closing"):
    """Of a seat: the last check of its claims has begun."""


def look_at(slot: Slot) -> Look:
    """What is remembered of the slot, from now on."""
    if slot.check is None:
        slot.check = Look()
    assert isinstance(slot.check, Look), "a job has one check"
    return slot.check


def seen_of(slot: Slot) -> Look:
    """The same to be read alone: what is not remembered yet stays so."""
    return look_at(slot) if slot.check is not None else Look()
