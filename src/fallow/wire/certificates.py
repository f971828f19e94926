"""Who speaks for whom: certificates bind a node's Ed25519 key to the account that owns its money, and node keys sign
offers.

Defends against: a node that claims somebody else's account, offers altered by a directory, offers that never expire or
come from the future. Does not defend against an account certifying nodes that it does not control: whoever then dials
such a node gets no answer, since the transport proves the node key.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fallow.errors import fail
from fallow.units import MS_PER_S, NodeId
from fallow.wire.codec import decode, encode
from fallow.wire.documents import NO_BANK, Certificate, Signed
from fallow.wire.eip712 import account_of, recover, sign
from fallow.wire.messages import Offer, SignedOffer

DAY_MS = 24 * 3600 * MS_PER_S
CERTIFICATE_LIFETIME_MS = 90 * DAY_MS
MAX_LIFETIME_MS = 400 * DAY_MS
"""No certificate is accepted for longer, so that a stolen node key does not speak for its account for good."""
MAX_OFFER_TTL_S = 3600
MAX_OFFER_BYTES = 16384
SKEW_MS = 120 * MS_PER_S
"""How far two honest clocks may be apart."""

_OFFER_CONTEXT = b"fallow offer 1\x00"


def certify(account_secret: bytes, node: bytes, now_ms: int, lifetime_ms: int = CERTIFICATE_LIFETIME_MS) -> Signed:
    """The account's word that `node` speaks for it from now on. Raises ValueError for a lifetime that nobody would
    accept, or a node that is no key."""
    if not 0 < lifetime_ms <= MAX_LIFETIME_MS:
        raise ValueError(f"a certificate lasts 1 ms to {MAX_LIFETIME_MS} ms, not {lifetime_ms}")
    account = account_of(account_secret)
    document = Certificate(account=account, node=node, issued_ms=now_ms, expires_ms=now_ms + lifetime_ms)
    return sign(document, account_secret, NO_BANK)


def read_certificate(signed: Signed) -> Certificate:
    """A certificate whose signature and lifetime are in order, whether or not it holds now. Raises PeerFault E1101 when
    it was not signed by the account that it names, E1102 when it is no certificate or lasts too long."""
    document, signer = recover(signed, NO_BANK)
    if not isinstance(document, Certificate):
        raise fail("E1102", f"a {type(document).__name__} where a certificate was expected")
    if signer != document.account:
        raise fail("E1101", f"a certificate for account 0x{document.account.hex()} signed by 0x{signer.hex()}")
    if not 0 < document.expires_ms - document.issued_ms <= MAX_LIFETIME_MS:
        raise fail("E1102", "a certificate that never expires, or expires before it begins")
    return document


def check_certificate(signed: Signed, now_ms: int, node: bytes | None = None) -> Certificate:
    """A certificate that holds at `now_ms` (for `node`, when given). Raises as `read_certificate` does, and PeerFault
    E1103 when it has expired or is from the future, E1101 when it is for another node."""
    document = read_certificate(signed)
    if not document.issued_ms - SKEW_MS <= now_ms < document.expires_ms:
        raise fail("E1103", f"a certificate of account 0x{document.account.hex()} that does not hold now")
    if node is not None and document.node != node:
        raise fail("E1101", f"a certificate for node {document.node.hex()[:16]} shown by node {node.hex()[:16]}")
    return document


def node_of(node_secret: bytes) -> NodeId:
    """The public key of a 32-byte Ed25519 secret, which is the node's address."""
    return NodeId(Ed25519PrivateKey.from_private_bytes(node_secret).public_key().public_bytes_raw())


def sign_offer(offer: Offer, node_secret: bytes) -> SignedOffer:
    """Sign an offer with the node's Ed25519 secret. The signed bytes begin with a context of their own, since the same
    key authenticates connections. Raises ValueError for an offer larger than a directory takes."""
    body = encode(offer)
    if len(body) > MAX_OFFER_BYTES:
        raise ValueError(f"an offer of {len(body)} bytes; at most {MAX_OFFER_BYTES} are taken")
    return SignedOffer(body, Ed25519PrivateKey.from_private_bytes(node_secret).sign(_OFFER_CONTEXT + body))


def open_offer(signed: SignedOffer, now_ms: int) -> Offer:
    """An offer that is good now: signed by the node it names, with a certificate that binds this node to the account it
    names, lasting at most an hour and neither expired nor from the future. Raises PeerFault E1101, E1102 or E1103
    accordingly. Cost: one Ed25519 and one secp256k1 verification, about 0.2 ms."""
    offer = decode(Offer, signed.body, MAX_OFFER_BYTES)
    _check_node_signature(offer.address.node, signed)
    if not 0 < offer.ttl_s <= MAX_OFFER_TTL_S:
        raise fail("E1102", f"an offer that lasts {offer.ttl_s} s; at most {MAX_OFFER_TTL_S} s are taken")
    if not offer.issued_ms - SKEW_MS <= now_ms < expires_ms(offer):
        raise fail("E1103", "an offer that is not good now")
    certificate = check_certificate(offer.certificate, now_ms, offer.address.node)
    if certificate.account != offer.account:
        raise fail("E1101", "an offer for an account that its certificate does not name")
    return offer


def expires_ms(offer: Offer) -> int:
    """When an offer ends."""
    return offer.issued_ms + offer.ttl_s * MS_PER_S


def _check_node_signature(node: bytes, signed: SignedOffer) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(node).verify(signed.signature, _OFFER_CONTEXT + signed.body)
    except (InvalidSignature, ValueError):
        raise fail("E1101", f"an offer that node {node.hex()[:16]} did not sign") from None
