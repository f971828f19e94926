"""What a record proves is found in it, whatever form the record has."""

from __future__ import annotations

from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.parties import BANK, PROVIDER, REQUESTER, deal

from fallow.rules.steward.remains import Remains
from fallow.rules.steward.snapshot import is_former
from fallow.rules.steward.state import Leftover
from fallow.wire.claims import output_hash
from fallow.wire.codec import encode
from fallow.wire.documents import Signed
from fallow.wire.eip712 import hash_document, sign
from fallow.wire.local import BatchJob, JobSpec
from fallow.wire.messages import NodeAddress
from fallow.wire.tasks import TaskOutput

SAMPLE = Path(__file__).parent / "steward_snapshot_1.bin"
"""A snapshot of the first form, which nothing reads as a snapshot any more."""
LEASE = deal(PROVIDER).lease
SPEC = JobSpec(BatchJob("echo", (b"a", b"b"), (), 1), 1_000, 10, 2, name="mine")
HASH = bytes(hash_document(LEASE, BANK.account))


def remains(*records: object, wanted: frozenset[bytes] = frozenset()) -> Remains:
    found = Remains(BANK.account, wanted)
    found.read([msgspec.msgpack.encode(record) for record in records])
    return found


def nested(item: object) -> list[object]:
    """Forms that never were."""
    return [item, {"a": [1, {"b": item}]}, [[[item]], None], {b"k": {7: (item, "x")}}]


def test_papers_addresses_and_jobs_are_found_wherever_they_stand() -> None:
    address = NodeAddress(PROVIDER.node, ("127.0.0.1:7",), "")
    for form in range(4):
        found = remains(
            nested(PROVIDER.sign(LEASE))[form], nested(REQUESTER.sign(LEASE))[form],
            nested(PROVIDER.certificate())[form], nested(address)[form],
            nested(["UserSubmitted", 5, b"j" * 32, SPEC])[form],
            nested({"id": b"k" * 32, "created_ms": 6, "spec": SPEC, "more": 1})[form],
        )  # fmt: skip
        assert found.terms == {HASH: LEASE}
        assert (found.ours, found.theirs) == ({HASH: REQUESTER.sign(LEASE)}, {HASH: PROVIDER.sign(LEASE)})
        assert found.certificates == {PROVIDER.node: PROVIDER.certificate()}
        assert found.asked == {b"j" * 32: (5, SPEC), b"k" * 32: (6, SPEC)}
        assert found.leftover(HASH, 77) == Leftover(address, 77, LEASE.ends_ms)


def test_a_lease_that_nobody_of_the_two_signed_is_none() -> None:
    forged = Signed(encode(LEASE), BANK.sign(LEASE).signature)
    broken = Signed(encode(LEASE), bytes(65))
    elsewhere = sign(msgspec.structs.replace(LEASE, bank=b"e" * 20), REQUESTER.account_secret, b"e" * 20)
    assert remains([forged, broken, elsewhere]).terms == {}


def test_an_output_is_kept_only_when_somebody_asks_for_its_hash() -> None:
    output = TaskOutput(b"no", ())
    assert remains([1, output]).outputs == {}
    wanted = bytes(output_hash(output))
    assert remains([1, output], wanted=frozenset({wanted})).outputs == {wanted: output}


def test_a_snapshot_of_the_first_form_holds_what_is_needed_to_settle_its_leases() -> None:
    raw = SAMPLE.read_bytes()
    assert is_former(raw)
    bank = msgspec.msgpack.decode(raw)["state"]["identity"][2]
    found = Remains(bank)
    found.read([raw])
    assert [spec and spec.name for _, spec in found.asked.values()] == [spec["spec"][7] for spec in _jobs(raw)]
    assert found.terms == {}  # its signatures are a test's
    assert found.addresses


def _jobs(raw: bytes) -> list[dict[str, list[str]]]:
    return list(msgspec.msgpack.decode(raw)["state"]["jobs"].values())


_DEEP = st.recursive(
    st.none() | st.integers(-(1 << 63), (1 << 64) - 1) | st.binary(max_size=70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.lists(_DEEP | st.binary(max_size=40), max_size=5))
def test_whatever_a_record_is_reading_it_raises_nothing(records: list[object]) -> None:
    found = remains(*records, wanted=frozenset({b"x" * 32}))
    found.read([record for record in records if isinstance(record, bytes)])
    assert found.terms == {}
