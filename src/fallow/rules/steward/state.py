"""What the steward's brain remembers. Plain mutable structs, equal by value, so that a replay can be compared; all of
it follows from the events alone. Dicts stand in for ordered sets where the order decides something."""

from __future__ import annotations

from enum import Enum

import msgspec

from fallow.rules import market
from fallow.rules.jobs import Attempt
from fallow.rules.membership import Roll
from fallow.rules.steward.events import AuditLane, Charge, Note, ReplayTask, StewardEffect, StewardIdentity, Timing
from fallow.rules.trust import Standing
from fallow.units import cost_ucr
from fallow.wire.codec import Family
from fallow.wire.documents import Lease, Order, Quote, Signed
from fallow.wire.local import JobSpec
from fallow.wire.messages import NodeAddress, Offer, Shortfall
from fallow.wire.tasks import TaskOutput, TaskSpec

NEVER_MS = 1 << 62


class Stage(Enum):
    """How far a seat has come. The order matters: `OPEN` and later have a lease with money behind it."""

    ASKING = 0
    QUOTED = 1
    PROPOSED = 2
    OPENING = 3
    OPEN = 4
    CLOSING = 5
    CLOSED = 6
    DROPPED = 7


class Mark(Enum):
    """Why an open seat gets no more work."""

    NONE = ""
    FULL = "full"
    LEAVING = "leaving"
    LOST = "lost"
    BANNED = "banned"


_OPEN, _NONE = Stage.OPEN, Mark.NONE


class Step(Enum):
    """Where a slot stands. `PROVISIONAL` and `FINAL` have an answer that can be used."""

    WAITING = "waiting"
    RUNNING = "running"
    KEEPING = "keeping"
    CHECKING = "checking"
    PROVISIONAL = "provisional"
    FINAL = "final"
    DROPPED = "dropped"


class Fate(Enum):
    """What became of a run of a task. Only `FINAL` ones are paid."""

    RUNNING = "running"
    CLAIMED = "claimed"
    FINAL = "final"
    VOID = "void"
    ENDED = "ended"


class Phase(Enum):
    """A job's life, in the words that people see."""

    STARTING = "starting"
    RUNNING = "running"
    SETTLING = "settling"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class CheckState(Family):
    """What a job's check remembers of a slot or a seat: a tagged, array-like struct of its own, in snapshots too. Here
    is what the machine asks of that of a slot."""

    __slots__ = ()

    def begun(self) -> tuple[int, ...]:
        """The keys of the slots of the check's own that it waits for now."""
        return ()

    def serves(self, key: int) -> bool:
        """Whether the slot of the check's own with this key is still good for anything."""
        return key in self.begun()

    def contested(self) -> bool:
        """Whether something speaks against the slot's answer, and nothing is decided."""
        return False

    def drop(self) -> None:
        """What was begun is not waited for any more."""
        return

    def forget(self) -> None:
        """The slot's answer is lost, and with it all that was found of it."""
        return


class Run(msgspec.Struct):
    """One seat's go at a slot's task, under the task id of that time. The fields from `answer` on are set when it is
    claimed: `root` is what was signed. While the fate is `CLAIMED`, the seat holds the Claim of that hash."""

    seat: int
    account: bytes
    task: bytes
    spec: TaskSpec
    deadline_ms: int
    fate: Fate = Fate.RUNNING
    answer: bytes = b""
    output: TaskOutput | None = None
    root: Signed | None = None
    claim_hash: bytes = b""
    holders: tuple[NodeAddress, ...] = ()


