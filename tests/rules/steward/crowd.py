"""A crowd of providers, a bank and a directory around the steward's brain: carries out its effects and tells it what
came of them, in order or shuffled. What a provider does is decided by its `Provider`."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from blake3 import blake3

from fallow.kinds.train.tasks import TrainAudit, TrainFinish, TrainParams, TrainRound, TrainValue
from fallow.rules.steward import events as t
from fallow.rules.steward.machine import State, outstanding, transition
from fallow.rules.steward.shapes.round_tasks import rounds_of
from fallow.rules.steward.state import Job, Seat, Slot
from fallow.sim import work
from fallow.units import cost_ucr
from fallow.wire import codec
from fallow.wire.claims import output_hash
from fallow.wire.documents import ClaimRoot, Lease, Quote, Signed
from fallow.wire.eip712 import hash_document
from fallow.wire.ledger import Evidence, Refusal
from fallow.wire.local import BatchJob, JobSpec, LaneJob, TrainJob
from fallow.wire.messages import EXACT, Hardware, NodeAddress, Offer, Rate, Shortfall
from fallow.wire.tasks import Part, Recipe, TaskOutput, TaskSpec

BANK = b"b" * 20
IDENTITY = t.StewardIdentity(b"s" * 20, b"S" * 32, BANK)
SEAL = bytes(65)


def h(*parts: object) -> bytes:
    return blake3(repr(parts).encode()).digest()


def word(name: str) -> bytes:
    return blake3(name.encode()).digest()


def recipe(rounds: int = 3, **changes: object) -> Recipe:
    values: dict[str, object] = {"method": "lora", "rounds": rounds, "inner_steps": 2, "sequence_tokens": 10}
    return Recipe(**(values | {"holdout_sequences": 1} | changes))  # pyright: ignore[reportArgumentType]


def train_spec(
    workers: int = 3, rounds: int = 3, budget: int = 10_000_000, verify: str = "audit", ahead: int = 0
) -> JobSpec:
    work = TrainJob(word("model"), word("data"), recipe(rounds, ahead=ahead), 1000)
    return JobSpec(work, budget, 0, workers, verify=verify)


def exact_spec(workers: int = 3, rounds: int = 3, verify: str = "audit", **changes: object) -> JobSpec:
    """Training that is committed to link by link."""
    values: dict[str, object] = {"arithmetic": "exact", "inner_steps": 5}
    work = TrainJob(word("model"), word("data"), recipe(rounds, **(values | changes)), 1000)
    return JobSpec(work, 10_000_000, 0, workers, verify=verify)


def batch_spec(tasks: int = 5, workers: int = 3, budget: int = 10_000_000, verify: str = "audit") -> JobSpec:
    work = BatchJob("echo", tuple(f"{n}".encode() for n in range(tasks)), (), 10)
    return JobSpec(work, budget, 0, workers, verify=verify)


def lane_spec(replicas: int = 2, budget: int = 10_000_000, verify: str = "audit") -> JobSpec:
    return JobSpec(LaneJob("echo", replicas), budget, 0, 1, verify=verify)


def of_round(slot: Slot) -> bool:
    """Whether it is a shard's part of a round: no finish, and no check of one."""
    return slot.spec.kind == "train" and isinstance(codec.decode(TrainParams, slot.spec.params), TrainRound)


def finish_of(job: Job) -> Slot:
    """The finishing task's."""
    key = rounds_of(job).finish
    assert key is not None
    return job.slots[key]


def ready_seats(state: State, job: bytes) -> list[Seat]:
    """The leases of a job on lanes that answer now, in the order of their opening."""
    found = state.jobs.get(job)
    seats = [found.seats[number] for number in found.live] if found is not None and found.ending is None else []
    return [seat for seat in seats if seat.usable and seat.lane.ready and seat.node not in state.roll.since]


