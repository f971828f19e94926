"""Who is who in a simulated world: names and keys made from names, and signing, with a witness that sees all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from blake3 import blake3

from fallow.sim.world import GENESIS_MS
from fallow.wire.certificates import certify, node_of, sign_offer
from fallow.wire.documents import Document, Signed
from fallow.wire.eip712 import account_of, sign
from fallow.wire.messages import NodeAddress, Offer, SignedOffer

CERTIFICATE_MS = GENESIS_MS - 1_000


def digest(*parts: object) -> bytes:
    """32 bytes that follow from what is said and from nothing else."""
    return blake3(repr(parts).encode()).digest()


@lru_cache(maxsize=256)
def _node_of(secret: bytes) -> bytes:
    return node_of(secret)


def _unseen(_account: bytes, _document: Document) -> None:
    return


@dataclass
class Person:
    """A node and the account it speaks for. `saw` is told of every document before it is signed."""

    name: str
    account_name: str = ""
    bank: bytes = b""
    saw: Callable[[bytes, Document], None] = field(default=_unseen)

    def __post_init__(self) -> None:
        self.secret = digest("account", self.account_name or self.name)
        self.node_secret = digest("node", self.name)
        self.account: bytes = account_of(self.secret)
        self.node = _node_of(self.node_secret)
        self.address = NodeAddress(self.node)
        self.certificate = certify(self.secret, self.node, CERTIFICATE_MS)

    def sign(self, document: Document) -> Signed:
        """Sign for the pool's bank."""
        self.saw(self.account, document)
        return sign(document, self.secret, self.bank or self.account)

    def offer(self, offer: Offer) -> SignedOffer:
        """Sign an advert with the node's key."""
        return sign_offer(offer, self.node_secret)

    def sign_unseen(self, document: Document) -> Signed:
        """Sign what one has no right to say."""
        return sign(document, self.secret, self.bank or self.account)