class Slot(msgspec.Struct):
    """A place for one accepted answer. `runs` are all there were of its task, `attempts` those that failed, `answer`
    the one that is believed (b"": none). A slot is `retired` when nobody needs its answer any more (its round was
    rolled back) although its claims still await pay. One that is `forced` is to be checked, whatever chance says.
    `check` is what the job's check remembers of it. A slot of the check's own looks at the claim `of` another slot."""

    key: int
    spec: TaskSpec
    task: bytes
    step: Step = Step.WAITING
    runs: list[Run] = []
    attempts: list[Attempt] = []
    answer: bytes = b""
    forced: bool = False
    retired: bool = False
    prefer: int | None = None
    of: int | None = None
    check: CheckState | None = None

    @property
    def usable(self) -> bool:
        return self.step in (Step.PROVISIONAL, Step.FINAL)

    def live(self) -> list[Run]:
        """Runs of the present task whose answers count."""
        return [v for v in self.runs if v.task == self.task and v.fate in (Fate.CLAIMED, Fate.FINAL)]

    def running(self) -> list[Run]:
        return [v for v in self.runs if v.fate is Fate.RUNNING]

    def chosen(self) -> Run | None:
        """The run whose answer is believed: the first of them."""
        for run in self.runs:
            if run.task == self.task and run.answer == self.answer and run.fate in (Fate.CLAIMED, Fate.FINAL):
                return run
        return None

    def leading(self) -> Run | None:
        """The run that is believed or, before anything is, the first that was claimed."""
        return self.chosen() if self.answer else next(iter(self.live()), None)


class Claim(msgspec.Struct):
    """Work that a seat has signed for and that is not decided yet: the answer to the task of `slot`, or (where that is
    None) `count` lane tasks from number `first` on. Its units are held until it is final, and then owed. `seed` is the
    randomness that was drawn for it (b"" before). It is provisional `since_ms` (None: it is not): it waits to be
    cleared, by then its account had `passed` so many checks. One on `trial` is right, and waits only for what its
    account claimed before it to be decided. `asked` is what its check has asked for and got no answer to.
    Of lane tasks, `paid` are answers that earn something and can be compared. `drawn` are the accounts that the bank
    has drawn to check it, as far as it says so, first drawn first."""

    hash: bytes
    root: Signed
    units: int
    slot: int | None = None
    first: int = 0
    count: int = 1
    seed: bytes = b""
    since_ms: int | None = None
    passed: int = 0
    trial: bool = False
    asked: AuditLane | ReplayTask | None = None
    paid: int = 1
    drawn: tuple[bytes, ...] = ()

    @property
    def provisional(self) -> bool:
        return self.since_ms is not None


class Deal(msgspec.Struct):
    """What a seat is asked for and what its provider said: until `deadline_ms` it may quote, sign or open."""

    order: Order
    order_hash: bytes
    deadline_ms: int
    quote: Quote | None = None


class Money(msgspec.Struct):
    """What a seat costs, for 1,000 units. `final_units` are paid, `held_units` are running or claimed and would have to
    be. `voucher_ucr` is promised, of that the provider has `acked_ucr`. `settled` is the bank's last word: paid, back,
    slashed."""

    price_ucr: int = 0
    final_units: int = 0
    held_units: int = 0
    voucher_ucr: int = 0
    acked_ucr: int = 0
    charges: dict[bytes, Charge] = {}
    settled: tuple[int, int, int] = (0, 0, 0)
    slashed_ucr: int = 0


class SeatLane(msgspec.Struct):
    """A seat's lane: whether its provider is ready, and from which number on tasks have not been claimed."""

    ready: bool = False
    next: int = 1


