"""Documents as EIP-712 typed data, signed with secp256k1: what a contract, a wallet or `eth-account` would compute, a
hundred times faster, because every type is laid out once as a fixed block of 32-byte words.

Source: EIP-712 (hashStruct, domain separator), EIP-2 (low s). The domain is {name, version, salt}; the salt is the
bank's address in a word, so a document for one bank means nothing at another. A certificate has a salt of zeros.

Defends against: documents changed after signing, replay at another bank or as another type, and malleable signatures
(for one document and key there is one acceptable signature that anyone else can derive). Does not defend against a
signer who signs two contradicting documents: that is for the rules to notice.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar, cast, get_args

import coincurve
import msgspec
import sha3  # pyright: ignore[reportMissingTypeStubs]

from fallow.errors import FallowError, fail
from fallow.units import Account, Digest
from fallow.wire.codec import decode, encode
from fallow.wire.documents import NO_BANK, AnyDocument, Certificate, Document, Signed

D = TypeVar("D", bound=Document)

MAX_DOCUMENT_BYTES = 4096

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_HALF_ORDER = (_ORDER // 2).to_bytes(32, "big")
_V_OFFSET = 27
_keccak = cast("Callable[[bytes], Any]", sha3.keccak_256)  # pyright: ignore[reportUnknownMemberType]


def keccak(data: bytes) -> bytes:
    """Keccak-256 as Ethereum uses it (not SHA3-256)."""
    return _keccak(data).digest()


class _Layout:
    """How one document class becomes its EIP-712 struct hash: its type string, and one `struct` format that lays all
    fields out as words. Strings are hashed first, as the standard wants."""

    def __init__(self, document: type[Document]) -> None:
        fields = msgspec.structs.fields(document)
        types = [_solidity_type(field.type) for field in fields]
        self.type_string = (
            f"{document.__name__}({','.join(f'{t} {f.name}' for t, f in zip(types, fields, strict=True))})"
        )
        self.type_hash = keccak(self.type_string.encode())
        words = {"bytes32": "32s", "address": "12x20s", "uint64": "24xQ", "string": "32s"}
        self._pack = struct.Struct(">32s" + "".join(words[t] for t in types)).pack
        self._get = attrgetter(*(field.name for field in fields))
        self._single = len(fields) == 1
        self._strings = tuple(i for i, t in enumerate(types) if t == "string")

    def struct_hash(self, document: Document) -> bytes:
        got = self._get(document)
        values: list[Any] = [got] if self._single else list(got)
        for i in self._strings:
            values[i] = keccak(values[i].encode())
        return keccak(self._pack(self.type_hash, *values))


def _solidity_type(annotation: object) -> str:
    """The EIP-712 type of a field: words, addresses, integers and text are all that documents hold."""
    base, *metas = get_args(annotation) or (annotation,)
    lengths = [(m.min_length, m.max_length) for m in metas if isinstance(m, msgspec.Meta)]
    if base is int:
        return "uint64"
    if base is str:
        return "string"
    assert lengths in ([(20, 20)], [(32, 32)]), f"no EIP-712 type for {annotation}"
    return "address" if lengths == [(20, 20)] else "bytes32"


_LAYOUTS: dict[type[Document], _Layout] = {kind: _Layout(kind) for kind in get_args(AnyDocument)}
_DOMAIN_TYPE = keccak(b"EIP712Domain(string name,string version,bytes32 salt)")
_DOMAIN_HEAD = _DOMAIN_TYPE + keccak(b"Fallow") + keccak(b"1") + bytes(12)


@lru_cache(maxsize=64)
def _domain_separator(bank: bytes) -> bytes:
    return keccak(_DOMAIN_HEAD + bank)


def type_string(kind: type[Document]) -> str:
    """The EIP-712 `encodeType` of a document class: `"Voucher(bytes32 lease,uint64 cumulative_ucr)"`."""
    return _LAYOUTS[kind].type_string


def hash_document(document: Document, bank: bytes) -> Digest:
    """The 32 bytes that are signed: keccak(0x1901 ‖ domain separator ‖ struct hash). `bank` is ignored for a
    Certificate. Raises ValueError for a document that breaks its own constraints (a short hash would otherwise be
    padded in silence) or names another bank."""
    return _digest(_valid(document, bank), bank)


def sign(document: Document, secret_key: bytes, bank: bytes) -> Signed:
    """Sign with the account's 32-byte secret; deterministic (RFC 6979). Raises ValueError as `hash_document` does, or
    for a secret that is no key."""
    digest = hash_document(document, bank)
    key: Any = _private_key(secret_key)  # one parameter of sign_recoverable has no type
    raw: bytes = key.sign_recoverable(digest, hasher=None)
    return Signed(encode(document), raw[:64] + bytes((raw[64] + _V_OFFSET,)))


def recover(signed: Signed, bank: bytes) -> tuple[AnyDocument, Account]:
    """Who signed what: decodes the received bytes strictly and recovers the account. Raises PeerFault E1102 for a body
    that is no document, E1101 for a signature that is malformed or malleable, or a document that names another bank
    than `bank`. Any well-formed signature belongs to *some* account: the caller must compare it."""
    document: AnyDocument = decode(AnyDocument, signed.body, MAX_DOCUMENT_BYTES)
    if not _bank_agrees(document, bank):
        raise fail("E1101", f"a {type(document).__name__} for another bank")
    return document, _recover_account(_digest(document, bank), signed.signature)


def open_signed(signed: Signed, kind: type[D], bank: bytes, signer: bytes) -> D:
    """`recover`, when one knows what it must be and who must have signed it. Raises PeerFault E1101 for another signer,
    E1102 for another kind."""
    document, account = recover(signed, bank)
    if not isinstance(document, kind):
        raise fail("E1102", f"a {type(document).__name__} where a {kind.__name__} was expected")
    if account != signer:
        raise fail("E1101", f"a {kind.__name__} signed by 0x{account.hex()} instead of 0x{signer.hex()}")
    return document


def account_of(secret_key: bytes) -> Account:
    """The address of a 32-byte secret. Raises ValueError for a secret that is no key."""
    return _address(_private_key(secret_key).public_key)


def _private_key(secret_key: bytes) -> coincurve.PrivateKey:
    if len(secret_key) != 32:  # coincurve would pad a short one in silence
        raise ValueError(f"an account's secret has 32 bytes, not {len(secret_key)}")
    return coincurve.PrivateKey(secret_key)


def _digest(document: Document, bank: bytes) -> Digest:
    kind = type(document)
    domain = _domain_separator(NO_BANK if kind is Certificate else bank)
    return Digest(keccak(b"\x19\x01" + domain + _LAYOUTS[kind].struct_hash(document)))


def _valid(document: D, bank: bytes) -> D:
    if len(bank) != 20:
        raise ValueError(f"a bank is an account of 20 bytes, not {len(bank)}")
    try:
        decode(type(document), encode(document), MAX_DOCUMENT_BYTES)
    except (FallowError, TypeError, OverflowError, UnicodeEncodeError) as error:
        raise ValueError(f"not a valid {type(document).__name__}: {error}") from None
    if not _bank_agrees(document, bank):
        raise ValueError(f"this {type(document).__name__} names another bank")
    return document


def _bank_agrees(document: Document, bank: bytes) -> bool:
    return getattr(document, "bank", bank) == bank


def _recover_account(digest: bytes, signature: bytes) -> Account:
    v = signature[64] - _V_OFFSET if len(signature) == 65 else -1
    if v not in (0, 1) or signature[32:64] > _HALF_ORDER:  # the high twin of s would be a second valid signature
        raise fail("E1101", "a malformed signature")
    try:
        key = coincurve.PublicKey.from_signature_and_message(signature[:64] + bytes((v,)), digest, hasher=None)
    except ValueError:
        raise fail("E1101", "a signature that no key can have made") from None
    return _address(key)


def _address(key: coincurve.PublicKey) -> Account:
    return Account(keccak(key.format(compressed=False)[1:])[12:])
