"""The socket for checks: what a claim must pass before it is paid, what that costs, and what it proves.

A check is one object that inherits from `Check` and one line in `checks/registry.py`; how to name it is the first word
of `JobSpec.verify`, what follows a colon are its settings. The machine (`claims.py`, `dispatch.py`, `shapes/lanes.py`,
`end.py`) tells it of a claim and of all that happens to it; the check says by `claims.finalise`, `claims.hold`,
`claims.refute` and `claims.void` what the claim is worth, at once or after it has heard more. Nothing else in the tree
names a check (`tests/test_sockets.py`).

A claim's fate is in the check's hands from `begin` on, and until it is decided its account can be paid nothing for it.
What a check wants done again it gives to seats as further runs of the claim's slot (`dispatch.assign`), as a slot of
its own (`slots.add_slot(of=...)`, placed by `place`, answered by `answered`), or as an effect that it keeps in
`Claim.asked`, which is asked for again after a restart and whose answering event reaches `heard`. An effect or event of
its own is a class in `events.py`; whatever names a lease and is no business of the machine's reaches `heard`. What it
remembers of a slot or a seat is a `CheckState` of its own, in `Slot.check` and `Seat.check`.

How those that are not built yet fit:

- `quorum:k`: `begin` gives k - 1 further runs of the slot to other accounts; `answered` counts, as `audit` does, whose
  ballot (`trust.tally`) it can use; it never holds anything.
- `credibility`: like `audit`, but the chance of a check follows from the account's standing, which `answered`
  moves.
- referee (bisection): `answered` sees two claims differ and asks both seats, by an effect of its own, for the hash in
  the middle of their chains; each event in `heard` halves the distance, the last link is a slot `of` the claim.
- `fingerprint` (replay of the prefill): `begin` adds a slot of its own whose task is the prompt with the claimed
  tokens, a small part of the work; `answered` compares what it gives with the claimed logits.
- `algebra` (Freivalds): `begin` compares the claimed product with two vectors that `Claim.seed` draws (`draws = True`),
  here or by an effect, and decides at once.
- `zk`: `begin` has an effect verify the output's part "proof"; `heard` finalises or refutes. `executions_ppm` says what
  making the proof costs; nobody else does anything.
- `tee`: the same with the part "attestation" and the maker's certificate.
- `score` (commit and reveal by validators): `begin` adds a slot `of` the claim for each validator, whose first
  answer is a hash; when all are in, or at the moment that `moments` gave, `tick` asks for what was hashed and pays by
  the median.
- `approve` (the buyer releases it, or a timer does): `begin` holds; `heard` gets the buyer's event; `tick` finalises
  what is provisional since longer than the settings say, and `moments` names that time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from fallow.rules import market
from fallow.rules.steward import claims
from fallow.rules.steward.events import KeepBlob, StewardEvent
from fallow.rules.steward.state import Claim, Job, Run, Seat, Slot, State, Turn
from fallow.wire.ledger import Evidence
from fallow.wire.local import JobSpec
from fallow.wire.tasks import TaskOutput, TaskSpec

ONCE_PPM = 1_000_000
"""Each task is done once."""


class PolicyError(NamedTuple):
    """Why a text that says how to verify was refused."""

    what: str


class Exhibit(NamedTuple):
    """What a receipt shows to a check, every word of it signed by whoever said it. The accounts `others` gave the
    `output` of the `provider` (None for an answer on a lane), or `sampled` is the claim of `sampled_by`, who did a part
    again. The bank drew `seed` for a claim of `drawn_for`, and by stake the accounts `drawn`; `undrawn` could have been
    asked too, and `outside` held no lease for work, as the requester says."""

    kind: str
    task: TaskSpec
    output: TaskOutput | None
    provider: bytes
    others: tuple[bytes, ...]
    sampled: Evidence | None
    sampled_by: bytes
    seed: bytes
    drawn_for: bytes
    undrawn: tuple[bytes, ...]
    drawn: tuple[bytes, ...] = ()
    outside: tuple[bytes, ...] = ()


class Shown(NamedTuple):
    """In words, what was shown; or what is `wrong` with it."""

    words: str
    wrong: str = ""


class Check(ABC):
    """A way to check claims, with its settings. `name` is what people write. A check that `draws` is told of a claim
    only when the bank has drawn randomness for it, which nobody knew before the claim was signed. One that `compares`
    answers bit for bit wants all machines of a job to be of one class where answers depend on that. `proves` and
    `leaves_open` say in words what a claim that stood it is worth, and what it still may be."""

    name: ClassVar[str]
    draws: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    proves: ClassVar[str]
    leaves_open: ClassVar[str]

    # of a job that is not there yet -----------------------------------------------------------------------------------

    @abstractmethod
    def parse(self, settings: str, *, in_links: bool) -> Check | PolicyError:
        """The check with the settings that were written after its name and a colon ("" for none), for work that is
        committed to link by link or not."""

    def least_seats(self) -> int:
        """How many leases a job needs at least, so that its claims can be checked."""
        return 1

    def executions_ppm(self, spec: JobSpec, accounts: int) -> int:
        """What each task costs with its checks when `accounts` new and honest ones do the job, in executions of it, in
        parts per million."""
        return ONCE_PPM

    def outsiders(self, job: Job) -> int:
        """How many auditors from outside the job's own leases its checks want now."""
        return 0

    # of a claim -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def begin(self, turn: Turn, job: Job, seat: Seat, claim: Claim) -> None:
        """A claim is here with all that it consists of: decide it, hold it, or begin to have it checked. The slot of a
        task's claim is in `Step.KEEPING` and moves with it."""

    def answered(self, turn: Turn, job: Job, slot: Slot, run: Run) -> None:
        """A run that the check asked for has been claimed: of a slot that is being checked, or of one of its own."""

    def heard(self, turn: Turn, job: Job, seat: Seat, event: StewardEvent) -> None:
        """Something happened under the seat's lease that is no business of the machine's."""

    def doubt(self, turn: Turn, job: Job, slot: Slot, text: str) -> bool:
        """Something speaks against the answer in the slot, which `text` tells people; -> whether it is looked at."""
        return False

    def builds_on(self, job: Job, slot: Slot) -> bool:
        """Whether later work may build on the slot's answer now."""
        return slot.usable

    def shown(self, seen: Exhibit) -> Shown:
        """Whether the evidence of others in a receipt is what this check asks for."""
        return Shown(f"{len(seen.others)} other accounts gave the same output")

    # while a job is under way -----------------------------------------------------------------------------------------

    def tick(self, turn: Turn, job: Job) -> None:
        """Somebody may have room, or time has passed: go on with what waits for it. Called whenever tasks are given
        out, before them."""

    def place(self, turn: Turn, job: Job, slot: Slot, free: list[Seat]) -> Seat | None:
        """Where a slot of the check's own goes now; None when it has to wait."""
        return None

    def tidy(self, turn: Turn, job: Job) -> None:
        """The job was looked after: let go of what was here for checks that are over."""

    def resume(self, turn: Turn, job: Job) -> None:
        """The steward was away: clocks that run against peers begin anew."""

    def moments(self, state: State, job: Job) -> Iterator[int]:
        """When time alone makes the check act."""
        yield from ()

    def keeps(self, job: Job) -> Sequence[KeepBlob]:
        """The blobs that it asked for and that are not here yet."""
        return ()

    # when a lease or a job ends ---------------------------------------------------------------------------------------

    def close(self, turn: Turn, job: Job, seat: Seat) -> bool:
        """The seat gets no more work and all its claims are provisional: decide them, or check again; -> whether none
        is left. Called again until it is so."""
        for claim in list(seat.claims.values()):
            self.clear(turn, job, seat, claim)
        return not seat.claims

    def stop(self, turn: Turn, job: Job, *, late: bool) -> None:
        """The job is ending: nothing new is begun; with `late`, nothing is waited for either, and no slot is left in
        `Step.CHECKING`."""

    def believes(self, state: State, job: Job, account: bytes) -> bool:
        """Whether a claim of the account that nobody can check any more is paid."""
        return False

    def clear(self, turn: Turn, job: Job, seat: Seat, claim: Claim) -> None:
        """Make a claim final that was held, and that nobody is going to check."""
        claims.clear(turn, job, seat, claim, claims.Finding("cleared", "it was held, and nothing spoke against it"))


CHECKS: dict[str, Check] = {}
"""All checks by name; `checks/registry.py` fills it."""


def parse(text: str, *, in_links: bool = False) -> Check | PolicyError:
    """The check that a job's `verify` names, with its settings."""
    name, colon, settings = text.strip().partition(":")
    check = CHECKS.get(name)
    if check is None or (colon and not settings):
        return PolicyError(f"unknown way to verify {text[:80]!r} (known: {', '.join(CHECKS)})")
    return check.parse(settings, in_links=in_links)


def check_of(job: Job) -> Check:
    """The check of a job's claims, read once for as long as the job is in memory: it is asked for several times a turn,
    and what it is read from does not change. A job whose check was refused has no claims."""
    found = vars(job).get("check")
    if found is None:
        parsed = parse(job.spec.verify, in_links=market.in_links(job.spec))
        found = vars(job)["check"] = parsed if isinstance(parsed, Check) else _REFUSED
    return found


class _Refused(Check):
    name = ""

    def parse(self, settings: str, *, in_links: bool) -> Check:
        return self

    def begin(self, turn: Turn, job: Job, seat: Seat, claim: Claim) -> None:
        pass


_REFUSED = _Refused()