class Seat(msgspec.Struct):
    """A provider's place in a job: first a negotiation, then a lease. `claims` are those that are not decided, by their
    hashes, in the order of claiming. `strikes` counts failures since the last good claim, `failures` all of
    them; a `suspect` seat was given up for them, and whatever it claimed is checked. An
    `outside` one was not taken for its price but drawn, and does nothing but check the others."""

    number: int
    offer: Offer
    deal: Deal
    units_per_s: int
    stage: Stage = Stage.ASKING
    mark: Mark = Mark.NONE
    money: Money = msgspec.field(default_factory=Money)
    lane: SeatLane = msgspec.field(default_factory=SeatLane)
    terms: Lease | None = None
    lease: bytes = b""
    ours: Signed | None = None
    theirs: Signed | None = None
    sequence: int = 0
    strikes: int = 0
    failures: int = 0
    suspect: bool = False
    outside: bool = False
    running: dict[bytes, int] = {}
    tasks_claimed: int = 0
    units_claimed: int = 0
    claims: dict[bytes, Claim] = {}
    check: CheckState | None = None

    @property
    def account(self) -> bytes:
        return self.offer.account

    @property
    def node(self) -> bytes:
        return self.offer.address.node

    @property
    def peer(self) -> NodeAddress:
        return self.offer.address

    @property
    def negotiating(self) -> bool:
        return self.stage.value < Stage.OPEN.value

    @property
    def usable(self) -> bool:
        """Gets new work."""
        return self.stage is _OPEN and self.mark is _NONE

    @property
    def leased(self) -> Lease:
        """The lease of a seat that has one."""
        assert self.terms is not None, "the seat has no lease"
        return self.terms

    @property
    def committed_ucr(self) -> int:
        """What of the budget this seat may still cost or has cost."""
        if self.stage in (Stage.PROPOSED, Stage.OPENING, Stage.OPEN, Stage.CLOSING):
            return self.leased.cap_ucr
        return min(self.money.settled[0], self.leased.cap_ucr) if self.stage is Stage.CLOSED else 0

    def room_units(self) -> int:
        """How many more units its cap allows."""
        return market.room_units(
            self.leased.cap_ucr, self.money.price_ucr, self.money.final_units + self.money.held_units
        )

    def owed_ucr(self) -> int:
        """What its final units cost, never more than its cap."""
        return min(cost_ucr(self.money.final_units, self.money.price_ucr), self.leased.cap_ucr)


class Ending(msgspec.Struct):
    """Why a job ends early. An empty code is success."""

    code: str = ""
    what: str = ""


class Hiring(msgspec.Struct):
    """How a job looks for providers. `talks` are the seats that are negotiating; no lease is about to end before
    `due_ms`. A node in `refused` is not asked before the time there; `refusals` counts how often in a row it had no
    room. `alone` says that the last search found nobody who was not asked, `dry` that no money is left. Patience with a
    market without takers is counted from `patient_ms`. `accusers` say that the work itself is at fault. Auditors from
    outside the job's leases are taken in the order `drawn` (accounts; then by `seed`), and looked for again at
    `outside_ms`."""

    patient_ms: int
    numerics: str = ""
    talks: dict[int, None] = {}
    due_ms: int = NEVER_MS
    searching: bool = False
    searched_ms: int | None = None
    alone: bool = False
    shortfalls: tuple[Shortfall, ...] = ()
    last_code: str = "E1201"
    refused: dict[bytes, int] = {}
    refusals: dict[bytes, int] = {}
    dry: bool = False
    accusers: dict[bytes, str] = {}
    seed: bytes = b""
    drawn: tuple[bytes, ...] = ()
    outside_ms: int = 0


class Queues(msgspec.Struct):
    """The keys of a job's slots by the step that they are in, in order; `wanting` are those of `checking` that look for
    auditors. No task is overdue before `due_ms`; `unusable` counts slots that a complete job still lacks."""

    waiting: dict[int, None] = {}
    checking: dict[int, None] = {}
    wanting: dict[int, None] = {}
    keeping: dict[int, None] = {}
    due_ms: int = NEVER_MS
    unusable: int = 0
    finals: int = 0


class Keeping(msgspec.Struct):
    """The blobs of a job. `kept` maps blob -> True (here) or False (asked for), `lent` those that are here for the
    check of a slot alone -> its key; `holders` are who can serve what later tasks take as input."""

    kept: dict[bytes, bool] = {}
    lent: dict[bytes, int] = {}
    missing: dict[bytes, None] = {}
    holders: dict[bytes, tuple[NodeAddress, ...]] = {}


class Told(msgspec.Struct):
    """What people were told of a job."""

    notes: int = 0
    warned: dict[str, None] = {}
    progress: int | None = None


class ShapeState(Family):
    """What a job's form remembers (`shapes/shape.py`): a tagged, array-like struct of its own."""

    __slots__ = ()


