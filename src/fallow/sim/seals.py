"""A stand-in for secp256k1 that is a hundred times faster, so that a simulated world can sign thousands of documents.

Only the curve is replaced: documents are encoded, hashed, laid out and compared by the real code, and a signature
belongs to one key and one hash as always. The real curve has tests of its own (`tests/wire/test_eip712.py`).

Does not defend against anybody: the stand-in can be forged by whoever knows how it is made, which no simulated peer
does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import patch

from blake3 import blake3

from fallow.wire import eip712

_LOW = 0x3F
"""Keeps the second half of a signature below half the curve's order, as real ones are."""


def _seal(public: bytes, digest: bytes) -> bytes:
    mark = bytearray(blake3(public + digest).digest())
    mark[0] &= _LOW
    return bytes(mark)


class StandInKey:
    """`coincurve.PublicKey`, as far as it is used."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def format(self, compressed: bool = True) -> bytes:
        """65 bytes for the long form."""
        return b"\x04" + self._public + self._public if not compressed else b"\x02" + self._public

    @classmethod
    def from_signature_and_message(cls, signature: bytes, digest: bytes, hasher: None = None) -> StandInKey:
        """Raises ValueError for a signature of another message."""
        if signature[32:64] != _seal(signature[:32], digest):
            raise ValueError("no such signature")
        return cls(signature[:32])


class StandInSecret:
    """`coincurve.PrivateKey`, as far as it is used."""

    def __init__(self, secret: bytes) -> None:
        self._public = blake3(secret, derive_key_context="fallow simulated key 1").digest()
        self.public_key = StandInKey(self._public)

    def sign_recoverable(self, digest: bytes, hasher: None = None) -> bytes:
        """65 bytes; the last is the recovery id."""
        return self._public + _seal(self._public, digest) + b"\x00"


@contextmanager
def stand_in() -> Iterator[None]:
    """While open, documents are signed and checked with the stand-in. Whatever was signed inside is worth nothing
    outside, and the other way round. Not for threads."""
    with patch.object(eip712, "coincurve", SimpleNamespace(PublicKey=StandInKey, PrivateKey=StandInSecret)):
        yield
