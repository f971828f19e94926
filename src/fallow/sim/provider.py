"""The simulated provider: a thin interpreter around the real brain (`rules/provider/machine.py`), with a worker that
takes virtual time. What a cheat does differently is in its `Ways` (`sim/cheats.py`); its brain is the honest one."""

from __future__ import annotations

from fallow.errors import FallowError
from fallow.rules.provider import events as t
from fallow.rules.provider.events import ProviderState, Terms
from fallow.rules.provider.machine import outstanding, recover, transition
from fallow.sim.cheats import Ways
from fallow.sim.crash import Ask, Flow, Process
from fallow.sim.invariants import Referee
from fallow.sim.network import Network, Reply
from fallow.sim.people import Person
from fallow.sim.provider_lane import Lanes, SimLaneTask
from fallow.sim.provider_streams import LeaseStreams
from fallow.sim.work import OWNED, honest_output
from fallow.sim.world import World
from fallow.units import GIB
from fallow.wire import codec
from fallow.wire.claims import task_id
from fallow.wire.documents import ClaimRoot, Lease, Order, Settlement, Signed, Voucher
from fallow.wire.eip712 import open_signed
from fallow.wire.eip712 import recover as recover_signer
from fallow.wire.ledger import CloseEscrow, GetSettlement, LedgerDone, LedgerRefused, Redeem, Refusal, SettlementOf
from fallow.wire.messages import (
    EXACT,
    AssignTask,
    BlobFound,
    BlobStat,
    CancelTask,
    Claimed,
    CloseLease,
    Declined,
    Failure,
    Hardware,
    LaneClaimed,
    LeaseBody,
    LeaseSigned,
    Message,
    Offer,
    Ok,
    OpenLane,
    PayVoucher,
    PrefetchBlobs,
    PublishOffer,
    Quoted,
    Rate,
    RequestQuote,
    SignLease,
    WatchLease,
)

TICK_MS, PUBLISH_MS, STREAM = 2_000, 20_000, "provider"


