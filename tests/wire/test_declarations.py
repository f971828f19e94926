"""The modules that only declare: documents, tasks, messages, ledger, local, worker (and the structs of receipts and
trees)."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.wire.making import declared, structs, unbounded, union, violations

from fallow.errors import FallowError
from fallow.wire import ledger, local, messages, worker
from fallow.wire.codec import decode, encode
from fallow.wire.documents import AnyDocument, Document, HostedOrder, Signed
from fallow.wire.messages import Message

STRUCTS = declared()
MESSAGES = [kind for kind in STRUCTS if issubclass(kind, Message)]
ANY_MESSAGE = union(MESSAGES)

FREE = {
    # Bounded by the lane's stream, which takes no message over the size limit; checking here would cost every task.
    "PaidTask.params",
    "LaneResult.code",
    "LaneResult.what",
}
"""Fields of messages that may be as large as a whole message."""


def test_there_is_something_to_check() -> None:
    assert len(MESSAGES) > 80
    assert {messages.Ok, ledger.Slash, local.SubmitJob} <= set(MESSAGES)


@pytest.mark.parametrize("base", [Message, Document, worker.WorkerMessage], ids=lambda base: base.__name__)
def test_every_tag_is_unique(base: type[msgspec.Struct]) -> None:
    tags = Counter(kind.__struct_config__.tag for kind in STRUCTS if issubclass(kind, base))
    assert None not in tags
    assert [tag for tag, count in tags.items() if count > 1] == []


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
def test_every_struct_is_strict(kind: type[msgspec.Struct]) -> None:
    config = kind.__struct_config__
    assert (config.frozen, config.array_like, config.forbid_unknown_fields) == (True, True, True)
    assert not config.omit_defaults


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(data=st.data())
def test_every_struct_comes_back_as_it_went(kind: type[msgspec.Struct], data: st.DataObject) -> None:
    value = data.draw(structs(kind))
    assert decode(kind, encode(value), 1 << 24) == value
    if isinstance(value, Message):
        assert decode(ANY_MESSAGE, encode(value), 1 << 24) == value


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
@settings(max_examples=1, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(data=st.data())
def test_nothing_outside_its_bounds_is_taken(kind: type[msgspec.Struct], data: st.DataObject) -> None:
    value = data.draw(structs(kind))
    for name, outside in violations(kind):
        touched = msgspec.structs.replace(value, **{name: outside})
        try:
            sent = encode(touched)
        except OverflowError:  # an integer that msgpack cannot even write
            continue
        with pytest.raises(FallowError) as refused:
            decode(kind, sent, 1 << 24)
        assert refused.value.code == "E1102", name


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(max_examples=3, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(data=st.data())
def test_a_message_with_more_or_less_in_it_is_refused(kind: type[msgspec.Struct], data: st.DataObject) -> None:
    """Also one whose last fields have defaults: leaving them out would be a second encoding of the same message."""
    fields = msgspec.msgpack.decode(encode(data.draw(structs(kind))))
    for touched in ([*fields, None], fields[:-1], [*fields, *fields], {"type": kind.__name__}, fields[1:]):
        with pytest.raises(FallowError) as refused:
            decode(ANY_MESSAGE, msgspec.msgpack.encode(touched), 1 << 24)
        assert refused.value.code == "E1102"


def test_every_size_that_a_peer_chooses_is_bounded() -> None:
    free = {name for kind in STRUCTS if kind.__module__ != worker.__name__ for name in unbounded(kind)}
    assert free == FREE


def test_no_document_is_larger_than_what_a_signature_covers() -> None:
    """Label fields of four-byte characters are the most that a document can hold."""
    label, most = "\N{GRINNING FACE}" * 200, (1 << 63) - 1
    order = HostedOrder(
        requester=bytes(20), node=bytes(32), job=bytes(32), kind=label, numerics=label, cpu_millis=most, ram_bytes=most,
        disk_bytes=most, gpus=most, gpu_ram_bytes=most, units=most, max_price_ucr=most, min_stake_ucr=most,
        verify=label, ends_ms=most, bank=bytes(20), nonce=bytes(32), ports=label[:60], network=label[:60],
        storage_bytes=most,
    )  # fmt: skip
    body = encode(order)
    assert decode(AnyDocument, body, 4096)
    assert decode(Signed, encode(Signed(body, bytes(65))))
