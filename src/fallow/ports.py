"""What the rules' interpreters need of the world, as Protocols. Each has a real adapter and a seeded fake in `sim/`,
and one contract suite in `tests/contracts/` that both pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from fallow.rules.idle import Reading
from fallow.units import BlobId, NodeId
from fallow.wire import documents
from fallow.wire.documents import Signed
from fallow.wire.ledger import (
    Appeal,
    BalanceOf,
    Books,
    OpenCharge,
    OpenEscrow,
    Rule,
    Slash,
    SlashEquivocation,
)
from fallow.wire.messages import Hardware, Message, NodeAddress
from fallow.wire.worker import FromWorker, ToWorker


class Clock(Protocol):
    """Time. Nothing else in Fallow reads a clock."""

    def now_ms(self) -> int:
        """Unix time in milliseconds; may jump when the machine's clock is set."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some moment; never jumps."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class Entropy(Protocol):
    def draw(self, size_bytes: int) -> bytes:
        """Unpredictable bytes (seeded in the simulator)."""
        ...


class Stream(Protocol):
    """One bidirectional byte stream. `send` returns when flow control has taken the bytes, so a slow reader slows the
    writer down. Errors: UnavailableError E1801 when the peer or the connection is gone."""

    async def send(self, data: bytes) -> None: ...

    async def finish(self) -> None:
        """No more bytes from here; the other direction stays open."""
        ...

    async def read(self, limit: int) -> bytes:
        """1 to `limit` bytes, or b"" after the peer finished."""
        ...

    def abort(self) -> None:
        """Give up both directions at once; what was sent before `finish` still arrives. Never waits, never raises."""
        ...


class Connection(Protocol):
    """An authenticated connection; `peer` has proved that it holds its key."""

    @property
    def peer(self) -> NodeId: ...

    async def open(self) -> Stream: ...

    def accepted(self) -> AsyncIterator[Stream]:
        """Streams that the peer opens; ends when the connection does."""
        ...

    async def close(self) -> None: ...


class Transport(Protocol):
    """Dial by public key. Errors: UnavailableError E1801 when nobody answers within `timeout_s`."""

    @property
    def node(self) -> NodeId: ...

    def address(self) -> NodeAddress: ...

    async def connect(self, address: NodeAddress, timeout_s: float) -> Connection: ...

    def accepted(self) -> AsyncIterator[Connection]: ...

    async def close(self) -> None: ...


class Partial(Protocol):
    """A blob on its way in. Chunks may come in any order and from several threads at once; what was taken survives a
    crash and is checked again by the next `begin`."""

    def missing(self) -> Sequence[int]:
        """The chunks still to come, in order."""
        ...

    def write(self, index: int, data: bytes | bytearray | memoryview) -> None:
        """Check a chunk and keep it. PeerFault E1601 when it does not match its hash, and then nothing is kept;
        UnavailableError E1603 when the disk is full, and then the whole partial is gone. A chunk that is here already
        is ignored."""
        ...

    def commit(self) -> None:
        """Make the complete blob readable, durably. It is an error of ours to call it while chunks are missing."""
        ...

    def close(self) -> None:
        """Stop for now and keep what is here; harmless after `commit`."""
        ...


class Blobs(Protocol):
    """Content-addressed bytes on this machine, verified on the way in and on the way out, bounded by a quota. Sizes in
    bytes. Blobs that nobody pinned are dropped, least recently used first, when room is needed. Safe to call from
    several threads. Errors: UnavailableError E1602 for what is not here (or was, and turned out damaged and was
    dropped), E1603 when full; PeerFault E1601 for bytes that do not match."""

    def has(self, blob: BlobId) -> bool: ...

    def size(self, blob: BlobId) -> int: ...

    def chunks(self, blob: BlobId) -> tuple[bytes, ...]:
        """The BLAKE3 hashes of its 1 MiB pieces."""
        ...

    def put(self, data: bytes) -> BlobId: ...

    def put_file(self, path: Path) -> BlobId:
        """Take a copy (a reflink or hard copy, never a link to a file that may change)."""
        ...

    def take_file(self, path: Path) -> BlobId:
        """Take the file itself where that is possible, else a copy; either way it is gone from `path` afterwards. For
        files of our own, that nobody writes to any more: should somebody do so, the blob is damaged, which is found out
        when it is read."""
        ...

    def begin(self, blob: BlobId, size_bytes: int, chunks: Sequence[bytes]) -> Partial:
        """Take a blob in chunk by chunk, going on where an earlier attempt stopped. PeerFault E1601 when size and chunk
        hashes are not those of `blob`; E1603 when there is no room for it. One partial per blob at a time."""
        ...

    def read(self, blob: BlobId, offset: int, length_bytes: int) -> bytes:
        """Up to `length_bytes` from `offset`; fewer only at the end."""
        ...

    def path(self, blob: BlobId) -> Path:
        """A read-only file with the blob's bytes, valid while the blob is pinned."""
        ...

    def pin(self, blob: BlobId, owner: str) -> None:
        """Keep it from garbage collection until `owner` unpins. Durable; pinning twice is pinning once."""
        ...

    def unpin(self, blob: BlobId, owner: str) -> None:
        """The opposite of `pin`; harmless for what `owner` has not pinned, and for what is not here."""
        ...

    def hand_over(self, blobs: Iterable[BlobId], giver: str, taker: str) -> None:
        """Pin those of `blobs` that are here for `taker`, and none of them for `giver` any more: one change, durable as
        a whole, however many they are."""
        ...

    def unpin_all(self, owner: str) -> None: ...


