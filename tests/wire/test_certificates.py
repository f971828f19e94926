from __future__ import annotations

from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.parties import AUDITORS, BANK, NOW_MS, PROVIDER, REQUESTER, Party

from fallow.errors import FallowError
from fallow.wire.certificates import (
    CERTIFICATE_LIFETIME_MS,
    MAX_LIFETIME_MS,
    SKEW_MS,
    certify,
    check_certificate,
    expires_ms,
    node_of,
    open_offer,
    read_certificate,
    sign_offer,
)
from fallow.wire.codec import encode
from fallow.wire.documents import NO_BANK, Certificate, Signed, Voucher
from fallow.wire.eip712 import sign
from fallow.wire.messages import Gpu, Hardware, NodeAddress, Offer, Rate, SignedOffer

CERTIFICATE = certify(PROVIDER.account_secret, PROVIDER.node, NOW_MS)
OFFER = Offer(
    account=PROVIDER.account, address=NodeAddress(PROVIDER.node, ("10.0.0.1:4433",)), certificate=CERTIFICATE,
    hardware=Hardware("cpu", 2000, 1 << 30, 1 << 30, (Gpu("0", "A100", 80 << 30),), "x86"),
    rates=(Rate("echo", 5, 100),), bank=BANK.account, stake_ucr=500, region="eu", issued_ms=NOW_MS, ttl_s=600,
)  # fmt: skip
SIGNED = sign_offer(OFFER, PROVIDER.node_secret)


def code_of_offer(signed: SignedOffer, now_ms: int = NOW_MS) -> str:
    with pytest.raises(FallowError) as refused:
        open_offer(signed, now_ms)
    return refused.value.code


def code_of_certificate(signed: Signed, now_ms: int = NOW_MS, node: bytes | None = None) -> str:
    with pytest.raises(FallowError) as refused:
        check_certificate(signed, now_ms, node)
    return refused.value.code


def resigned(by: Party = PROVIDER, **changes: Any) -> SignedOffer:
    return sign_offer(msgspec.structs.replace(OFFER, **changes), by.node_secret)


# certificates ---------------------------------------------------------------------------------------------------------


def test_a_certificate_binds_node_and_account() -> None:
    found = check_certificate(CERTIFICATE, NOW_MS, PROVIDER.node)
    assert found == Certificate(PROVIDER.account, PROVIDER.node, NOW_MS, NOW_MS + CERTIFICATE_LIFETIME_MS)
    assert node_of(PROVIDER.node_secret) == PROVIDER.node


def test_a_certificate_holds_from_its_issue_to_its_end_give_or_take_a_clock() -> None:
    end = NOW_MS + CERTIFICATE_LIFETIME_MS
    assert check_certificate(CERTIFICATE, NOW_MS - SKEW_MS)
    assert code_of_certificate(CERTIFICATE, NOW_MS - SKEW_MS - 1) == "E1103"
    assert check_certificate(CERTIFICATE, end - 1)
    assert code_of_certificate(CERTIFICATE, end) == "E1103"
    assert read_certificate(CERTIFICATE).expires_ms == end


def test_a_certificate_is_for_one_node() -> None:
    assert code_of_certificate(CERTIFICATE, node=REQUESTER.node) == "E1101"


def test_nobody_certifies_for_somebody_elses_account() -> None:
    body = Certificate(PROVIDER.account, REQUESTER.node, NOW_MS, NOW_MS + 1000)
    assert code_of_certificate(sign(body, REQUESTER.account_secret, NO_BANK)) == "E1101"


def test_another_document_is_no_certificate() -> None:
    assert code_of_certificate(sign(Voucher(bytes(32), 1), PROVIDER.account_secret, NO_BANK)) == "E1102"


