from __future__ import annotations

import re
from typing import Any, get_args

import msgspec
import pytest
from eth_account import Account as EthAccount
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.making import structs
from tests.wire.parties import BANK, ORDER, PROVIDER, REQUESTER

from fallow.errors import FallowError, PeerFault
from fallow.wire.codec import encode
from fallow.wire.documents import (
    NO_BANK,
    AnyDocument,
    Certificate,
    Document,
    HostedOrder,
    Lease,
    Order,
    Signed,
    Voucher,
)
from fallow.wire.eip712 import account_of, hash_document, keccak, open_signed, recover, sign, type_string

KINDS: list[type[Document]] = list(get_args(AnyDocument))
SECRETS = st.integers(1, (1 << 255)).map(lambda number: number.to_bytes(32, "big"))
BANKS = st.binary(min_size=20, max_size=20)
ORDER_OF_CURVE = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
VOUCHER = Voucher(b"l" * 32, 1234)


def typed_data(document: Document, bank: bytes) -> dict[str, Any]:
    """The document as a wallet would be given it, by another road: from the type string, not from the layout."""
    kind = type(document)
    fields = re.findall(r"(\w+) (\w+)", type_string(kind).split("(", 1)[1])
    shown = {name: getattr(document, name) for _, name in fields}
    for type_name, name in fields:
        if type_name == "address":
            shown[name] = "0x" + shown[name].hex()
    salt = NO_BANK if kind is Certificate else bank
    return {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "salt", "type": "bytes32"},
            ],
            kind.__name__: [{"name": name, "type": type_name} for type_name, name in fields],
        },
        "primaryType": kind.__name__,
        "domain": {"name": "Fallow", "version": "1", "salt": bytes(12) + salt},
        "message": shown,
    }


@st.composite
def documents(draw: st.DrawFn, kind: type[Document]) -> tuple[Document, bytes]:
    """A document and the bank that it is for."""
    document, bank = draw(structs(kind)), draw(BANKS)
    return document, getattr(document, "bank", bank)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=12)
@given(data=st.data())
def test_we_hash_sign_and_recover_as_eth_account_does(kind: type[Document], data: st.DataObject) -> None:
    (document, bank), secret = data.draw(documents(kind)), data.draw(SECRETS)
    theirs = encode_typed_data(full_message=typed_data(document, bank))
    signed = sign(document, secret, bank)
    other = EthAccount.sign_message(theirs, secret)
    assert hash_document(document, bank) == bytes(other.message_hash)
    assert signed.signature == bytes(other.signature)
    assert account_of(secret).hex() == EthAccount.from_key(secret).address[2:].lower()
    assert recover(signed, bank) == (document, account_of(secret))


def test_types_follow_from_the_declarations() -> None:
    assert type_string(Voucher) == "Voucher(bytes32 lease,uint64 cumulative_ucr)"
    assert type_string(Certificate) == "Certificate(address account,bytes32 node,uint64 issued_ms,uint64 expires_ms)"
    assert "string kind" in type_string(Order)
    former, hosted = type_string(Order), type_string(HostedOrder)
    assert former == (
        "Order(address requester,bytes32 node,bytes32 job,string kind,string numerics,uint64 cpu_millis,"
        "uint64 ram_bytes,uint64 disk_bytes,uint64 gpus,uint64 gpu_ram_bytes,uint64 units,uint64 max_price_ucr,"
        "uint64 min_stake_ucr,string verify,uint64 ends_ms,address bank,bytes32 nonce)"
    ), "receipts and leases name orders by this type"
    assert hosted == "Hosted" + former[:-1] + ",string ports,string network,uint64 storage_bytes)"
    assert "address bank" in type_string(Lease)


def test_a_vector_that_must_never_change() -> None:
    """Other implementations, and contracts, must get the same."""
    assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert account_of(b"\1" * 32).hex() == "1a642f0e3c3af545e7acbd38b07251b3990914f1"
    assert hash_document(VOUCHER, BANK.account).hex() == VECTOR


VECTOR = "bc3c3288dc9c23de9f55bd4122341ad28712b163763a7c3217b3081a89b46b8c"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=5)
@given(data=st.data())
def test_every_field_is_part_of_the_hash(kind: type[Document], data: st.DataObject) -> None:
    document, bank = data.draw(documents(kind))
    true = hash_document(document, bank)
    for field in msgspec.structs.fields(kind):
        if field.name == "bank":
            continue
        touched = msgspec.structs.replace(document, **{field.name: other_than(getattr(document, field.name))})
        assert hash_document(touched, bank) != true, field.name


def other_than(value: Any) -> Any:
    if isinstance(value, int):
        return value - 1 if value else 1
    if isinstance(value, str):
        return value[:-1] if value else "x"
    return bytes((value[0] ^ 1,)) + value[1:]


def test_neighbouring_strings_cannot_be_shifted_into_each_other() -> None:
    left = msgspec.structs.replace(ORDER, kind="ab", numerics="c")
    right = msgspec.structs.replace(ORDER, kind="a", numerics="bc")
    assert hash_document(left, BANK.account) != hash_document(right, BANK.account)


def test_nothing_can_be_replayed_at_another_bank() -> None:
    signed = REQUESTER.sign(VOUCHER)
    assert recover(signed, BANK.account)[1] == REQUESTER.account
    assert recover(signed, b"o" * 20)[1] != REQUESTER.account
    with pytest.raises(FallowError) as refused:
        recover(REQUESTER.sign(ORDER), b"o" * 20)
    assert refused.value.code == "E1101"


