"""The simulated steward: a thin interpreter around the real brain (`rules/steward/machine.py`). It carries out effects
as calls, checks what comes back as `node/steward/effects.py` and `node/steward/watch.py` do, and tells the brain."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from fallow.rules.steward import events as t
from fallow.rules.steward.machine import State, due, outstanding, transition
from fallow.rules.steward.snapshot import read_snapshot, retire, write_snapshot
from fallow.rules.steward.state import Seat
from fallow.sim.crash import Flow, Process
from fallow.sim.invariants import Referee
from fallow.sim.network import Network, Reply
from fallow.sim.people import Person
from fallow.sim.steward_effects import AGAIN, Runner
from fallow.sim.steward_lane import LaneDesk
from fallow.sim.steward_watch import Watches
from fallow.sim.world import World
from fallow.wire import codec
from fallow.wire.documents import Signed
from fallow.wire.local import JobSpec
from fallow.wire.messages import BlobFound, BlobStat, Claimed, Failure, Message, Ok

STREAM, SNAPSHOT = "steward", "steward-snapshot"
COMPACT_EVERY = 40
"""Events: often, so that many deaths come near a snapshot."""
REST_MS = 20_000
TICK_MS, IDLE_TICK_MS = 500, 3_000
RETRY_FIRST_MS, RETRY_MOST_MS = 500, 8_000


class Submit(Message, frozen=True):
    """From the user beside the steward; -> Ok once it is on disk."""

    job: bytes
    spec: JobSpec


class LaneAsk(Message, frozen=True):
    """From the user: one lane task of a job; -> Ok, or Failure while no lane has room."""

    job: bytes
    params: bytes
    seed: int


class Cancel(Message, frozen=True):
    """From the user beside the steward; -> Ok once it is on disk."""

    job: bytes


class Steward(Process):
    """One steward node. `blobs` are on disk. `echoes` is the probability that an event is told twice."""

    def __init__(
        self, world: World, network: Network, person: Person, timing: t.Timing, bank: bytes, referee: Referee
    ) -> None:
        super().__init__(world, network, person.name, person.node)
        self.person, self.timing, self.bank, self.referee = person, timing, bank, referee
        self.bank_account = person.bank
        self.directories: list[bytes] = []
        self.blobs: set[bytes] = set()
        self.write_ahead = True
        self.echoes = 0.0
        self.accuse: Callable[[Seat, Claimed], None] = lambda _seat, _claim: None
        self.trusting = False
        self.applied, self._snapshot = 0, 0
        self.state = State()
        self.desk = LaneDesk(self)
        self._runner = Runner(self)

    # life -------------------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Replay the log, compare with what was lost, go on."""
        lost, applied = self.state, self.applied
        self.state, self.applied, self._snapshot = State(), 0, 0
        self.desk = LaneDesk(self)
        self._running: set[bytes] = set()
        self._watches = Watches(self)
        saved = self.log.get(SNAPSHOT)
        if saved is not None:
            found = read_snapshot(saved)
            self.state, self.applied, self._snapshot = found.state, found.number, found.number
            if self.applied == applied:
                self.referee.replayed(lost, self.state)
        for _, raw in self.log.read(STREAM, self._snapshot):
            event = codec.decode(t.AnyStewardEvent, raw)
            effects = transition(self.state, event)
            self.applied += 1
            self.referee.records(effects)
            if self.applied == applied:
                self.referee.replayed(lost, self.state)
        self.referee.lives(self.state)
        identity = t.Identity(self.person.account, self.person.node, self.bank_account)
        self.tell(t.StewardStarted(self.now_ms, identity, self.timing))
        for effect in outstanding(self.state):
            self._run(effect)
        self.later(TICK_MS, self._tick)

    def _tick(self) -> None:
        if due(self.state, self.now_ms):
            self.tell(t.ClockTicked(self.now_ms))
        idle = all(job.reported for job in self.state.jobs.values())
        self.later(IDLE_TICK_MS if idle else TICK_MS, self._tick)

    def tell(self, event: t.StewardEvent) -> None:
        """Write ahead, decide, act; in this order."""
        self._take(event)
        if self.world.chance(self.echoes):
            self._take(event)

    def _take(self, event: t.StewardEvent) -> None:
        raw = codec.encode(event)
        if self.write_ahead:
            self.point()
            self.log.append(STREAM, [raw])
            self.point()
        effects = transition(self.state, event)
        self.applied += 1
        self.world.note(f"{self.name} {type(event).__name__}")
        self.referee.steward_turn(self.state, effects)
        for effect in effects:
            self.point()
            self._run(effect)
        if not self.write_ahead:
            self.point()
            self.log.append(STREAM, [raw])
        if self.applied - self._snapshot >= COMPACT_EVERY:
            self._compact()

    def _compact(self) -> None:
        """Replace the events by a snapshot, without the jobs that are over for a while."""
        number, before_ms = self.log.append(STREAM, []), self.now_ms - REST_MS
        copy = read_snapshot(write_snapshot(self.state, number)).state
        self.referee.replayed(self.state, copy)
        gone = {f"ended/{one.view.job.hex()}": b"" for one in retire(copy, before_ms, {})}
        self.point()
        self.log.cut(STREAM, number, {SNAPSHOT: write_snapshot(copy, number), **gone})
        retire(self.state, before_ms, {})
        self._snapshot = number
        self.point()

    def on_request(self, caller: bytes, request: Message, reply: Reply) -> None:
        """Peers fetch blobs; the user submits and cancels."""
        now_ms = self.now_ms
        match request:
            case BlobStat(blob):
                reply(BlobFound(1 if blob in self.blobs else None))
            case Submit(job, spec):
                if self.log.get(f"ended/{job.hex()}") is None:  # else it was over, and must not begin again
                    self.tell(t.UserSubmitted(now_ms, job, spec))
                reply(Ok())
            case Cancel(job):
                self.tell(t.UserCancelled(now_ms, job))
                reply(Ok())
            case LaneAsk(job, params, seed):
                taken = self.desk.ask(job, params, seed)
                reply(Ok() if taken else Failure("E1803", "no lane has room"))
            case _:
                pass

    # what others need to know of the state ----------------------------------------------------------------------------

    def seat_of(self, lease: bytes) -> Seat | None:
        """The seat of a lease that is not closed yet."""
        found = self.state.seat_of(lease)
        return found[1] if found is not None and found[1].number in found[0].live else None

    def room_units(self, lease: bytes, job: bytes) -> int:
        """What may still be sent under a lease of `job`."""
        found = self.state.seat_of(lease)
        usable = found is not None and found[0].id == job and found[0].ending is None and found[1].usable
        return found[1].room_units() if found is not None and usable else 0

    def signed_lease(self, lease: bytes) -> Signed | None:
        """The lease as its provider signed it."""
        found = self.state.seat_of(lease)
        return None if found is None else found[1].theirs

    def kind_of(self, lease: bytes) -> str:
        """The kind of work that a lease is for."""
        found = self.state.seat_of(lease)
        return "" if found is None else found[0].kind

    # effects ----------------------------------------------------------------------------------------------------------

    def _run(self, effect: t.StewardEffect) -> None:
        match effect:
            case t.Note(text=text, node=node):
                self.world.note(f"{self.name} notes: {text} {self.referee.name(node) if node else ''}".rstrip())
            case t.KeepReceipt() | t.JobEnded():
                pass
            case t.WatchLease():
                self._watches.watch(effect)
            case t.PrepareLane():
                self.desk.prepare(effect)
            case t.AuditLane():
                self.desk.audit(effect)
            case _:
                key = codec.encode(effect)
                if key not in self._running:
                    self._running.add(key)
                    self.follow(self._carry_out(key, effect))

    def _carry_out(self, key: bytes, effect: t.StewardEffect) -> Flow:
        """Try until answered, or until the brain no longer wants it."""
        wait_ms = RETRY_FIRST_MS
        while True:
            event = yield from self._runner.run(effect)
            if event is not AGAIN:
                break
            yield wait_ms
            wait_ms = min(2 * wait_ms, RETRY_MOST_MS)
            if effect not in outstanding(self.state):
                event = None
                break
        self._running.discard(key)
        if event is not None:
            self.tell(msgspec.structs.replace(event, at_ms=self.now_ms))