@dataclass
class Provider:
    """An honest provider; tests change its ways. `answer(spec, honest)` gives its output, None to say nothing."""

    name: str
    price: int = 1000
    speed: int = 10
    stake: int = 500
    numerics: str = "x86"
    exact: str = EXACT
    kinds: tuple[str, ...] = ("echo", "train", "generate")
    account_name: str = ""
    answer: Callable[[TaskSpec, TaskOutput], TaskOutput | None] = lambda spec, honest: honest
    declines: bool = False
    lacks: tuple[Shortfall, ...] = ()
    fails: str = ""
    refuses: Callable[[TaskSpec], str] = lambda spec: ""
    retryable: bool = True
    serves_blobs: bool = True
    sequence: int = 0
    done: int = 0

    @property
    def account(self) -> bytes:
        return word("account " + (self.account_name or self.name))[:20]

    @property
    def address(self) -> NodeAddress:
        return NodeAddress(word("node " + self.name))

    def offer(self, now_ms: int) -> Offer:
        hardware = Hardware("cpu", 4000, 1 << 35, 1 << 40, (), self.numerics, self.exact)
        rates = tuple(Rate(kind, self.price, self.speed) for kind in self.kinds)
        certificate = Signed(b"certificate " + self.name.encode(), SEAL)
        return Offer(
            self.account, self.address, certificate, hardware, rates, BANK, self.stake, "", now_ms, 3600,
        )  # fmt: skip


def honest_output(spec: TaskSpec) -> TaskOutput:
    """What the task really gives: a function of its spec alone, but not of its time limit."""
    body = h(spec.kind, spec.params, spec.inputs, spec.seed)
    if spec.kind != "train":
        return TaskOutput(body, ())
    params = codec.decode(TrainParams, spec.params)
    if isinstance(params, TrainAudit) or (isinstance(params, TrainRound) and params.recipe.exact):
        return work.honest_output(spec)
    state = h("state", params.manifests)
    tokens = spec.units
    parts = [Part("update", h("update", body), 100), Part("carry", h("carry", body), 800)]
    if isinstance(params, TrainFinish):
        return TaskOutput(
            codec.encode(TrainValue(state, "1.500000", tokens)), (Part("adapter/a.bin", h("adapter", body), 50),)
        )
    if params.checkpoint:
        parts.append(Part("checkpoint", h("checkpoint", params.round, params.manifests), 70))
    loss = f"{3 - params.round / 10:.6f}" if params.evaluate else ""
    return TaskOutput(codec.encode(TrainValue(state, loss, tokens)), tuple(sorted(parts, key=lambda part: part.name)))


def lie(salt: object = 0) -> Callable[[TaskSpec, TaskOutput], TaskOutput]:
    """A false answer of the right form; equal salts collude."""

    def answer(spec: TaskSpec, honest: TaskOutput) -> TaskOutput:
        if spec.kind != "train":
            return TaskOutput(h("lie", salt, honest.value), ())
        return TaskOutput(honest.value, tuple(Part(p.name, h("lie", salt, p.blob), p.size_bytes) for p in honest.parts))

    return answer