def test_a_certificate_is_good_at_every_bank() -> None:
    assert recover(REQUESTER.certificate(), BANK.account) == recover(REQUESTER.certificate(), NO_BANK)


def test_nothing_can_be_replayed_as_another_type() -> None:
    """Claimed and accepted hashes, or two kinds with equal fields, must not be taken for one another."""
    signed = REQUESTER.sign(VOUCHER)
    with pytest.raises(FallowError) as refused:
        open_signed(signed, Lease, BANK.account, REQUESTER.account)
    assert refused.value.code == "E1102"
    assert len({hash_document(document, BANK.account) for document in (VOUCHER, ORDER)}) == 2
    assert len({type_string(kind) for kind in KINDS}) == len(KINDS)


def test_a_document_opens_for_its_signer_only() -> None:
    signed = REQUESTER.sign(VOUCHER)
    assert open_signed(signed, Voucher, BANK.account, REQUESTER.account) == VOUCHER
    with pytest.raises(FallowError) as refused:
        open_signed(signed, Voucher, BANK.account, PROVIDER.account)
    assert refused.value.code == "E1101"


def signer_of(signed: Signed) -> bytes:
    """Whose signature it is; nobody's when it is refused as a peer's fault."""
    try:
        return recover(signed, BANK.account)[1]
    except PeerFault:
        return b""


@given(st.binary(min_size=65, max_size=65))
def test_any_signature_belongs_to_a_stranger_or_is_refused(signature: bytes) -> None:
    assert signer_of(Signed(encode(VOUCHER), signature)) != REQUESTER.account


@given(SECRETS, st.data())
def test_a_touched_signature_or_body_is_not_the_signers(secret: bytes, data: st.DataObject) -> None:
    signed = sign(VOUCHER, secret, BANK.account)
    whole = bytearray(signed.body + signed.signature)
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    assert signer_of(Signed(bytes(whole[:-65]), bytes(whole[-65:]))) != account_of(secret)


@given(SECRETS)
def test_the_twin_of_a_signature_is_refused(secret: bytes) -> None:
    """Whoever sees (r, s, v) can compute (r, -s, other v), which plain ECDSA takes for the same signer's."""
    signed = sign(VOUCHER, secret, BANK.account)
    s = int.from_bytes(signed.signature[32:64], "big")
    assert s <= ORDER_OF_CURVE // 2
    twin = signed.signature[:32] + (ORDER_OF_CURVE - s).to_bytes(32, "big") + bytes((55 - signed.signature[64],))
    assert EthAccount._recover_hash(hash_document(VOUCHER, BANK.account), signature=twin)[2:].lower() == (
        account_of(secret).hex()
    )
    with pytest.raises(FallowError) as refused:
        recover(Signed(signed.body, twin), BANK.account)
    assert refused.value.code == "E1101"


@pytest.mark.parametrize(
    "signature",
    [
        bytes(65),
        b"",
        bytes(64),
        bytes(66),
        bytes(64) + b"\x1b",
        b"\xff" * 64 + b"\x1b",
        b"\1" * 64 + b"\x1d",
        b"\1" * 64 + b"\x00",
        b"\1" * 64 + b"\x01",
        ORDER_OF_CURVE.to_bytes(32, "big") + b"\1" * 32 + b"\x1b",
        b"\1" * 32 + bytes(32) + b"\x1b",
    ],
)
def test_malformed_signatures_are_refused(signature: bytes) -> None:
    with pytest.raises(FallowError) as refused:
        recover(Signed(encode(VOUCHER), signature), BANK.account)
    assert refused.value.code == "E1101"


@pytest.mark.parametrize("body", [b"", b"\xc0", encode(VOUCHER) + b"\0", b"x" * 5000, encode(Signed(b"", bytes(65)))])
def test_what_is_no_document_is_refused(body: bytes) -> None:
    with pytest.raises(FallowError) as refused:
        recover(Signed(body, REQUESTER.sign(VOUCHER).signature), BANK.account)
    assert refused.value.code == "E1102"


@pytest.mark.parametrize(
    "document",
    [
        Voucher(b"short", 1),
        Voucher(b"l" * 33, 1),
        Voucher(b"l" * 32, -1),
        Voucher(b"l" * 32, 1 << 63),
        Voucher(b"l" * 32, 1 << 70),
        Voucher(b"l" * 32, "1"),  # pyright: ignore[reportArgumentType]
        msgspec.structs.replace(ORDER, kind="x" * 201),
        msgspec.structs.replace(ORDER, kind="\ud800"),
    ],
)
def test_what_nobody_would_take_is_not_signed(document: Document) -> None:
    with pytest.raises(ValueError, match="not a valid"):
        sign(document, REQUESTER.account_secret, BANK.account)


def test_a_document_for_another_bank_is_not_signed() -> None:
    with pytest.raises(ValueError, match="another bank"):
        sign(ORDER, REQUESTER.account_secret, b"o" * 20)
    with pytest.raises(ValueError, match="20 bytes"):
        sign(VOUCHER, REQUESTER.account_secret, b"o" * 32)


@pytest.mark.parametrize("secret", [b"", b"\1" * 31, b"\1" * 33, bytes(32), b"\xff" * 32])
def test_what_is_no_key_signs_nothing(secret: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the library words some of them
        sign(VOUCHER, secret, BANK.account)