class Ledger(Protocol):
    """The pool's books behind one door: memory, SQL, or a chain. `caller` is the account that the asking node's
    certificate names (already checked). Same answer for the same operation id, forever."""

    async def apply(self, request: Message, caller: bytes, now_ms: int) -> Message:
        """One `LedgerRequest`; -> LedgerDone, Drawn or LedgerRefused. Atomic and durable before it returns."""
        ...

    async def balance(self, account: bytes, now_ms: int = 0) -> Message:
        """-> BalanceOf; zeros for an unknown account. What is due by `now_ms` counts as arrived."""
        ...

    async def speaker(self, node: bytes, now_ms: int) -> bytes | None:
        """The account that `node` was bound to by OpenAccount, unless its certificate has expired by `now_ms`."""
        ...

    async def settlement(self, lease: bytes) -> Signed | None: ...

    async def charge(self, lease: bytes) -> OpenCharge | None:
        """The charge under a lease that is not decided yet."""
        ...

    async def appeals(self) -> tuple[bytes, ...]:
        """The leases whose charges wait for the referee."""
        ...

    async def books(self) -> Message:
        """-> Books."""
        ...


class LeaseStanding(NamedTuple):
    """What the ledger says of a lease: its words, and the same signed; and a charge that is not decided yet."""

    said: documents.Settlement
    signed: Signed
    charge: OpenCharge | None = None


class ClaimDraw(NamedTuple):
    """What the ledger drew for a claim: its words, and the same signed; and the accounts that can bear witness."""

    said: documents.AuditDraw
    signed: Signed
    drawn: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Patience:
    """How long to go on when nobody answers: tries begin until `total_s` have passed (none but the first when 0), one
    takes `call_s` at most, and the pauses between them double."""

    total_s: float = 30.0
    call_s: float = 10.0
    first_wait_s: float = 0.1
    most_wait_s: float = 2.0


ONCE = Patience(total_s=0.0)
"""For callers that ask again by themselves, or rather hear an error."""


class SettlementClient(Protocol):
    """The client's side of money: a pool's bank, or a chain. Errors: SettlementRefused when the ledger's rules say no,
    and nothing changed; UnavailableError when it did not answer in time: then it may have acted or not, and calling
    again with the same `operation` (or the same document) tells, and never moves money twice. Without `operation` a new
    one is drawn."""

    async def open_account(self, certificate: Signed, token: str = "") -> None:
        """Bind this node to its account; with a token, take the welcome grant once."""
        ...

    async def grant(self, account: bytes, amount_ucr: int, operation: bytes = b"") -> None:
        """Mint; for the pool's operator."""
        ...

    async def transfer(self, to: bytes, amount_ucr: int, operation: bytes = b"") -> None:
        """Pay another account."""
        ...

    async def deposit(self, amount_ucr: int, operation: bytes = b"") -> None:
        """Balance into stake."""
        ...

    async def unbond(self, amount_ucr: int, operation: bytes = b"") -> None:
        """Free stake towards the balance, after the pool's delay."""
        ...

    async def open(self, request: OpenEscrow) -> None:
        """Lock both sides of a lease."""
        ...

    async def redeem(self, voucher: Signed) -> None:
        """Have a voucher paid."""
        ...

    async def close(self, lease: bytes) -> None:
        """Settle a lease. TOO_EARLY for a requester before the lease's end and grace."""
        ...

    async def charge(self, request: Slash | SlashEquivocation) -> None:
        """Have a lie charged, or a contradiction punished."""
        ...

    async def answer(self, request: Appeal | Rule) -> None:
        """Appeal against a charge, or rule on it."""
        ...

    async def draw(self, claim: Signed) -> ClaimDraw:
        """The randomness that belongs to a claim, checked, and whom it draws; drawn at the first asking."""
        ...

    async def standing(self, lease: bytes) -> LeaseStanding | None:
        """The ledger's signed word on a lease, checked; None for a lease that it does not know."""
        ...

    async def balance(self, account: bytes) -> BalanceOf:
        """What an account has."""
        ...

    async def books(self) -> Books:
        """The whole in one line."""
        ...


