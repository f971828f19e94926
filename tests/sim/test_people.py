from __future__ import annotations

from fallow.sim.people import CERTIFICATE_MS, Person, digest
from fallow.wire.certificates import check_certificate
from fallow.wire.documents import Document, Voucher
from fallow.wire.eip712 import open_signed


def test_people_are_their_names() -> None:
    ann, again, bob = Person("ann"), Person("ann"), Person("bob")
    assert (ann.account, ann.node) == (again.account, again.node)
    assert ann.account != bob.account
    assert ann.node != bob.node


def test_one_account_may_have_many_nodes() -> None:
    one, other = Person("one", "rich"), Person("other", "rich")
    assert one.account == other.account
    assert one.node != other.node


def test_certificates_are_genuine() -> None:
    ann = Person("ann")
    certificate = check_certificate(ann.certificate, CERTIFICATE_MS + 1, ann.node)
    assert certificate.account == ann.account


def test_the_witness_sees_what_is_signed_and_not_what_is_forged() -> None:
    seen: list[tuple[bytes, Document]] = []
    ann = Person("ann", bank=b"b" * 20, saw=lambda account, document: seen.append((account, document)))
    voucher = Voucher(digest("lease"), 7)
    assert ann.sign(voucher) == ann.sign_unseen(voucher)
    assert seen == [(ann.account, voucher)]
    assert open_signed(ann.sign(voucher), Voucher, b"b" * 20, ann.account) == voucher


def test_digests_follow_from_what_is_said() -> None:
    assert digest("a", 1) == digest("a", 1) != digest("a", 2)
    assert len(digest()) == 32
