"""One leg of a lane: the stream to one provider under one lease. It numbers the tasks, keeps what was answered until
the provider's claims over it are settled, and hands back what was in flight when the provider goes away."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property

import structlog

from fallow.errors import GATEWAY_CODES, WORKLOAD_CODES, FallowError, fail, first_of
from fallow.kinds.lane import Asked, LaneSide
from fallow.kinds.registry import lane_side
from fallow.node.lanes.journal import Answered, Journal, claimed_to, read_answers
from fallow.node.services import Services
from fallow.rules.steward.events import PrepareLane
from fallow.rules.steward.shape import LaneTerms
from fallow.rules.steward.shapes.registry import shape_of
from fallow.sdk.calls import CallStream
from fallow.units import plain
from fallow.wire.claims import Accumulator, merkle_root, setting_hash
from fallow.wire.documents import ClaimRoot
from fallow.wire.messages import (
    GetLaneLeaves,
    LaneItem,
    LaneLeaves,
    LaneReady,
    LaneResult,
    LaneStop,
    LaneTask,
    Message,
    NodeAddress,
    OpenLane,
)
from fallow.wire.tasks import MAX_VALUE_BYTES, LaneSetting

log = structlog.get_logger()

WINDOW = 2048
NUMBER_BLOCK = 4096
MAX_KEPT = 200_000
KEPT_BYTES = 32 << 20
"""What is kept in memory of a leg's answers; and the most text that is taken for the tasks in flight on it."""
LOAD_RETRY_S = 1.0
LEAVES_S = 10.0
MAX_WHAT_CHARS = 1_000
RETRY = frozenset({"E1502", "E1704", "E1710", "E1801", "E1803", "E1806"})
"""Codes after which the same task may succeed at another provider."""


@dataclass(slots=True, eq=False)
class Ask:
    """A task on its way: what is asked, how often it was tried, what of a streamed answer was passed on already (its
    `text`, in `pieces` of at least a token each; the first `told_chars` and `told_pieces` of it by providers before
    this one, and `streamed_bytes` by this one), and where the answer goes. `deliver` is called with each LaneItem and
    the one LaneResult; `leg` and `number` say where it is now. `avoid` are leases to be used only when there is no
    other; with `only` it stays on that one. Nobody waits for an `unwanted` one."""

    params: bytes
    seed: int
    stream: bool
    deliver: Callable[[Ask, LaneItem | LaneResult], None]
    receipt: bool = False
    tries: int = 0
    text: str = ""
    pieces: int = 0
    told_chars: int = 0
    told_pieces: int = 0
    streamed_bytes: int = 0
    sent: bytes = b""
    leg: Leg | None = None
    number: int = 0
    avoid: tuple[bytes, ...] = ()
    only: bytes = b""
    job: bytes = b""
    units_most: int = 1
    since_s: float = 0.0
    unwanted: bool = False