class Provider(Process):
    """One provider node. `blobs` are on disk and outlive deaths."""

    def __init__(
        self, world: World, network: Network, person: Person, terms: Terms, speed: int, ways: Ways, referee: Referee
    ) -> None:
        super().__init__(world, network, person.name, person.node)
        self.person, self.terms, self.speed, self.ways, self.referee = person, terms, speed, ways, referee
        self.bank = b""
        self.directories: list[bytes] = []
        self.blobs: set[bytes] = set()
        self.stake_ucr = 0
        self.shown: list[Claimed] = []
        self.write_ahead = True
        self.state = ProviderState(terms)
        self.lanes = Lanes(self)
        self.streams = LeaseStreams(self)

    # life -------------------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Replay the log, append what is missing in the lease streams, begin to work."""
        self.state = ProviderState(self.terms)
        self.lanes = Lanes(self)
        self.streams = LeaseStreams(self)
        self._working: set[tuple[bytes, bytes]] = set()
        self._asking: set[bytes] = set()
        events = [codec.decode(t.ProviderEvent, raw) for _, raw in self.log.read(STREAM)]
        self.run_effects(recover(self.state, events))
        self.tell(t.ProviderRestarted(self.now_ms, self.terms))
        self.tell(t.LedgerStaked(self.now_ms, self.stake_ucr))
        self.run_effects(outstanding(self.state, self.now_ms))
        self._publish()
        self.later(self.world.rng.randrange(1, TICK_MS), self._tick)

    def _tick(self) -> None:
        if self.state.leases or self.state.reservations:
            self.tell(t.ClockTicked(self.now_ms))
            self.run_effects(outstanding(self.state, self.now_ms))
        self.ways.mischief(self)
        self.later(TICK_MS, self._tick)

    def _publish(self) -> None:
        rates = tuple(Rate(kind, price, self.speed) for kind, price in self.terms.rates.items())
        hardware = Hardware("cpu", 4_000, 64 * GIB, 1 << 40, (), self.terms.numerics, EXACT)
        issued_ms = self.now_ms - self.world.elapsed_ms % 1_000_000
        offer = Offer(
            self.person.account, self.person.address, self.person.certificate, hardware, rates, self.terms.bank,
            self.stake_ucr, "", issued_ms, 3_600,
        )  # fmt: skip
        for directory in self.directories:
            self.call(directory, PublishOffer(self.person.offer(offer)), 3_000, lambda _answer: None)
        self.later(PUBLISH_MS, self._publish)

    def owner_returns(self, for_ms: int) -> None:
        """The machine's owner wants it back for a while."""
        if self.up:
            self.later(for_ms, lambda: self.tell(t.OwnerLeft(self.now_ms)))
            self.guard(lambda: self.tell(t.OwnerReturned(self.now_ms, "the owner types")))

    def tell(self, event: t.ProviderEvent, reply: Reply | None = None) -> None:
        """Decide, write, act: in this order."""
        before = self.state.changes
        effects = transition(self.state, event)
        if not self.write_ahead:
            self.run_effects(effects, reply)
        if self.state.changes != before:
            self.point()
            self.log.append(STREAM, [codec.encode(event)])
            self.point()
        if self.write_ahead:
            self.run_effects(effects, reply)
        self.referee.provider_turn(self.person.account, self.state)

    # requests ---------------------------------------------------------------------------------------------------------

    def on_request(self, caller: bytes, request: Message, reply: Reply) -> None:
        """As `node/provider/role.py` does it: check who signed, then tell the brain."""
        if not self.ways.answers(self, request):
            return
        if (instead := self.ways.instead(request)) is not None:
            reply(instead)
            return
        try:
            event = self._event(caller, request)
        except FallowError as error:
            reply(Failure(error.code, error.what))
            return
        if event is not None:
            self.tell(event, reply)
            return
        match request:
            case WatchLease(lease, after):
                self.streams.watch(lease, after, reply)
            case BlobStat(blob):
                has = blob in self.blobs and self.ways.serves(blob)
                reply(BlobFound(1 if has else None))
            case PrefetchBlobs(_, parts):
                self.blobs |= {part.blob for part in parts}  # its only source is the requester, who just spoke
                reply(Ok())
            case OpenLane(lease):
                self.lanes.open(lease, reply)
            case SimLaneTask():
                self.lanes.answer(request, reply)
            case _:
                pass

    def _event(self, caller: bytes, request: Message) -> t.ProviderEvent | None:
        now_ms, bank = self.now_ms, self.terms.bank
        match request:
            case RequestQuote(signed):
                order, signer = recover_signer(signed, bank)
                return t.PeerOrdered(now_ms, caller, signer, order) if isinstance(order, Order) else None
            case SignLease(signed):
                lease, signer = recover_signer(signed, bank)
                return t.PeerProposedLease(now_ms, caller, signer, lease, signed) if isinstance(lease, Lease) else None
            case AssignTask(lease, task, sources):
                return t.PeerAssigned(now_ms, caller, lease, task_id(task), task, sources)
            case CancelTask(lease, task):
                return t.PeerCancelled(now_ms, caller, lease, task)
            case PayVoucher(signed):
                voucher, signer = recover_signer(signed, bank)
                assert isinstance(voucher, Voucher)
                return t.PeerPaid(now_ms, caller, signer, voucher.lease, voucher.cumulative_ucr, signed)
            case CloseLease(lease):
                return t.PeerClosed(now_ms, caller, lease)
            case _:
                return None

    # effects ----------------------------------------------------------------------------------------------------------

    def run_effects(self, effects: list[t.ProviderEffect], reply: Reply | None = None) -> None:
        """One after the other; the process may die before each."""
        for effect in effects:
            self.point()
            self._run(effect, reply)

    def _run(self, effect: t.ProviderEffect, reply: Reply | None) -> None:
        answer = self._answer(effect)
        if answer is not None and reply is not None:
            reply(answer)
        match effect:
            case t.StartTask():
                self._start(effect)
            case t.StopTask(lease, task):
                self._working.discard((lease, task))
            case t.StopLease(lease):
                self._working = {pair for pair in self._working if pair[0] != lease}
                self.lanes.close(lease)
            case t.EmitEvent(lease, sequence, at_ms, body):
                self.streams.append(lease, sequence, at_ms, body)
            case t.SignClaim():
                for body in self.ways.claims(self, effect, self.claim_body(effect, effect.root)):
                    self.streams.append(effect.lease, effect.sequence, effect.at_ms, body)
            case t.CheckEscrow(lease) | t.Redeem(lease) | t.CloseEscrow(lease):
                self._bank(effect, lease)
            case _:
                pass

    def _answer(self, effect: t.ProviderEffect) -> Message | None:
        match effect:
            case t.ReplyQuote(quote):
                return Quoted(self.person.sign(quote))
            case t.ReplyDeclined(shortfalls):
                return Declined(shortfalls)
            case t.CountersignLease(lease):
                return LeaseSigned(self.person.sign(lease))
            case t.ReplyOk():
                return Ok()
            case t.ReplyFailure(code, what):
                return Failure(code, what)
            case _:
                return None

    def claim_body(self, effect: t.SignClaim, root: ClaimRoot) -> LeaseBody:
        """The signed statement that an honest provider makes."""
        self.referee.claiming(self.person.account, effect.task, root)
        signed = self.person.sign(root)
        if not effect.task or effect.output is None:
            return LaneClaimed(signed, effect.first)
        return Claimed(effect.task, effect.output, signed, effect.metrics, (self.person.address,))

    def _start(self, effect: t.StartTask) -> None:
        pair = effect.lease, effect.task
        if pair in self._working:
            return
        self._working.add(pair)
        base = 200 + effect.spec.units * 1_000 // max(1, self.speed)
        worked_ms = int(base * (0.5 + self.world.rng.random()))

        def finish() -> None:
            if pair not in self._working:
                return
            self._working.discard(pair)
            now_ms = self.now_ms
            if not self._fetched(effect):
                what = "an input cannot be found"
                self.tell(t.WorkerFailed(now_ms, *pair, "E1602", what, retryable=True))
            elif self.world.chance(self.ways.breaks):
                self.tell(t.WorkerFailed(now_ms, *pair, "E1704", "killed", retryable=True, died=True))
            elif (output := self.ways.output(self, effect, honest_output(effect.spec))) is not None:
                self.blobs |= {part.blob for part in output.parts}
                self.tell(t.WorkerFinished(now_ms, *pair, output, {}))

        self.later(self.ways.work_ms(worked_ms), finish)

    def _fetched(self, effect: t.StartTask) -> bool:
        """Whether all inputs can be had from a source that is there now. Bytes are not simulated."""
        wanted = {part.blob for part in effect.spec.inputs if part.name not in OWNED} - self.blobs
        for source in effect.sources:
            if wanted and self.network.reachable(self.node, source.node):
                wanted -= self.referee.held_by(source.node)
        if not wanted:
            self.blobs |= {part.blob for part in effect.spec.inputs}
        return not wanted

    # the bank ---------------------------------------------------------------------------------------------------------

    def _bank(self, effect: t.CheckEscrow | t.Redeem | t.CloseEscrow, lease: bytes) -> None:
        key = codec.encode(effect)
        if key not in self._asking and (self.ways.closes or not isinstance(effect, t.CloseEscrow)):
            self._asking.add(key)
            self.follow(self._at_bank(key, effect, lease))

    def _at_bank(self, key: bytes, effect: t.CheckEscrow | t.Redeem | t.CloseEscrow, lease: bytes) -> Flow:
        """One try; the next tick asks again for whatever is still outstanding."""
        if isinstance(effect, t.Redeem):
            answer = yield Ask(self.bank, Redeem(effect.voucher))
        elif isinstance(effect, t.CloseEscrow):
            answer = yield Ask(self.bank, CloseEscrow(lease))
        else:
            answer = yield Ask(self.bank, GetSettlement(lease))
        self._asking.discard(key)
        now_ms = self.now_ms
        match answer:
            case SettlementOf(Signed() as settlement):
                found = open_signed(settlement, Settlement, self.terms.bank, self.terms.bank)
                self.tell(t.LedgerClosed(now_ms, lease) if found.closed_ms else t.LedgerOpened(now_ms, lease))
            case LedgerDone() if isinstance(effect, t.Redeem):
                self.tell(t.LedgerRedeemed(now_ms, lease, effect.cumulative_ucr))
            case LedgerDone():
                self.tell(t.LedgerClosed(now_ms, lease))
            case LedgerRefused(_, reason) if isinstance(effect, t.Redeem):
                self.tell(t.LedgerRefused(now_ms, lease, reason))
            case LedgerRefused(_, Refusal.NO_ESCROW):
                self.tell(t.LedgerClosed(now_ms, lease))
            case _:
                pass
