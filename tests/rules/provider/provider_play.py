"""A provider's machine with a log, as its interpreter would drive it, for playbook and property tests."""

from __future__ import annotations

from typing import Any

import msgspec

from fallow.rules.placement import Capacity
from fallow.rules.provider import events as t
from fallow.rules.provider.machine import outstanding, recover, transition
from fallow.rules.provider.state import ProviderState
from fallow.units import GIB
from fallow.wire.claims import task_id
from fallow.wire.documents import Lease, Order, Quote, Signed
from fallow.wire.eip712 import hash_document
from fallow.wire.messages import Gpu
from fallow.wire.tasks import TaskOutput, TaskSpec

BANK, PROVIDER, NODE = b"b" * 20, b"p" * 20, b"n" * 32
ANNA, ANNA_NODE = b"a" * 20, b"A" * 32
EVE, EVE_NODE = b"e" * 20, b"E" * 32
SIGNED = Signed(b"x", bytes(65))
START_MS = 1_000_000
CARDS = (Gpu("g0", "card", 24 * GIB), Gpu("g1", "card", 8 * GIB))


def terms(**changes: Any) -> t.ProviderTerms:
    base = t.ProviderTerms(
        PROVIDER, NODE, BANK, Capacity(4_000, 8 * GIB, 100 * GIB, CARDS), "x86", {"echo": 1_000, "train": 500}
    )
    return msgspec.structs.replace(base, **changes)


def order(nonce: int = 1, **changes: Any) -> Order:
    base = Order(
        requester=ANNA, node=ANNA_NODE, job=b"j" * 32, kind="echo", numerics="", cpu_millis=1_000, ram_bytes=GIB,
        disk_bytes=0, gpus=0, gpu_ram_bytes=0, units=1_000, max_price_ucr=2_000, min_stake_ucr=0, verify="audit",
        ends_ms=START_MS + 3_600_000, bank=BANK, nonce=nonce.to_bytes(32, "big"),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def lease_for(wanted: Order, quote: Quote, **changes: Any) -> Lease:
    base = Lease(
        order=hash_document(wanted, BANK), quote=hash_document(quote, BANK), requester=wanted.requester,
        provider=quote.provider, requester_node=wanted.node, provider_node=quote.node, kind=wanted.kind,
        price_ucr=quote.price_ucr, cap_ucr=1_000_000, stake_ucr=quote.stake_ucr, starts_ms=START_MS,
        ends_ms=wanted.ends_ms, bank=BANK,
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def spec(number: int, units: int = 10, **changes: Any) -> TaskSpec:
    base = TaskSpec("echo", b"", (), seed=number, units=units, timeout_s=60, ram_bytes=0)
    return msgspec.structs.replace(base, **changes)


def output(text: bytes = b"out") -> TaskOutput:
    return TaskOutput(text, ())


class Play:
    """Drives the machine and keeps its log, dropping what changed nothing."""

    def __init__(self, **changes: Any) -> None:
        self.state = ProviderState(terms(**changes))
        self.log: list[bytes] = []
        self.now_ms = START_MS
        self.emitted: list[t.EmitEvent | t.SignClaim] = []
        self.put(t.ProviderRestarted, terms(**changes))

    def put(self, kind: Any, *fields: Any, **named: Any) -> list[Any]:
        """Let an event happen now; -> its effects."""
        event = kind(self.now_ms, *fields, **named)
        before = self.state.changes
        effects = transition(self.state, event)
        if self.state.changes != before:
            self.log.append(msgspec.msgpack.encode(event))
        self.emitted += [e for e in effects if isinstance(e, t.EmitEvent | t.SignClaim)]
        return effects

    def later(self, ms: int) -> list[Any]:
        self.now_ms += ms
        return self.put(t.ClockTicked)

    def replayed(self) -> tuple[ProviderState, list[Any]]:
        """What a new process makes of the log."""
        decoder = msgspec.msgpack.Decoder(t.ProviderEvent)
        state = ProviderState(self.state.terms)
        return state, recover(state, [decoder.decode(event) for event in self.log])

    def quote(self, wanted: Order, caller: bytes = b"", signer: bytes = b"") -> Any:
        return _reply(self.put(t.PeerOrdered, caller or wanted.node, signer or wanted.requester, wanted))

    def propose(self, lease: Lease, caller: bytes = b"", signer: bytes = b"") -> Any:
        caller, signer = caller or lease.requester_node, signer or lease.requester
        return _reply(self.put(t.PeerProposedLease, caller, signer, lease, SIGNED))

    def sign(self, nonce: int = 1, cap_ucr: int = 1_000_000, **changes: Any) -> bytes:
        """Order, quote and lease; -> the lease's id."""
        wanted = order(nonce, **changes)
        reply = self.quote(wanted)
        assert isinstance(reply, t.ReplyQuote), reply
        lease = lease_for(wanted, reply.quote, cap_ucr=cap_ucr)
        assert isinstance(self.propose(lease), t.CountersignLease)
        return hash_document(lease, BANK)

    def open(self, nonce: int = 1, cap_ucr: int = 1_000_000, **changes: Any) -> bytes:
        lease = self.sign(nonce, cap_ucr, **changes)
        self.put(t.LedgerOpened, lease)
        return lease

    def assign(self, lease: bytes, task: TaskSpec, caller: bytes = ANNA_NODE) -> list[Any]:
        return self.put(t.PeerAssigned, caller, lease, task_id(task), task, ())

    def finish(self, lease: bytes, task: TaskSpec) -> list[Any]:
        return self.put(t.WorkerFinished, lease, task_id(task), output(), {})

    def pay(self, lease: bytes, cumulative_ucr: int, signer: bytes = ANNA, caller: bytes = ANNA_NODE) -> list[Any]:
        return self.put(t.PeerPaid, caller, signer, lease, cumulative_ucr, SIGNED)

    def outstanding(self) -> list[Any]:
        return outstanding(self.state, self.now_ms)


def _reply(effects: list[Any]) -> Any:
    """Deadlines that passed may have effects of their own, before the reply."""
    (reply,) = [effect for effect in effects if isinstance(effect, t.Replies)]
    return reply


def kinds(effects: list[Any]) -> list[str]:
    return [type(effect).__name__ for effect in effects]