@dataclass(eq=False)
class Leg:
    """The lane's stream under `plan.lease`. `ready` once the provider has loaded the work; `load` is how many tasks are
    in flight. `back` takes the tasks that were in flight when it broke, `told` hears that it is ready or why it is
    not, `room_units` says what may still be answered under a lease. `checks` has the numbers of tasks that were asked
    to check what another lease answered, each with a lease that answered the same, once that is known (b"": none)."""

    services: Services
    plan: PrepareLane
    sources: tuple[NodeAddress, ...]
    back: Callable[[Ask], None]
    told: Callable[[Leg, FallowError | None], Awaitable[None]]
    room_units: Callable[[bytes], int]
    ready: bool = False
    flying: dict[int, Ask] = field(default_factory=dict[int, Ask])
    answered: OrderedDict[int, Answered] = field(default_factory=OrderedDict[int, Answered])
    checks: dict[int, asyncio.Future[bytes]] = field(default_factory=dict[int, asyncio.Future[bytes]])
    _journal: Journal = field(init=False)
    _outbox: asyncio.Queue[LaneTask | LaneStop] = field(default_factory=lambda: asyncio.Queue(2 * WINDOW))
    _next: int = 0
    _reserved: int = 0
    _flying_units: int = 0
    _unclaimed_units: int = 0
    _kept_bytes: int = 0
    _streamed_bytes: int = 0

    def __post_init__(self) -> None:
        self._journal = Journal(self.services, self.stream_name)

    @property
    def load(self) -> int:
        return len(self.flying)

    @property
    def idle(self) -> bool:
        """Nothing is in flight and every answer is claimed: there will not be more room than now."""
        return not self.flying and not self._unclaimed_units

    @property
    def terms(self) -> LaneTerms:
        """What the provider loads."""
        return shape_of(self.plan.work).lane(self.plan.work)

    @cached_property
    def setting(self) -> LaneSetting:
        """What the lane's tasks have in common, as the leaves of its claims name it."""
        return LaneSetting(self.kind, self.terms.inputs, self.terms.context_tokens, self.terms.exact)

    @cached_property
    def _setting_hash(self) -> bytes:
        return setting_hash(self.setting)

    @property
    def kind(self) -> str:
        """The workload that the lane's tasks are of."""
        return self.plan.work.workload

    @property
    def side(self) -> LaneSide:
        """What that kind says of its lanes."""
        return lane_side(self.kind)

    @staticmethod
    def log_name(lease: bytes) -> str:
        """The EventLog stream and cell of a lease's lane."""
        return f"lane/{lease.hex()}"

    @property
    def stream_name(self) -> str:
        return self.log_name(self.plan.lease)

    def recall(self) -> None:
        """After a restart: what was answered before, numbers that were never used, and what was answered but not
        claimed, which the brain does not count yet."""
        unclaimed = claimed_to(self.services.log, self.plan.lease)
        for record in read_answers(self.services.log, self.stream_name).values():
            self._remember(record)
            self._unclaimed_units += record.units if record.number >= unclaimed else 0
        used = int(self.services.log.get(self.stream_name) or b"0")
        self._next = self._reserved = used

    def _remember(self, record: Answered) -> None:
        self.answered[record.number] = record
        self._kept_bytes += record.size_bytes
        while len(self.answered) > MAX_KEPT or (self._kept_bytes > KEPT_BYTES and len(self.answered) > 1):
            number, oldest = self.answered.popitem(last=False)
            self._kept_bytes -= oldest.size_bytes
            self.checks.pop(number, None)

    # asking ---------------------------------------------------------------------------------------------------------

    def take(self, ask: Ask) -> bool:
        """Send a task on this leg; False when its window is full, it is not ready or its lease has no room."""
        if not self.ready or len(self.flying) >= WINDOW or self._outbox.full():
            return False
        params = ask.params
        if ask.text:
            params = self.side.resumed(params, ask.text, ask.pieces)
            ask.units_most = self.side.most_units(params)
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
        ask.sent, ask.told_chars, ask.told_pieces = params, len(ask.text), ask.pieces
        ask.streamed_bytes = 0
        self.flying[self._next] = ask
        self._outbox.put_nowait(LaneTask(self._next, ask.sent, ask.seed, ask.stream))
        return True

    def stop(self, ask: Ask) -> None:
        """Nobody waits for this answer any more."""
        if self.flying.get(ask.number) is ask and not self._outbox.full():
            self._outbox.put_nowait(LaneStop(ask.number))

    # the stream -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the stream open until cancelled. When it breaks, what is in flight goes back to be asked elsewhere. A
        log that cannot be written ends it, and the node: what was answered must be known after a crash."""
        async with asyncio.TaskGroup() as group:
            journal = group.create_task(self._journal.run(), name="lane journal")
            try:
                while True:
                    error = await self._attempt()
                    log.info("lane leg broke", lease=self.plan.lease.hex()[:12], code=error.code, what=error.what)
                    await self.told(self, error)
                    await self.services.clock.sleep(LOAD_RETRY_S)
            finally:
                self._journal.end()
                await journal

    async def _attempt(self) -> FallowError:
        """-> why the stream ended."""
        # what waited to go out on a stream before is asked again elsewhere: it must not be worked on here too
        self._outbox = asyncio.Queue(2 * WINDOW)
        error = fail("E1801", "The provider ended the lane.")
        try:
            await self._once()
        except* FallowError as caught:  # the stream's own, or that of a task beside it
            error = first_of(caught)
        finally:
            self.ready = False
            flying, self.flying, self._flying_units, self._streamed_bytes = self.flying, {}, 0, 0
            for ask in flying.values():
                ask.leg = None
                self.back(ask)
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError  # a group that fails while it is cancelled tells of the failure only
        return error

    def _request(self) -> OpenLane:
        terms, lease = self.terms, self.plan.lease
        return OpenLane(lease, WINDOW, terms.inputs, self.sources, terms.context_tokens, exact=terms.exact)

    async def _once(self) -> None:
        async with self.services.rpc.open(self.plan.peer, self._request()) as stream, asyncio.TaskGroup() as group:
            sender = group.create_task(self._send(stream), name="lane sender")
            try:
                async for message in stream:
                    await self._heard(message)
            finally:
                sender.cancel()

    async def _send(self, stream: CallStream) -> None:
        while True:
            await stream.send(await self._outbox.get())

    async def _heard(self, message: Message | bytes) -> None:
        match message:
            case LaneReady():
                self.ready = True
                await self.told(self, None)
            case LaneItem(number):
                ask = self.flying.get(number)
                if ask is not None and ask.stream:
                    self._piece(ask, message)
            case LaneResult():
                self._result(message)
            case _:
                raise fail("E1102", "something else than an answer on a lane")

    def _piece(self, ask: Ask, piece: LaneItem) -> None:
        """Attack: a stream without end. No answer is longer than its value may be, or has more tokens than were paid
        for; and all that are under way together have a bound too."""
        ask.streamed_bytes += len(piece.data)
        self._streamed_bytes += len(piece.data)
        if ask.streamed_bytes <= MAX_VALUE_BYTES and self._streamed_bytes <= KEPT_BYTES:
            ask.deliver(ask, piece)
            return
        self.stop(ask)
        self._result(LaneResult(ask.number, b"", 0, "E1502", "The provider's stream is longer than an answer may be."))

    def _result(self, result: LaneResult) -> None:
        ask = self.flying.pop(result.number, None)
        if ask is None:
            return  # an answer to nothing we asked for earns nothing
        self._flying_units -= ask.units_most
        self._streamed_bytes -= ask.streamed_bytes
        code, what = _told(ask, result) if result.code else self._wrong(ask, result)
        value, units = (b"", 0) if code else (result.value, result.units)
        record = Answered(result.number, ask.sent, ask.seed, value, units, ask.receipt, code in RETRY)
        self._remember(record)
        self._journal.add(record)
        self._unclaimed_units += units
        ask.deliver(ask, LaneResult(result.number, value, units, code, what))

    def _wrong(self, ask: Ask, result: LaneResult) -> tuple[str, str]:
        """A provider could run the meter: units must follow from the answer, and the answer from the question."""
        told = ask.pieces - ask.told_pieces
        streamed = ask.text[ask.told_chars :] if ask.stream else None
        asked = Asked(ask.sent, streamed, told, ask.unwanted, exact=self.terms.exact)
        if self.side.fits(asked, result.value, result.units):
            return "", ""
        return "E1502", "The provider's answer or its meter does not fit the question."

    # what is kept ---------------------------------------------------------------------------------------------------

    def when_saved(self, cells: dict[str, bytes], then: Callable[[], None]) -> None:
        """Call `then` once everything answered so far, and `cells` beside it, is on disk."""
        self._journal.when_saved(cells, then)

    def covers(self, root: ClaimRoot, first: int) -> bool | None:
        """Whether a claim is over exactly what we got: the same answers, the same units. None while some of the answers
        have not arrived."""
        if not 0 < root.count <= MAX_KEPT:
            return False  # a count that we cannot have received must not make us look for it
        records = [self.answered.get(number) for number in range(first, first + root.count)]
        if any(record is None for record in records):
            return None
        tree = Accumulator()
        tree.extend(record.leaf(self._setting_hash) for record in records if record is not None)
        units = sum(record.units for record in records if record is not None)
        return tree.root() == root.root and units == root.units

    async def received(self, root: ClaimRoot, first: int) -> tuple[int, tuple[bytes, ...]] | None:
        """For a claim that is also over answers that have not arrived: the units of those that have, and the claim's
        leaves, which its provider still knows. The others are given up: whoever waits for one is asked elsewhere, and
        if it comes after all it earns nothing. No leaves for a claim over other answers than we got; None where the
        provider does not show the leaves, or nothing arrived."""
        if not 0 < root.count <= MAX_KEPT or first + root.count > self._next + 1:
            return None
        request = GetLaneLeaves(self.plan.lease, first)
        try:
            found = await self.services.rpc.call(self.plan.peer, request, LEAVES_S)
        except FallowError:
            return None
        leaves = found.leaves if isinstance(found, LaneLeaves) else ()
        if len(leaves) != root.count or merkle_root(leaves) != root.root:
            return None
        numbers = range(first, first + root.count)
        got = self.got(first, root.count)
        units = sum(record.units for record in got)
        setting = self._setting_hash
        if units > root.units or any(record.leaf(setting) != leaves[record.number - first] for record in got):
            return 0, ()
        for number in numbers:
            if (ask := self.flying.pop(number, None)) is not None:
                self._flying_units -= ask.units_most
                self._streamed_bytes -= ask.streamed_bytes
                ask.leg = None
                self.back(ask)
        return (units, leaves) if got else None

    def got(self, first: int, count: int) -> list[Answered]:
        """What of a claim has arrived."""
        found = (self.answered.get(number) for number in range(first, first + count))
        return [record for record in found if record is not None]

    def paid(self, first: int, count: int) -> list[Answered]:
        """Those of a claim's answers that earn something and can be compared, in order: no refusals, and nothing that
        was cut short, which depends on the moment."""
        return [one for one in self.got(first, count) if one.units and not one.cancelled(self.side)]

    def counted(self, record: Answered) -> int:
        """What is paid of an answer: its units, as far as we can count them."""
        return self.side.counted(record.params, record.value, record.units) if record.units else 0

    def claimed(self, units: int) -> None:
        """The brain counts these units from now on."""
        self._unclaimed_units = max(0, self._unclaimed_units - units)


def _told(ask: Ask, result: LaneResult) -> tuple[str, str]:
    """A provider's refusal, as far as a provider may speak: about its worker and about the request. Anything else (that
    money is gone, that the owner cancelled) is not for it to say, and an unknown code would break whoever reads it."""
    code = result.code
    known = code in RETRY | WORKLOAD_CODES | GATEWAY_CODES or (code == "E1402" and ask.unwanted)
    what = plain(result.what[:MAX_WHAT_CHARS])
    return (code, what) if known else ("E1806", f"The provider failed: {what}")
