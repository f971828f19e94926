"""What can be known of a request without the books: its signatures, hashes and Merkle paths, checked once, before the
rules see it. Pure, and the slow part (about 0.1 ms for each signature), so that a home does it outside its transaction.

Defends against: forged or altered documents, documents of another bank or kind, evidence that does not hang together.
What depends on the state (is the signer *this* lease's requester?) is left to the transition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec
from blake3 import blake3

from fallow.errors import FallowError, PeerFault, fail
from fallow.kinds.registry import KINDS
from fallow.units import MAX_UCR, cost_ucr
from fallow.wire.certificates import read_certificate
from fallow.wire.claims import evidence_holds, setting_hash, task_id
from fallow.wire.codec import decode, encode
from fallow.wire.documents import Certificate, ClaimRoot, Document, Lease, Order, Signed, Verdict, Voucher
from fallow.wire.eip712 import hash_document, recover
from fallow.wire.ledger import (
    Appeal,
    CloseEscrow,
    Deposit,
    DrawAuditors,
    Evidence,
    Grant,
    IssueToken,
    OpenAccount,
    OpenEscrow,
    Redeem,
    Refusal,
    Rule,
    Slash,
    SlashEquivocation,
    Transfer,
    Unbond,
)
from fallow.wire.messages import Message

D = TypeVar("D", bound=Document)

UNREAD = bytes(32)
"""The operation of an answer to a document that could not be read."""


class Refused(msgspec.Struct, frozen=True):
    """A request that no state of the books can make good."""

    operation: bytes
    reason: Refusal
    detail: str = ""


class OrderFacts(msgspec.Struct, frozen=True):
    """Of a request with an operation id of its own: `request` is the hash of all that it says."""

    operation: bytes
    request: bytes


class AccountFacts(msgspec.Struct, frozen=True):
    """The certificate is signed by the account that it names. `token` is the hash of the token, b"" for none."""

    operation: bytes
    certificate: Certificate
    token: bytes


class LeaseFacts(msgspec.Struct, frozen=True):
    """Both sides signed this lease (its hash is `operation`), and both nodes that it names are certified by them."""

    operation: bytes
    lease: Lease
    expires_ms: int
    """When the first of the two certificates expires."""


class VoucherFacts(msgspec.Struct, frozen=True):
    """`signer` promised `cumulative_ucr` under `lease`."""

    operation: bytes
    lease: bytes
    cumulative_ucr: int
    signer: bytes


class CloseFacts(msgspec.Struct, frozen=True):
    """Nothing to check: `operation` is the lease."""

    operation: bytes


class ClaimFacts(msgspec.Struct, frozen=True):
    """`signer` committed to the claim with hash `operation`. `seed` is fresh randomness, used if it has none yet."""

    operation: bytes
    lease: bytes
    signer: bytes
    seed: bytes


class Witness(msgspec.Struct, frozen=True):
    """`account` signed `lease` as its provider and a claim under it that commits to the accepted answer."""

    lease: bytes
    account: bytes


class VerdictFacts(msgspec.Struct, frozen=True):
    """`signer` charges that under the lease task `ground` was answered wrongly. `accused` signed that lease as its
    provider, and `claim`, worth `worth_ucr`, that commits to the answer called wrong; every witness committed to the
    same other answer of the same whole task, on a machine of the same class where that matters; `evidence` shows it.
    For equivocation `ground` is the sequence number as a word, and there are no witnesses and no claim."""

    operation: bytes
    lease: bytes
    ground: bytes
    signer: bytes
    accused: bytes
    slash_ucr: int
    witnesses: tuple[Witness, ...] = ()
    claim: bytes = b""
    worth_ucr: int = 0
    evidence: bytes = b""


class ChargeFacts(msgspec.Struct, frozen=True):
    """An answer to a charge over `ground` under the lease `operation`."""

    operation: bytes
    ground: bytes


Facts = OrderFacts | AccountFacts | LeaseFacts | VoucherFacts | CloseFacts | ClaimFacts | VerdictFacts | ChargeFacts


def token_hash(token: str) -> bytes:
    """How the books know a join token. Tokens hold at least 128 random bits, so a plain hash hides them."""
    return blake3(token.encode(), derive_key_context="fallow join token 1").digest()


def examine(request: Message, bank: bytes, seed: bytes = b"") -> Facts | Refused:
    """Check everything about `request` that needs no state. `seed` is randomness for DrawAuditors. Raises TypeError for
    a message that is no LedgerRequest."""
    match request:
        case Grant() | IssueToken() | Transfer() | Deposit() | Unbond():
            return _order(request, request.operation)
        case CloseEscrow(lease):
            return CloseFacts(lease) if len(lease) == 32 else Refused(UNREAD, Refusal.BAD_DOCUMENT)
        case Appeal(lease, task) | Rule(lease, task):
            words = len(lease) == len(task) == 32
            return ChargeFacts(lease, task) if words else Refused(UNREAD, Refusal.BAD_DOCUMENT)
        case OpenAccount():
            return _checked(request.operation, lambda: _account(request))
        case OpenEscrow():
            return _checked(UNREAD, lambda: _lease(request, bank))
        case Redeem(voucher):
            return _checked(UNREAD, lambda: _voucher(voucher, bank))
        case DrawAuditors(claim):
            return _checked(UNREAD, lambda: _claim(claim, bank, seed))
        case Slash():
            return _checked(UNREAD, lambda: _slash(request, bank))
        case SlashEquivocation():
            return _checked(UNREAD, lambda: _equivocation(request, bank))
        case _:
            raise TypeError(f"a ledger is not asked for {type(request).__name__}")


def _order(request: Message, operation: bytes) -> OrderFacts | Refused:
    """Whoever builds a request in the same process has not been through a decoder, which alone checks limits."""
    try:
        body = encode(request)
        decode(type(request), body)
    except (FallowError, TypeError, OverflowError, UnicodeEncodeError) as error:
        return Refused(operation, Refusal.BAD_DOCUMENT, str(error)[:200])
    return OrderFacts(operation, blake3(body).digest())


def _checked(operation: bytes, check: Callable[[], Facts | Refused]) -> Facts | Refused:
    try:
        return check()
    except PeerFault as error:
        reason = Refusal.WRONG_SIGNER if error.code == "E1101" else Refusal.BAD_DOCUMENT
        return Refused(operation, reason, error.what[:200])


def _open(signed: Signed, kind: type[D], bank: bytes) -> tuple[D, bytes, bytes]:
    """-> the document, who signed it, and its hash. Raises PeerFault."""
    document, signer = recover(signed, bank)
    if not isinstance(document, kind):
        raise fail("E1102", f"a {type(document).__name__} where a {kind.__name__} was expected")
    return document, signer, hash_document(document, bank)


def _account(request: OpenAccount) -> AccountFacts:
    certificate = read_certificate(request.certificate)
    return AccountFacts(request.operation, certificate, token_hash(request.token) if request.token else b"")


def _lease(request: OpenEscrow, bank: bytes) -> LeaseFacts | Refused:
    lease, requester, lease_id = _open(request.lease, Lease, bank)
    if requester != lease.requester:
        return Refused(lease_id, Refusal.WRONG_SIGNER, "the requester did not sign this lease")
    # A provider's signature under other terms must not lock its stake under these: same bytes or nothing.
    if request.provider_signature.body != request.lease.body:
        return Refused(lease_id, Refusal.BAD_DOCUMENT, "the two sides signed different leases")
    if _open(request.provider_signature, Lease, bank)[1] != lease.provider:
        return Refused(lease_id, Refusal.WRONG_SIGNER, "the provider did not sign this lease")
    ours, theirs = read_certificate(request.requester_certificate), read_certificate(request.provider_certificate)
    named = ((lease.requester, lease.requester_node), (lease.provider, lease.provider_node))
    # A lease must not name nodes that never agreed to work or pay for these accounts.
    if ((ours.account, ours.node), (theirs.account, theirs.node)) != named:
        return Refused(lease_id, Refusal.WRONG_CERTIFICATE, "a certificate names another account or node")
    return LeaseFacts(lease_id, lease, min(ours.expires_ms, theirs.expires_ms))


def _voucher(signed: Signed, bank: bytes) -> VoucherFacts:
    voucher, signer, digest = _open(signed, Voucher, bank)
    return VoucherFacts(digest, voucher.lease, voucher.cumulative_ucr, signer)


def _claim(signed: Signed, bank: bytes, seed: bytes) -> ClaimFacts:
    claim, signer, digest = _open(signed, ClaimRoot, bank)
    return ClaimFacts(digest, claim.lease, signer, seed)


def _slash(request: Slash, bank: bytes) -> VerdictFacts | Refused:
    verdict, signer, digest = _open(request.verdict, Verdict, bank)
    # A verdict over one task must not be proved with claims about another.
    if verdict.task != task_id(request.task) or verdict.claimed == verdict.accepted:
        return Refused(digest, Refusal.BAD_EVIDENCE, "the verdict is about another task, or about no difference")
    setting = _setting(request)
    if setting is None or len(request.orders) != 1 + len(request.others):
        return Refused(digest, Refusal.BAD_EVIDENCE, "the evidence does not name the whole task")
    accused, *others = (
        _committed(evidence, order, request, setting, bank)
        for evidence, order in zip((request.accused, *request.others), request.orders, strict=True)
    )
    if accused is None or request.accused.output != verdict.claimed or accused.lease_id != verdict.lease:
        return Refused(digest, Refusal.BAD_EVIDENCE, "no claim of the accused under this lease says so")
    agreeing = [other for other in others if other is not None]
    if len(agreeing) < len(others) or any(evidence.output != verdict.accepted for evidence in request.others):
        return Refused(digest, Refusal.BAD_WITNESS, "a witness did not commit to the accepted answer")
    if not _alike(request.task.kind, [accused.numerics, *(other.numerics for other in agreeing)]):
        return Refused(digest, Refusal.UNLIKE_MACHINES)
    worth_ucr = min(cost_ucr(accused.claim.units, accused.lease.price_ucr), MAX_UCR)
    witnesses = tuple(Witness(other.lease_id, other.lease.provider) for other in agreeing)
    return VerdictFacts(
        digest, verdict.lease, verdict.task, signer, accused.lease.provider, verdict.slash_ucr, witnesses,
        accused.claim_hash, worth_ucr, encode(request),
    )  # fmt: skip


def _setting(request: Slash) -> bytes | None:
    """The lanes' `setting_hash`, b"" for assigned tasks; None where that is not one and the same for everybody, or the
    task says anything that the leaves do not: in other words it would be another task, and one lie be charged twice."""
    evidence, task, setting = (request.accused, *request.others), request.task, request.setting
    if not any(one.number for one in evidence):
        return b"" if setting is None else None
    if setting is None or not all(one.number for one in evidence):
        return None
    whole = (setting.kind, setting.inputs, request.accused.units, 0, 0)
    if whole != (task.kind, task.inputs, task.units, task.timeout_s, task.ram_bytes):
        return None
    return setting_hash(setting)


class _Committed(NamedTuple):
    """What one piece of evidence shows: whose lease and claim hold the answer, and for which class of machines."""

    lease: Lease
    lease_id: bytes
    claim: ClaimRoot
    claim_hash: bytes
    numerics: str


def _committed(evidence: Evidence, order: Signed, request: Slash, setting: bytes, bank: bytes) -> _Committed | None:
    """Who committed to the answer in `evidence`, or None when it does not show it."""
    task = request.task
    try:
        lease, signer, lease_id = _open(evidence.lease, Lease, bank)
        claim, claimant, claim_hash = _open(evidence.claim, ClaimRoot, bank)
        ordered, _, order_id = _open(order, Order, bank)
    except PeerFault:
        return None
    # A lease or claim that somebody else signed would pin a stranger's answer on this account; an order that the lease
    # does not name would put its machine into another class.
    if not signer == claimant == lease.provider or claim.lease != lease_id or lease.order != order_id:
        return None
    # Of the whole task only what the leaf names is proven: it does not name the kind of an assigned task's lease.
    if lease.kind != task.kind or not evidence_holds(evidence, task, claim.root, claim.count, setting):
        return None
    return _Committed(lease, lease_id, claim, claim_hash, ordered.numerics)


def _alike(kind: str, classes: list[str]) -> bool:
    """Whether answers of these classes of machines can be compared. "" is no class: where bits depend on the machine,
    two that were asked for nothing in particular may differ honestly."""
    found = KINDS.get(kind)
    return len(set(classes)) == 1 and (classes[0] != "" or (found is not None and found.same_everywhere))


def _equivocation(request: SlashEquivocation, bank: bytes) -> VerdictFacts | Refused:
    first, signer, one = _open(request.first, ClaimRoot, bank)
    second, other_signer, two = _open(request.second, ClaimRoot, bank)
    digest = blake3(min(one, two) + max(one, two)).digest()
    same = first.lease == second.lease == request.lease and first.sequence == second.sequence
    # One root sent twice, or signed again with the same words, is no contradiction.
    if not same or first.root == second.root or signer != other_signer:
        return Refused(digest, Refusal.BAD_EVIDENCE, "these claims do not contradict each other")
    ground = first.sequence.to_bytes(32, "big")
    return VerdictFacts(digest, request.lease, ground, b"", signer, (1 << 63) - 1)
