"""Tasks of a job over leases: who gets what, what a failure means, and when to stop trying.

One rule for failures. A task can end badly because of *where* it ran (the provider died, left, was too slow, lost its
worker) or because of *what* it is (not a model, empty data). Where: it moves to another provider, up to MAX_MOVES
times. What: a provider may lie about that, so it takes the same non-retryable code from two accounts, or from the
only account there is, to give up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from fallow.errors import WORKLOAD_CODES

MAX_MOVES = 8
TASK_GRACE_MS = 30_000
"""What a provider gets beyond a task's own time limit for fetching inputs and reporting."""
MIN_RESTART_MS = 60_000
"""What every running task gets at least after the steward itself was away."""


LEFT = frozenset({"E1204", "E1206", "E1302"})
"""A provider's codes that mean: under this lease nothing more will be done here."""


class Blame(Enum):
    """Whose fault an attempt's end was."""

    PLACE = "place"
    WORK = "work"


class Attempt(NamedTuple):
    """An attempt that ended without an answer. `code` is "" for providers that were lost; `what` is what the provider
    said."""

    account: bytes
    blame: Blame
    code: str = ""
    what: str = ""


class AfterFailure(Enum):
    """What happens to a task after a failed attempt."""

    MOVE = "move"
    GIVE_UP = "give up"


def blame(code: str, *, retryable: bool) -> Blame:
    """Only the workload's own codes (E17xx) can speak against the work; a worker that died (E1704) cannot."""
    return Blame.WORK if code in WORKLOAD_CODES and not retryable else Blame.PLACE


def judge(attempts: Sequence[Attempt], accounts_left: int) -> AfterFailure:
    """Whether a task with these failed attempts is tried again. `accounts_left` counts accounts that have not tried
    it."""
    if not attempts:
        return AfterFailure.MOVE
    accusers: dict[str, set[bytes]] = {}
    for attempt in attempts:
        if attempt.blame is Blame.WORK:
            accusers.setdefault(attempt.code, set()).add(attempt.account)
    agreed = max((len(accounts) for accounts in accusers.values()), default=0)
    if agreed >= 2 or (agreed == 1 and accounts_left == 0):
        return AfterFailure.GIVE_UP
    return AfterFailure.GIVE_UP if len(attempts) > MAX_MOVES else AfterFailure.MOVE


class FreeSeat(NamedTuple):
    """A lease that could take a task now. `running` of `depth` tasks are under way; `room_units` still fit under its
    cap; `units_per_s` is the measured speed of the offer."""

    seat: int
    account: bytes
    running: int
    depth: int
    room_units: int
    units_per_s: int = 0


def choose_place(
    places: Iterable[FreeSeat], units: int, *, avoid: Mapping[bytes, int], never: frozenset[bytes], prefer: int | None
) -> int | None:
    """The seat that takes a task of `units`: the `prefer`red one if it has room (it holds the state), else the least
    busy, of those the one that failed it least (`avoid`: account -> failures), the fastest, the lowest number. None
    when nobody has room. Accounts in `never` are out."""
    fits = [
        place
        for place in places
        if place.running < place.depth and place.room_units >= units and place.account not in never
    ]
    if not fits:
        return None
    for place in fits:
        if place.seat == prefer:
            return place.seat
    best = min(fits, key=lambda p: (avoid.get(p.account, 0), p.running, -p.units_per_s, p.seat))
    return best.seat


def deadline_ms(now_ms: int, timeout_s: int) -> int:
    """When a task that is assigned now is overdue."""
    return now_ms + timeout_s * 1_000 + TASK_GRACE_MS


def after_absence_ms(deadline: int, now_ms: int) -> int:
    """A running task's deadline after the steward was away: the work went on meanwhile, only nobody listened."""
    return max(deadline, now_ms + MIN_RESTART_MS)