class EventLog(Protocol):
    """An append-only, durable list of byte strings per stream name. `append` returns after the bytes are on disk."""

    def append(self, stream: str, events: Sequence[bytes], cells: Mapping[str, bytes] | None = None) -> int:
        """-> the number of the last event; numbers count up from 1. `cells` are set with the same flush, all or none
        of both."""
        ...

    def read(self, stream: str, after: int = 0) -> Sequence[tuple[int, bytes]]: ...

    def put(self, key: str, value: bytes) -> None:
        """A durable cell beside the log (snapshots, vouchers)."""
        ...

    def put_all(self, cells: Mapping[str, bytes]) -> None:
        """Several cells with one flush, all or none."""
        ...

    def cut(self, stream: str, upto: int, cells: Mapping[str, bytes], gone: Sequence[str] = ()) -> None:
        """Forget the stream's events up to number `upto`, set `cells` (the snapshot that stands for those events) and
        forget the cells `gone`: all of it, durably, or nothing. Numbers go on counting as if nothing were forgotten."""
        ...

    def get(self, key: str) -> bytes | None: ...

    def keys(self, prefix: str) -> Sequence[str]: ...

    def close(self) -> None: ...


OnMessages = Callable[[list[FromWorker]], None]
OnLine = Callable[[str], None]


@dataclass(frozen=True)
class WorkerLimits:
    """What a worker may use. `ram_bytes` bounds what it holds for itself (files that it maps can be dropped at any time
    and do not count), `disk_bytes` what it has written and not removed; 0 means no bound. `cards` are the GPUs that it
    sees; none unless named. `reads` are files and folders outside its home that it may read."""

    ram_bytes: int = 0
    threads: int = 1
    nice: int = 10
    cards: tuple[str, ...] = ()
    disk_bytes: int = 0
    reads: tuple[Path, ...] = ()


WORK, READ = "work", "in"
"""In a worker's home: where it starts, keeps its files and is told to leave its outputs; and what it may only read."""


class Worker(Protocol):
    """What does the work of one lease, and speaks as `wire/worker.py` says: first of all that it is ready."""

    @property
    def pid(self) -> int:
        """Which one it is among those that run; where workers are processes, their number and their group's."""
        ...

    @property
    def ended(self) -> asyncio.Event:
        """Set once it is gone, whoever ended it."""
        ...

    @property
    def why(self) -> str:
        """How it ended, in words, once it has."""
        ...

    @property
    def condemned(self) -> bool:
        """Whether it was killed for what it did; false for one that was stopped, or went by itself."""
        ...

    def send(self, message: ToWorker) -> None:
        """Put a message on its way; nothing happens when the worker is gone. Await `drain` now and then."""
        ...

    async def drain(self) -> None:
        """Wait until the worker has taken most of what was sent, or is gone."""
        ...

    def pause_reading(self) -> None:
        """Stop taking messages, and with that, soon, the worker; until `resume_reading`."""
        ...

    def resume_reading(self) -> None: ...

    def kill(self, why: str) -> None:
        """End it now, for what it did, which `why` will tell. Harmless when it is gone."""
        ...

    async def stop(self) -> None:
        """Ask it to end, then insist; returns when it is gone, within two seconds."""
        ...


class Runner(Protocol):
    """Where workers run: processes, containers, other machines. A worker can do nothing but use its limits, its home's
    `in` and `work`, and the way it speaks: whatever runs as it reaches no other file, process or network."""

    def guard(self) -> str:
        """By what workers are kept in, in words for people. Raises UnavailableError E1809 where nothing can do it here,
        and the owner did not ask to go without. Blocks, a tenth of a second the first time."""
        ...

    def open(
        self, folder: Path, limits: WorkerLimits, on_messages: OnMessages, on_line: OnLine
    ) -> AbstractAsyncContextManager[Worker]:
        """A worker with `folder` as its home, for as long as the context lasts; `work` and `in` in it are made where
        they are missing. What it says comes in lists, as many as
        there were at once, through `on_messages`, and what it prints through `on_line`, line by line; neither may block
        or raise, and neither is called from within `send`. Raises OSError when none can be started."""
        ...

    def kill_orphans(self, folder: Path) -> int:
        """End the workers with homes in `folder` that an earlier process left behind; -> how many. Blocks."""
        ...


class Machine(Protocol):
    """The computer that a node runs on: what it is, what it can do, and whether its owner is using it. `threads` is how
    many CPU threads a task gets. All of it may block, and seconds the first time: call it in a thread."""

    def measure(self, folder: Path, threads: int) -> Hardware:
        """What this process may use of it; `folder` says which disk counts. `exact` is not tried."""
        ...

    def can_do(self, kind: str) -> bool:
        """Whether what this kind of work needs is installed."""
        ...

    def speeds(self, folder: Path, threads: int) -> dict[str, int]:
        """Units per second by kind of work, remembered in `folder`."""
        ...

    def exactness(self, threads: int) -> str:
        """`messages.EXACT` where it reproduces the golden results of exact arithmetic, else why it does not, in
        words."""
        ...

    def reading(self, ours: set[int]) -> Reading:
        """What the owner's rule asks about. Use of the processor is since the reading before, without this process and
        those with the numbers `ours`, and all that they started."""
        ...
