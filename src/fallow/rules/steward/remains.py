"""What the records of a former form prove, read without knowing that form.

A steward's memory changes its form now and then, and no reader of an old one is kept. But signed documents, addresses
and what a user asked for look the same wherever they stand, and documents prove themselves. So whatever holds them is
gone through from end to end, and all else is forgotten: enough to get the money of old leases back, to make receipts
about them, and to tell people what became of their jobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any, cast

import msgspec

from fallow.errors import FallowError
from fallow.rules.steward.events import UserSubmitted
from fallow.rules.steward.state import Leftover
from fallow.wire.claims import output_hash
from fallow.wire.codec import recall
from fallow.wire.documents import Certificate, Lease, Signed
from fallow.wire.eip712 import hash_document, recover
from fallow.wire.local import JobSpec
from fallow.wire.messages import NodeAddress
from fallow.wire.tasks import TaskOutput

SIGNATURE_BYTES, NODE_BYTES = 65, 32


class Remains:
    """What was found so far. `ours` and `theirs` map a lease to its document as each side signed it; `certificates` and
    `addresses` are by node, the last one seen; `asked` maps a job to when it was handed in and what it is (None: nobody
    here knows its form); `outputs` are those of the `wanted` hashes."""

    def __init__(self, bank: bytes, wanted: AbstractSet[bytes] = frozenset()) -> None:
        self._bank, self._wanted = bank, wanted
        self._seen: set[Signed] = set()
        self.terms: dict[bytes, Lease] = {}
        self.ours: dict[bytes, Signed] = {}
        self.theirs: dict[bytes, Signed] = {}
        self.certificates: dict[bytes, Signed] = {}
        self.addresses: dict[bytes, NodeAddress] = {}
        self.asked: dict[bytes, tuple[int, JobSpec | None]] = {}
        self.outputs: dict[bytes, TaskOutput] = {}

    def read(self, records: Iterable[bytes]) -> None:
        """Go through records, oldest first. One that is not even msgpack holds nothing."""
        for record in records:
            try:
                whole = msgspec.msgpack.decode(record)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            for item in _all_in(whole):
                self._look_at(item)

    def leftover(self, lease: bytes, owed_ucr: int) -> Leftover:
        """How a lease found here is settled. A provider whose address is not known is looked for by its key alone."""
        terms = self.terms[lease]
        peer = self.addresses.get(terms.provider_node, NodeAddress(terms.provider_node))
        return Leftover(peer, owed_ucr, terms.ends_ms)

    def _look_at(self, item: list[Any] | dict[str, Any]) -> None:
        if isinstance(item, dict):  # a job as a state held it
            if {"id", "created_ms", "spec"} <= item.keys():
                self._asked(item["id"], item["created_ms"], item["spec"])
            return
        kinds = tuple(map(type, cast("list[object]", item[:4])))
        if kinds == (bytes, bytes) and len(item[1]) == SIGNATURE_BYTES:
            self._document(Signed(*item))
        elif kinds[:2] == (bytes, list) and len(item[0]) == NODE_BYTES and len(item) <= 3:
            if (address := _as(NodeAddress, item)) is not None:
                self.addresses[address.node] = address
        elif kinds == (bytes, list) and self._wanted:
            self._output(item)
        elif kinds == (str, int, bytes, list) and len(item) == 4 and item[0] == UserSubmitted.__name__:
            self._asked(item[2], item[1], item[3])

    def _document(self, signed: Signed) -> None:
        if signed in self._seen:
            return
        self._seen.add(signed)
        try:
            document, account = recover(signed, self._bank)
        except FallowError:
            return
        if isinstance(document, Certificate) and account == document.account:
            self.certificates[document.node] = signed
        elif isinstance(document, Lease) and account in (document.requester, document.provider):
            lease = bytes(hash_document(document, self._bank))
            self.terms[lease] = document
            (self.ours if account == document.requester else self.theirs)[lease] = signed

    def _output(self, item: list[Any]) -> None:
        output = _as(TaskOutput, item)
        if output is not None and (digest := bytes(output_hash(output))) in self._wanted:
            self.outputs[digest] = output

    def _asked(self, job: bytes, at_ms: int, item: list[Any]) -> None:
        self.asked[job] = (at_ms, _as(JobSpec, item))


def _as(kind: type[Any], item: list[Any]) -> Any:
    try:
        return recall(kind, msgspec.msgpack.encode(item))
    except FallowError:
        return None


def _all_in(whole: Any) -> Iterator[list[Any] | dict[str, Any]]:
    """Every list and every map in a value, itself included, however deep; in their order."""
    waiting: list[Any] = [whole]
    while waiting:
        item: Any = waiting.pop()
        if isinstance(item, dict):
            found = cast("dict[str, Any]", item)
            yield found
            waiting.extend(reversed(list(found.values())))
        elif isinstance(item, list):
            listed = cast("list[Any]", item)
            yield listed
            waiting.extend(reversed(listed))