class Job(msgspec.Struct, dict=True):
    """A job and all that belongs to it. `live` holds the seats that are neither closed nor dropped. `tasks` maps the
    ids of all tasks there were to their slots. `form` is what the job's form remembers, if it does; then `moved` says
    that a slot of its own moved since it last looked."""

    id: bytes
    spec: JobSpec
    created_ms: int
    kind: str
    depth: int
    market: Hiring
    queue: Queues = msgspec.field(default_factory=Queues)
    blobs: Keeping = msgspec.field(default_factory=Keeping)
    told: Told = msgspec.field(default_factory=Told)
    form: ShapeState | None = None
    moved: bool = False
    phase: Phase = Phase.STARTING
    ending: Ending | None = None
    reported: bool = False
    ended_ms: int = 0
    seats: list[Seat] = []
    live: dict[int, None] = {}
    slots: list[Slot] = []
    tasks: dict[bytes, int] = {}
    looked_ms: int = 0

    @property
    def over(self) -> bool:
        return self.phase in (Phase.DONE, Phase.FAILED, Phase.CANCELLED)

    @property
    def present(self) -> list[Seat]:
        """Its live seats, as they are now."""
        return [self.seats[number] for number in self.live]

    @property
    def usable(self) -> list[Seat]:
        """Those of them that get work."""
        return [seat for seat in self.present if seat.usable]

    @property
    def workers(self) -> list[Seat]:
        """Those of them that get more than checks."""
        return [seat for seat in self.usable if not seat.outside]

    def runs_on(self, seat: Seat) -> list[Run]:
        """What is under way on the seat."""
        slots = [self.slots[key] for key in dict.fromkeys(seat.running.values())]
        return [run for slot in slots for run in slot.running() if run.seat == seat.number]

    def committed_ucr(self) -> int:
        """What all its leases may cost or have cost."""
        return sum(seat.committed_ucr for seat in self.seats)

    def left_ucr(self) -> int:
        """What of the budget no lease may take yet."""
        return self.spec.budget_ucr - self.committed_ucr()


class Leftover(msgspec.Struct, frozen=True):
    """A lease that nothing is known of any more but how to settle it: `owed_ucr` in all were promised under it."""

    peer: NodeAddress
    owed_ucr: int
    ends_ms: int


class State(msgspec.Struct):
    """Everything. `leases` maps a lease to its job and seat, `claims` a claim that is not final to its lease,
    `accounts` an account to its seats with a lease; `leftovers`
    are leases without a job, to be settled. No lease has to have its claims decided before `lapse_ms`."""

    identity: StewardIdentity = StewardIdentity(bytes(20), bytes(32), bytes(20))
    timing: Timing = Timing()
    now_ms: int = 0
    jobs: dict[bytes, Job] = {}
    leases: dict[bytes, tuple[bytes, int]] = {}
    claims: dict[bytes, bytes] = {}
    accounts: dict[bytes, dict[tuple[bytes, int], None]] = {}
    leftovers: dict[bytes, Leftover] = {}
    standings: dict[bytes, Standing] = {}
    lapse_ms: int = NEVER_MS
    roll: Roll = msgspec.field(default_factory=Roll)

    def standing(self, account: bytes) -> Standing:
        return self.standings.get(account, Standing())

    def seat_of(self, lease: bytes) -> tuple[Job, Seat] | None:
        found = self.leases.get(lease)
        if found is None:
            return None
        job = self.jobs[found[0]]
        return job, job.seats[found[1]]


class Turn:
    """One transition under way: the state, the effects so far, and the jobs that have to be looked at afterwards."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.effects: list[StewardEffect] = []
        self.touched: dict[bytes, None] = {}
        self.paying: dict[bytes, Seat] = {}

    @property
    def now_ms(self) -> int:
        return self.state.now_ms

    def ask(self, effect: StewardEffect) -> None:
        self.effects.append(effect)

    def touch(self, job: Job) -> None:
        self.touched[job.id] = None

    def note(self, job: Job, kind: str, text: str, node: bytes = b"", *, done: int = 0, total: int = 0) -> None:
        """Tell people; bounded, since a peer may have written part of the text."""
        job.told.notes += 1
        self.ask(Note(job.id, job.told.notes, self.now_ms, kind, text[:1_000], node, done, total))

    def warn_once(self, job: Job, key: str, text: str) -> None:
        if key not in job.told.warned:
            job.told.warned[key] = None
            self.note(job, "warning", text)