@dataclass
class Crowd:
    """Runs one steward. With `shuffle` the order of deliveries is drawn, and events are sometimes told twice."""

    providers: list[Provider]
    shuffle: random.Random | None = None
    now_ms: int = 1_000_000
    timing: t.Timing = field(default_factory=t.Timing)
    state: State = field(default_factory=State)
    history: list[t.StewardEvent] = field(default_factory=list)
    effects: list[t.StewardEffect] = field(default_factory=list)
    queue: list[t.StewardEvent] = field(default_factory=list)
    leases: dict[bytes, tuple[Lease, Provider]] = field(default_factory=dict)
    vouchers: dict[bytes, int] = field(default_factory=dict)
    escrow: dict[bytes, str] = field(default_factory=dict)
    slashed: dict[bytes, int] = field(default_factory=dict)
    known: dict[tuple[bytes, bytes], t.StewardEvent | None] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    executions: int = 0
    refuse_escrow: Refusal | None = None
    refuse_charge: bool = False
    check: Callable[[Crowd], None] = lambda crowd: None
    lane_bad: set[bytes] = field(default_factory=set)
    hold: set[type] = field(default_factory=set)
    machine: Callable[[TaskSpec, TaskOutput], TaskOutput] | None = None
    """What the steward's own machine gives when it does a task again; None where it cannot."""

    def __post_init__(self) -> None:
        self.tell(t.StewardStarted(self.now_ms, IDENTITY, self.timing))

    def by_node(self, node: bytes) -> Provider:
        return next(p for p in self.providers if p.address.node == node)

    # telling and running ----------------------------------------------------------------------------------------------

    def tell(self, event: t.StewardEvent) -> list[t.StewardEffect]:
        self.history.append(event)
        effects = transition(self.state, event)
        self.effects.extend(effects)
        for effect in effects:
            self.do(effect)
        self.check(self)
        return effects

    def submit(self, spec: JobSpec, name: str = "job") -> bytes:
        self.tell(t.UserSubmitted(self.now_ms, word(name), spec))
        return word(name)

    def run(self, until: Callable[[], bool] = lambda: False, most: int = 200_000) -> None:
        """Deliver until nothing is left to deliver (or `until`)."""
        for _ in range(most):
            if not self.queue or until():
                return
            index = self.shuffle.randrange(len(self.queue)) if self.shuffle else 0
            event = self.queue.pop(index)
            self.tell(event)
            if self.shuffle and self.shuffle.random() < 0.05:
                self.tell(event)
        raise AssertionError("it never ends")

    def pass_time(self, ms: int) -> None:
        self.now_ms += ms
        self.tell(t.ClockTicked(self.now_ms))
        self.run()

    def restart(self) -> None:
        """Lose everything but the log; nothing that was under way is answered."""
        replayed = State()
        for event in self.history:
            transition(replayed, event)
        assert replayed == self.state
        self.state = replayed
        self.queue.clear()
        self.known = {key: event for key, event in self.known.items() if event is not None}
        self.tell(t.StewardStarted(self.now_ms, IDENTITY, self.timing))
        for effect in outstanding(self.state):
            self.do(effect)

    def say(self, event: t.StewardEvent) -> None:
        self.queue.append(event)

    def of(self, kind: type) -> list:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def notes(self, kind: str = "") -> list[str]:
        return [note.text for note in self.of(t.Note) if kind in ("", note.kind)]

    # the world --------------------------------------------------------------------------------------------------------

    def do(self, effect: t.StewardEffect) -> None:
        if type(effect) in self.hold:
            return
        match effect:
            case t.FindOffers():
                offers = tuple(p.offer(self.now_ms) for p in self.providers if p.name not in self.away)
                self.say(t.OffersGathered(self.now_ms, effect.job, offers))
            case t.AskQuote() | t.ProposeLease():
                self._negotiate(effect)
            case t.FundEscrow():
                self._open(effect)
            case t.Assign():
                self._work(effect)
            case t.KeepBlob():
                good = any(self.by_node(a.node).serves_blobs for a in effect.sources)
                kind = t.BlobKept if good else t.BlobMissing
                self.say(kind(self.now_ms, effect.job, effect.part.blob))
            case t.Draw():
                self.say(t.AuditorsDrawn(self.now_ms, effect.claim_hash, h("seed", effect.claim_hash)))
            case t.ReplayTask():
                self._replay(effect)
            case t.PrepareLane():
                self.say(t.LaneLoaded(self.now_ms, effect.lease))
            case t.AuditLane():
                self._audit_lane(effect)
            case _:
                self._money(effect)

    def _replay(self, effect: t.ReplayTask) -> None:
        if self.machine is None:
            self.say(t.NotReplayed(self.now_ms, effect.lease, effect.claim_hash, "no such machine"))
            return
        answer = output_hash(self.machine(effect.spec, honest_output(effect.spec)))
        self.say(t.Replayed(self.now_ms, effect.lease, effect.claim_hash, answer))

    def _negotiate(self, effect: t.AskQuote | t.ProposeLease) -> None:
        provider = self.by_node(effect.peer.node)
        if provider.name in self.away:
            return
        if provider.declines:
            self.say(t.PeerDeclined(self.now_ms, effect.job, effect.seat, provider.lacks))
        elif isinstance(effect, t.AskQuote):
            order = hash_document(effect.order, BANK)
            quote = Quote(
                order, provider.account, provider.address.node, provider.price, provider.stake, "", self.now_ms + 9999
            )
            self.say(t.PeerQuoted(self.now_ms, effect.job, effect.seat, quote, Signed(codec.encode(quote), SEAL)))
        else:
            lease = hash_document(effect.terms, BANK)
            self.leases[lease] = effect.terms, provider
            body = codec.encode(effect.terms)
            ours, theirs = Signed(body, b"o" * 65), Signed(body, b"t" * 65)
            self.say(t.PeerSigned(self.now_ms, effect.job, effect.seat, lease, effect.terms, ours, theirs))

    def _open(self, effect: t.FundEscrow) -> None:
        if self.refuse_escrow and effect.lease not in self.escrow:
            self.say(t.LedgerRefusedEscrow(self.now_ms, effect.lease, self.refuse_escrow))
            return
        self.escrow.setdefault(effect.lease, "open")
        self.say(t.LedgerOpened(self.now_ms, effect.lease))

    def _work(self, effect: t.Assign) -> None:
        provider = self.leases[effect.lease][1]
        if provider.name in self.away:
            return
        key = effect.lease, effect.task
        if key in self.known:
            event = self.known[key]
            if event is not None:
                self.say(event)
            return
        self.known[key] = None
        provider.sequence += 1
        if code := provider.fails or provider.refuses(effect.spec):
            event = t.PeerFailed(
                self.now_ms, effect.lease, provider.sequence, effect.task, code, "no", provider.retryable
            )  # fmt: skip
        else:
            output = provider.answer(effect.spec, honest_output(effect.spec))
            if output is None:
                return
            self.executions += 1
            provider.done += 1
            event = self.claim(effect.lease, effect.task, output, provider)
        self.known[key] = event
        self.say(event)

    def claim(self, lease: bytes, task: bytes, output: TaskOutput, provider: Provider) -> t.PeerClaimed:
        digest = bytes(output_hash(output))
        root = ClaimRoot(lease, provider.sequence, h(task, digest), 1, 1)
        claim = Signed(codec.encode(root), SEAL)
        return t.PeerClaimed(
            self.now_ms, lease, provider.sequence, task, output, digest, claim, h("claim", claim.body),
            (provider.address,),
        )  # fmt: skip

    def lane_claim(self, lease: bytes, sequence: int, first: int, count: int, units: int) -> t.PeerClaimedBatch:
        claim = Signed(codec.encode(ClaimRoot(lease, sequence, h(first), count, units)), SEAL)
        return t.PeerClaimedBatch(
            self.now_ms, lease, sequence, claim, h("claim", claim.body), first, count, units
        )  # fmt: skip

    def _audit_lane(self, effect: t.AuditLane) -> None:
        if effect.lease not in self.lane_bad:
            self.say(t.LaneAudited(self.now_ms, effect.lease, effect.claim_hash, effect.auditors))
            return
        if len(effect.auditors) < 2:
            self.say(t.LaneUnchecked(self.now_ms, effect.lease, effect.claim_hash, "too few"))
            return
        seal = Signed(b"", SEAL)
        evidence = Evidence(seal, seal, bytes(32), 1, 0, ())
        spec = TaskSpec("echo", b"", (), 0, 1, 1, 1)
        self.say(
            t.LaneCaught(self.now_ms, effect.lease, effect.claim_hash, spec, evidence, (evidence, evidence))
        )  # fmt: skip

    def _money(self, effect: t.StewardEffect) -> None:
        match effect:
            case t.Pay():
                self.vouchers[effect.lease] = max(self.vouchers.get(effect.lease, 0), effect.cumulative_ucr)
                self.say(t.PeerTookVoucher(self.now_ms, effect.lease, effect.cumulative_ucr))
            case t.Charge() if self.refuse_charge:
                self.say(t.LedgerRefusedCharge(self.now_ms, effect.lease, effect.task, Refusal.BAD_WITNESS))
            case t.Charge():
                self.slashed[effect.lease] = effect.slash_ucr
                self.say(t.LedgerSlashed(self.now_ms, effect.lease, effect.task, effect.slash_ucr))
            case t.EndLease():
                terms, provider = self.leases[effect.lease]
                if provider.name in self.away and self.now_ms < effect.ends_ms:
                    return
                paid = max(self.vouchers.get(effect.lease, 0), effect.cumulative_ucr)
                if paid:
                    self.vouchers[effect.lease] = paid
                self.escrow[effect.lease] = "closed"
                slashed = self.slashed.get(effect.lease, 0)
                self.say(t.LedgerClosed(self.now_ms, effect.lease, paid, terms.cap_ucr - paid, slashed))
            case _:
                pass

    # judging ----------------------------------------------------------------------------------------------------------

    def paid_to(self, provider: Provider) -> int:
        return sum(amount for lease, amount in self.vouchers.items() if self.leases[lease][1] is provider)

    def outcome(self, job: bytes) -> t.JobEnded:
        found = [effect for effect in self.of(t.JobEnded) if effect.job == job]
        assert len(found) == 1
        return found[0]


def worth(provider: Provider, units: int) -> int:
    return cost_ucr(units, provider.price)


def honest_crowd(count: int, **changes: object) -> list[Provider]:
    return [Provider(f"p{n}", **changes) for n in range(count)]  # pyright: ignore[reportArgumentType]
