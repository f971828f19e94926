"""One leg of a lane: the stream to one provider under one lease. It numbers the tasks, keeps what was answered until
the provider's claims over it are settled, and hands back what was in flight when the provider goes away."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
import structlog

from fallow.errors import FallowError, fail
from fallow.node.services import Services
from fallow.rules.node.steward_types import PrepareLane
from fallow.sdk.calls import CallStream
from fallow.wire.claims import Accumulator, lane_leaf, params_hash, value_hash
from fallow.wire.codec import decode, encode
from fallow.wire.documents import ClaimRoot
from fallow.wire.local import ServeJob
from fallow.wire.messages import LaneItem, LaneReady, LaneResult, LaneStop, LaneTask, NodeAddress, OpenLane
from fallow.wire.tasks import MAX_VALUE_BYTES, Generate, GenerateValue, Part

log = structlog.get_logger()

WINDOW = 2048
NUMBER_BLOCK = 4096
FLUSH_S = 0.05
MAX_KEPT = 200_000
LOAD_RETRY_S = 1.0


def most_units(kind: str, params: bytes) -> int:
    """The most that a task can be metered at. Raises PeerFault E1102 for parameters that are none of that kind."""
    if kind != "generate":
        return 1
    return len(params) + 64 + decode(Generate, params).max_tokens


def first_of(errors: BaseExceptionGroup[FallowError]) -> FallowError:
    """The first error of a group, however deep."""
    first = errors.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first


@dataclass(slots=True)
class Ask:
    """A task on its way: what is asked, how often it was tried, what of a streamed answer was passed on already, and
    where the answer goes. `deliver` is called with each LaneItem and the one LaneResult; `leg` and `number` say where
    it is now; `avoid` are the leases it must not run on."""

    params: bytes
    seed: int
    stream: bool
    deliver: Callable[[Ask, LaneItem | LaneResult], None]
    receipt: bool = False
    tries: int = 0
    text: str = ""
    sent: bytes = b""
    leg: Leg | None = None
    number: int = 0
    avoid: tuple[bytes, ...] = ()
    only: bytes = b""
    job: bytes = b""
    units_most: int = 1

    def now_params(self) -> bytes:
        """The parameters with what was answered already given as `resume`, so that a stream goes on elsewhere."""
        if not self.text:
            return self.params
        return encode(msgspec.structs.replace(decode(Generate, self.params), resume=self.text))


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """What the steward remembers of an answered lane task; `params` and `value` are kept for receipts and checks."""

    number: int
    params: bytes
    seed: int
    value: bytes
    units: int
    receipt: bool

    def leaf(self) -> bytes:
        return lane_leaf(self.number, params_hash(self.params), self.seed, value_hash(self.value), self.units)


@dataclass
class Leg:
    """The lane's stream under `plan.lease`. `ready` once the provider has loaded the work; `load` is how many tasks are
    in flight."""

    services: Services
    plan: PrepareLane
    sources: tuple[NodeAddress, ...]
    back: Callable[[Ask], None]
    told: Callable[[Leg, FallowError | None], Awaitable[None]]
    room_units: Callable[[bytes], int]
    ready: bool = False
    flying: dict[int, Ask] = field(default_factory=dict[int, Ask])
    answered: OrderedDict[int, Answered] = field(default_factory=OrderedDict[int, Answered])
    _unsaved: list[Answered] = field(default_factory=list[Answered])
    _saved: asyncio.Event = field(default_factory=asyncio.Event)
    _outbox: asyncio.Queue[LaneTask | LaneStop] = field(default_factory=lambda: asyncio.Queue(2 * WINDOW))
    _next: int = 0
    _reserved: int = 0
    _flying_units: int = 0
    _unclaimed_units: int = 0

    @property
    def load(self) -> int:
        return len(self.flying)

    @property
    def kind(self) -> str:
        """The workload that the lane's tasks are of."""
        return "generate" if isinstance(self.plan.work, ServeJob) else self.plan.work.workload

    @staticmethod
    def log_name(lease: bytes) -> str:
        """The EventLog stream and cell of a lease's lane."""
        return f"lane/{lease.hex()}"

    @property
    def stream_name(self) -> str:
        return self.log_name(self.plan.lease)

    def recall(self) -> None:
        """After a restart: what was answered before, and numbers that were never used."""
        for _, raw in self.services.log.read(self.stream_name):
            for record in msgspec.msgpack.decode(raw, type=list[Answered]):
                self.answered[record.number] = record
        used = int(self.services.log.get(self.stream_name) or b"0")
        self._next = self._reserved = used

    def take(self, ask: Ask) -> bool:
        """Send a task on this leg; False when its window is full or it is not ready."""
        if not self.ready or len(self.flying) >= WINDOW or self._outbox.full():
            return False
        if self._flying_units + self._unclaimed_units + ask.units_most > self.room_units(self.plan.lease):
            return False  # more than what is locked in escrow could not be paid
        self._flying_units += ask.units_most
        if self._next >= self._reserved:
            # numbers are set aside on disk before use: a number used twice under a lease would be equivocation
            self._reserved += NUMBER_BLOCK
            self.services.log.put(self.stream_name, str(self._reserved).encode())
        self._next += 1
        ask.leg, ask.number = self, self._next
        ask.tries += 1
        ask.sent = ask.now_params()
        self.flying[self._next] = ask
        self._outbox.put_nowait(LaneTask(self._next, ask.sent, ask.seed, ask.stream))
        return True

    def stop(self, ask: Ask) -> None:
        """Nobody waits for this answer any more."""
        if self.flying.get(ask.number) is ask and not self._outbox.full():
            self._outbox.put_nowait(LaneStop(ask.number))

    async def run(self) -> None:
        """Keep the stream open until cancelled. When it breaks, what is in flight goes back to be asked elsewhere."""
        while True:
            error: FallowError | None = None
            try:
                await self._once()
            except* FallowError as caught:  # the stream's own, or that of a task beside it
                error = first_of(caught)
            finally:
                self.ready = False
                flying, self.flying, self._flying_units = self.flying, {}, 0
                for ask in flying.values():
                    ask.leg = None
                    self.back(ask)
            if error is not None:
                log.info("lane leg broke", lease=self.plan.lease.hex()[:12], code=error.code, what=error.what)
                await self.told(self, error)
            await self.services.clock.sleep(LOAD_RETRY_S)

    async def _once(self) -> None:
        work = self.plan.work
        inputs: tuple[Part, ...] = ()
        context = 0
        if isinstance(work, ServeJob):
            inputs = (Part("model", work.model, 0),)
            inputs += (Part("adapter", work.adapter, 0),) if work.adapter else ()
            context = work.context_tokens
        request = OpenLane(self.plan.lease, WINDOW, inputs, self.sources, context)
        async with self.services.rpc.open(self.plan.peer, request) as stream, asyncio.TaskGroup() as group:
            sender = group.create_task(self._send(stream), name="lane sender")
            saver = group.create_task(self._save(), name="lane saver")
            try:
                async for message in stream:
                    if isinstance(message, LaneReady):
                        self.ready = True
                        await self.told(self, None)
                    elif isinstance(message, LaneItem):
                        if (ask := self.flying.get(message.number)) is not None:
                            ask.deliver(ask, message)
                    elif isinstance(message, LaneResult):
                        self._result(message)
            finally:
                sender.cancel()
                saver.cancel()
                await self._flush()
        raise fail("E1801", "The provider ended the lane.")

    async def _send(self, stream: CallStream) -> None:
        while True:
            await stream.send(await self._outbox.get())

    def _result(self, result: LaneResult) -> None:
        ask = self.flying.pop(result.number, None)
        if ask is None:
            return  # an answer to nothing we asked for earns nothing
        self._flying_units -= ask.units_most
        code = result.code or self._wrong(ask, result)
        value, units = (b"", 0) if code else (result.value, result.units)
        record = Answered(result.number, ask.sent, ask.seed, value, units, ask.receipt)
        self.answered[record.number] = record
        self._unsaved.append(record)
        self._unclaimed_units += units
        while len(self.answered) > MAX_KEPT:
            self.answered.popitem(last=False)
        ask.deliver(ask, LaneResult(result.number, value, units, code, result.what))

    def _wrong(self, ask: Ask, result: LaneResult) -> str:
        """A provider could run the meter: units must follow from the answer, and the answer from the question."""
        if not isinstance(self.plan.work, ServeJob):
            return "" if result.units == 1 else "E1502"
        try:
            value, asked = decode(GenerateValue, result.value, MAX_VALUE_BYTES), decode(Generate, ask.sent)
        except FallowError:
            return "E1502"
        limit = len(ask.sent) + 64 * (len(asked.turns) + 1)
        right = value.completion_tokens <= asked.max_tokens and value.prompt_tokens <= limit
        return "" if right and result.units == value.prompt_tokens + value.completion_tokens else "E1502"

    async def _save(self) -> None:
        while True:
            await self.services.clock.sleep(FLUSH_S)
            await self._flush()

    async def _flush(self) -> None:
        """Answers go to disk in batches: one write for all of the last 50 ms."""
        if self._unsaved:
            records, self._unsaved = self._unsaved, []
            data = msgspec.msgpack.encode(records)
            await asyncio.to_thread(self.services.log.append, self.stream_name, [data])
        waiting, self._saved = self._saved, asyncio.Event()
        waiting.set()

    async def saved(self) -> None:
        """Wait until everything answered so far is on disk."""
        await self._saved.wait()

    def covers(self, root: ClaimRoot, first: int) -> bool | None:
        """Whether a claim is over exactly what we got: the same answers, the same units. None while some of the answers
        have not arrived."""
        if not 0 < root.count <= MAX_KEPT:
            return False  # a count that we cannot have received must not make us look for it
        records = [self.answered.get(number) for number in range(first, first + root.count)]
        if any(record is None for record in records):
            return None
        tree = Accumulator()
        tree.extend(record.leaf() for record in records if record is not None)
        units = sum(record.units for record in records if record is not None)
        return tree.root() == root.root and units == root.units

    def claimed(self, units: int) -> None:
        """The brain counts these units from now on."""
        self._unclaimed_units = max(0, self._unclaimed_units - units)
