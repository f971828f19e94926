"""One canonical encoding for everything that travels: msgpack arrays, with exactly one byte string per value.

Defends against: oversized, malformed and unknown messages, and against two byte strings that mean the same message.
Msgpack lets a sender write an integer wider than it needs or repeat a map key; bytes like these would give one document
several hashes. So whatever does not re-encode to the bytes it came in is refused, and hashes and signatures are always
taken over received bytes. Does not defend against: contents that are well-formed and untrue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

import msgspec

from fallow.errors import UsageError, fail

T = TypeVar("T")

MAX_MESSAGE_BYTES = 8 << 20
"""No message between nodes is larger; blobs travel as raw frames beside the messages."""

_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_MAX_CACHED = 1024
_BY_TYPE: dict[object, msgspec.msgpack.Decoder[Any]] = {}
_BY_IDENTITY: dict[int, tuple[object, msgspec.msgpack.Decoder[Any]]] = {}


class Family:
    """Base of a class that a field may be declared as when other files may add to what it can hold: every tagged,
    array-like struct that inherits from that class. A tag that no loaded module has is refused by name."""

    __slots__ = ()


class _NoMemberError(ValueError):
    """A tag that no loaded module has."""


class UnheardError(UsageError):
    """What was recalled is in order, but speaks of something that nobody registered in this process."""


encode: Callable[[msgspec.Struct], bytes] = _ENCODER.encode
"""The canonical bytes of a struct. Checks no constraint: a struct that breaks one encodes here and is refused by
whoever decodes it. Raises TypeError, OverflowError or UnicodeEncodeError for values that msgpack cannot hold."""


@overload
def decode(kind: type[T], data: bytes, limit_bytes: int = ...) -> T: ...
@overload
def decode(kind: object, data: bytes, limit_bytes: int = ...) -> Any: ...
def decode(kind: object, data: bytes, limit_bytes: int = MAX_MESSAGE_BYTES) -> Any:
    """Read one `kind` (a struct type, or a union of tagged ones) from `data`. Raises PeerFault E1102 when `data` is
    larger than `limit_bytes`, is no `kind`, breaks a constraint, has anything unknown or left over, or is not the
    canonical encoding of what it says. Never raises anything else, whatever the bytes. Costs memory in proportion to
    `data`, whatever lengths it declares."""
    if len(data) > limit_bytes:
        raise fail("E1102", f"a message of {len(data)} bytes where at most {limit_bytes} are allowed")
    try:
        found = _decoder(kind).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise fail("E1102", f"a message that cannot be read: {error}") from None
    if _ENCODER.encode(found) != data:
        raise fail("E1102", f"a {type(found).__name__} that is not in its canonical encoding")
    return found


@overload
def recall(kind: type[T], data: bytes) -> T: ...
@overload
def recall(kind: object, data: bytes) -> Any: ...
def recall(kind: object, data: bytes) -> Any:
    """Read one `kind` that this node itself wrote with `encode`, by this version of Fallow or an older one: fields at
    the end that the older one did not know take their defaults. Raises UsageError E1810 when it cannot be read: the
    file was damaged, or a newer Fallow wrote it; as UnheardError where it only holds a member of a family that is not
    here. Not for bytes from a peer: it accepts what is not canonical."""
    try:
        return _decoder(kind).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if isinstance(error.__cause__, _NoMemberError):
            raise UnheardError("E1810", f"a record of this home cannot be read: {error}") from None
        raise fail("E1810", f"a record of this home cannot be read: {error}") from None


def _decoder(kind: object) -> msgspec.msgpack.Decoder[Any]:
    """Look up by identity first: hashing a union of ninety types costs more than decoding a small message."""
    cached = _BY_IDENTITY.get(id(kind))
    if cached is not None and cached[0] is kind:
        return cached[1]
    decoder = _BY_TYPE.get(kind)
    if decoder is None:
        decoder = _BY_TYPE[kind] = msgspec.msgpack.Decoder(cast("type[Any]", kind), dec_hook=_member)
    if len(_BY_IDENTITY) >= _MAX_CACHED:  # unions written inside a function are new objects at every call
        _BY_IDENTITY.clear()
    _BY_IDENTITY[id(kind)] = (kind, decoder)
    return decoder


def _member(family: type[Any], raw: object) -> object:
    """The struct of an open family that `raw` (arrays and scalars) stands for."""
    if not issubclass(family, Family):
        raise NotImplementedError(f"{family} is no type of a message")
    tag = cast("list[object]", raw)[0] if isinstance(raw, list) and raw else None
    for member in family.__subclasses__():
        if tag is not None and cast("type[msgspec.Struct]", member).__struct_config__.tag == tag:
            return msgspec.convert(raw, member, builtin_types=(bytes,), dec_hook=_member)
    kind = _NoMemberError if isinstance(tag, str) else ValueError
    raise kind(f"no {family.__name__.lower()} is called {str(tag)[:40]!r} here")