@pytest.mark.parametrize("lifetime_ms", [0, -5, MAX_LIFETIME_MS + 1])
def test_no_certificate_is_for_good_or_for_nothing(lifetime_ms: int) -> None:
    with pytest.raises(ValueError, match="lasts"):
        certify(PROVIDER.account_secret, PROVIDER.node, NOW_MS, lifetime_ms)
    body = Certificate(PROVIDER.account, PROVIDER.node, NOW_MS, NOW_MS + lifetime_ms)
    assert code_of_certificate(sign(body, PROVIDER.account_secret, NO_BANK)) == "E1102"


def test_a_node_that_is_no_key_is_not_certified() -> None:
    with pytest.raises(ValueError, match="not a valid"):
        certify(PROVIDER.account_secret, b"short", NOW_MS)


# offers ---------------------------------------------------------------------------------------------------------------


def test_an_offer_opens() -> None:
    assert open_offer(SIGNED, NOW_MS) == OFFER
    assert expires_ms(OFFER) == NOW_MS + 600_000


def test_an_offer_is_good_from_its_issue_to_its_end_give_or_take_a_clock() -> None:
    assert open_offer(SIGNED, NOW_MS - SKEW_MS)
    assert code_of_offer(SIGNED, NOW_MS - SKEW_MS - 1) == "E1103"
    assert open_offer(SIGNED, NOW_MS + 599_999)
    assert code_of_offer(SIGNED, NOW_MS + 600_000) == "E1103"


@pytest.mark.parametrize("ttl_s", [0, 3601, 1 << 62])
def test_an_offer_lasts_a_second_to_an_hour(ttl_s: int) -> None:
    assert code_of_offer(resigned(ttl_s=ttl_s)) == "E1102"
    assert open_offer(resigned(ttl_s=3600), NOW_MS)


def test_an_offer_of_another_nodes_key_is_refused() -> None:
    assert code_of_offer(resigned(by=REQUESTER)) == "E1101"


def test_a_node_cannot_offer_with_somebody_elses_certificate() -> None:
    thief = resigned(by=REQUESTER, address=NodeAddress(REQUESTER.node))
    assert code_of_offer(thief) == "E1101"


def test_a_node_cannot_offer_for_an_account_that_is_not_its_own() -> None:
    assert code_of_offer(resigned(account=AUDITORS[0].account)) == "E1101"


def test_an_offer_with_an_expired_certificate_is_refused() -> None:
    old = certify(PROVIDER.account_secret, PROVIDER.node, NOW_MS - 2000, 1000)
    assert code_of_offer(resigned(certificate=old)) == "E1103"


def test_a_node_that_is_no_point_of_the_curve_has_signed_nothing() -> None:
    assert code_of_offer(resigned(address=NodeAddress(b"\xff" * 32))) == "E1101"


def test_a_signature_made_for_something_else_is_no_offer() -> None:
    """The node's key also signs handshakes: whoever gets it to sign chosen bytes must not get an offer out of it."""
    bare = Ed25519PrivateKey.from_private_bytes(PROVIDER.node_secret).sign(SIGNED.body)
    assert code_of_offer(SignedOffer(SIGNED.body, bare)) == "E1101"


def test_what_is_no_offer_is_refused() -> None:
    for body in (b"", b"\0" * 20_000, SIGNED.body + b"\0", encode(CERTIFICATE)):
        assert code_of_offer(SignedOffer(body, SIGNED.signature)) == "E1102"


@given(st.data())
def test_no_byte_of_an_offer_can_change(data: st.DataObject) -> None:
    whole = bytearray(SIGNED.body + SIGNED.signature)
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    assert code_of_offer(SignedOffer(bytes(whole[:-64]), bytes(whole[-64:]))) in ("E1101", "E1102")


def test_an_offer_that_no_directory_takes_is_not_signed() -> None:
    gpus = tuple(Gpu(str(n), "x" * 200, 1) for n in range(64))
    rates = tuple(Rate("\N{GRINNING FACE}" * 200, 1, 1) for _ in range(32))
    wide = msgspec.structs.replace(OFFER.hardware, gpus=gpus)
    with pytest.raises(ValueError, match="16384"):
        resigned(hardware=wide, rates=rates)
