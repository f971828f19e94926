"""The `audit` policy: which claims are checked, by whom, what a set of answers proves, and when a claim is final.

A claim is *provisional* until it is final; only final units are paid. Every account starts on probation: its first
claims are all checked, by doing the task again elsewhere until `quorum` equal answers of distinct accounts stand. Later
claims are checked with probability `rate`. Whether and by whom follows from randomness that is drawn after the claim
was committed. A provider cannot tell a check from ordinary work, so a cheat also betrays itself when it is asked to
check others. Work in exact arithmetic is committed to link by link (`kinds/train/trace.py`), and then a check is
`links` of them, drawn from the same randomness, done again by one other: cheap enough for every claim. Where that finds
a difference, the whole task is done again as above. Who checks others while its own claim is still being decided is
paid for that once the claim has stood: a cheat does not earn by its audits until it is caught. A caught account is
banned and all its unchecked claims are done again. What was never checked becomes final when `window` later checks of
the same account passed, or when its job ends: then one last claim of every account with unchecked ones is checked, so
that a cheat cannot leave with what the sampling missed.

Defends against: wrong answers from single accounts and from colluders who are a minority, cheats who wait until they
are trusted, providers who know their auditors, a steward who picks friendly auditors, accusations by a single liar.
Does not defend against: `quorum` colluders who are drawn together (they can confirm a wrong answer and accuse an
honest one; the probability falls with their share to the power of `quorum` - 1), an account that is thrown away after
every lie (that is what stake is for), or a class of machines with one member.

Source: measurements of redundancy schemes that the design cites (section 7, rung `audit`); the differences to the
simulated scheme are that the claim itself counts toward the quorum and that the closing check is new.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Container, Iterable, Mapping, Sequence
from enum import Enum
from fractions import Fraction
from itertools import accumulate
from math import comb
from typing import NamedTuple

from blake3 import blake3

MAX_PROBATION = 1_000
MAX_QUORUM = 8
MAX_WINDOW = 1_000
MAX_LINKS = 64
RATE_ONE = 1_000_000


class Policy(NamedTuple):
    """How claims are checked. `rate_ppm` is the probability of a check after probation in parts per million, `quorum`
    how many must agree. `links` is how many links of a committed chain a check does again; 0 for the whole task."""

    probation: int = 1
    rate_ppm: int = 100_000
    quorum: int = 2
    window: int = 3
    links: int = 0


DEFAULT = Policy()
EXACT_DEFAULT = Policy(rate_ppm=RATE_ONE, links=2)
"""For work that is committed to link by link: a look at every claim."""


def parse_settings(text: str, *, exact: bool = False) -> Policy | str:
    """Read "probation=1,rate=0.1,quorum=2,window=3,links=2" (each part may be left out; what it is then depends on
    whether it is `exact` training), or say why not. Limits: probation 0 to 1000, rate 0 to 1 with at most six decimals,
    quorum 2 to 8, window 1 to 1000, links 0 to 64."""
    policy, seen = EXACT_DEFAULT if exact else DEFAULT, set[str]()
    for part in text.split(",") if text else ():
        key, _, value = part.partition("=")
        key = key.strip()
        number = _setting(key, value.strip())
        if number is None or key in seen:
            return f"{part[:80]!r} is no setting of audit"
        seen.add(key)
        policy = policy._replace(**{"rate_ppm" if key == "rate" else key: number})
    return policy


def _setting(key: str, value: str) -> int | None:
    if key == "rate":
        return _parts_per_million(value)
    limits = {
        "probation": (0, MAX_PROBATION), "quorum": (2, MAX_QUORUM), "window": (1, MAX_WINDOW), "links": (0, MAX_LINKS)
    }  # fmt: skip
    low, high = limits.get(key, (1, 0))
    if not (value.isascii() and value.isdigit() and len(value) <= 4):
        return None
    return int(value) if low <= int(value) <= high else None


def _parts_per_million(value: str) -> int | None:
    """Exact decimal text between 0 and 1, no floats on the way."""
    whole, _, part = value.partition(".")
    if whole not in ("0", "1") or len(part) > 6 or not (part + "0").isascii() or not (part + "0").isdigit():
        return None
    ppm = int(whole) * RATE_ONE + int(part.ljust(6, "0"))
    return ppm if ppm <= RATE_ONE else None


class Standing(NamedTuple):
    """What an account has shown so far, over all jobs of this steward."""

    passed: int = 0
    banned: bool = False


class Reason(Enum):
    """Why a claim is checked."""

    PROBATION = "probation"
    SAMPLED = "sampled"
    FORCED = "forced"
    CLOSING = "closing"


def must_check(policy: Policy, standing: Standing, seed: bytes, *, forced: bool = False) -> Reason | None:
    """Whether a claim whose randomness is `seed` is checked. `forced` is for results that later work is built on."""
    if forced:
        return Reason.FORCED
    if standing.passed < policy.probation:
        return Reason.PROBATION
    return Reason.SAMPLED if _chance(seed, b"sample") < policy.rate_ppm else None


def sample_indexes(policy: Policy, standing: Standing, seed: bytes, count: int, most: int) -> tuple[int, ...]:
    """Which of a batch's `count` claims are checked, at most `most` of them. On probation: as many as probation still
    asks for, at least one. After it each index is a chance of `rate`; the work is bounded by `most`, not by count."""
    if count < 1:
        return ()
    owed = policy.probation - standing.passed
    expected, rest = divmod(count * policy.rate_ppm, RATE_ONE)
    wanted = owed if owed > 0 else expected + (_chance(seed, b"sample") < rest)
    wanted = min(wanted, count, most)
    picked: dict[int, None] = {}
    draw = 0
    while len(picked) < wanted:
        picked[int.from_bytes(_hash(seed, b"index", draw.to_bytes(8, "big"))[:8], "big") % count] = None
        draw += 1
    return tuple(sorted(picked))


def draw_links(seed: bytes, count: int, wanted: int) -> tuple[int, ...]:
    """Which `wanted` of the `count` links of a committed chain are done again: distinct, each set equally likely, and
    all of them when there are no more. Nobody knows before the claim whose randomness is `seed`."""
    if wanted >= count:
        return tuple(range(count))
    picked: set[int] = set()
    # Floyd's algorithm: as many draws as links, however many there are to choose from.
    for top in range(count - wanted, count):
        at = int.from_bytes(_hash(seed, b"link", top.to_bytes(8, "big"))[:16], "big") % (top + 1)
        picked.add(top if at in picked else at)
    return tuple(sorted(picked))


def auditor_order(
    seed: bytes, accounts: Iterable[bytes], drawn: Sequence[bytes] = (), outside: Container[bytes] = ()
) -> list[bytes]:
    """The order in which distinct accounts are asked to check: first those from `outside` the job's leases, whom nobody
    took for their price. Of either kind, first whom the bank has `drawn` by stake, as it drew them, then the rest as
    the seed has it: whoever chooses the accounts that take part cannot choose who of them comes first."""
    places = {account: place for place, account in enumerate(drawn)}

    def place(account: bytes) -> tuple[bool, int, bytes]:
        return account not in outside, places.get(account, len(places)), _hash(seed, b"auditor", account)

    return sorted(set(accounts), key=place)


def after(
    seed: bytes,
    asked: Iterable[bytes],
    others: Iterable[bytes],
    drawn: Sequence[bytes] = (),
    outside: Container[bytes] = (),
) -> tuple[bytes, ...]:
    """Those of `others` who come after all that were `asked`, in order."""
    first = set(asked)
    order = auditor_order(seed, first.union(others), drawn, outside)
    last = max((order.index(account) for account in first), default=-1)
    return tuple(order[last + 1 :])


def draw_by_stake(seed: bytes, stakes: Sequence[tuple[bytes, int]], wanted: int) -> list[bytes]:
    """The first `wanted` accounts of the order in which `seed` draws them: one after the other, each in proportion to
    its stake among those that are left (as an exponential race with these rates would end). Splitting an account's
    stake over many does not change how often one of them comes first. `stakes` are distinct accounts with positive
    stakes, in the order of the accounts. Whole numbers only: the same everywhere. O(accounts + wanted^2)."""
    ends = list(accumulate(stake for _, stake in stakes))
    picked, order = list[int](), list[bytes]()
    left = ends[-1] if ends else 0
    while left and len(picked) < wanted:
        point = int.from_bytes(_hash(seed, b"stake", len(picked).to_bytes(8, "big")), "big") % left
        for index in picked:  # in rising order: step over what was drawn before
            if point < ends[index] - stakes[index][1]:
                break
            point += stakes[index][1]
        found = bisect_right(ends, point)
        left -= stakes[found][1]
        insort(picked, found)
        order.append(stakes[found][0])
    return order


def called(share: Fraction, drawn: int, wanted: int = 2) -> Fraction:
    """The probability that at least `wanted` of the `drawn` accounts that `draw_by_stake` gives are one owner's, who
    has `share` of all stake, split as finely as it likes (so that each is drawn as if none had been before)."""
    fewer = (comb(drawn, n) * share**n * (1 - share) ** (drawn - n) for n in range(min(wanted, drawn + 1)))
    return 1 - sum(fewer, Fraction(0))


def closing_pick(seeds: Mapping[bytes, bytes]) -> bytes:
    """Which of an account's unchecked claims (claim hash -> seed) is checked at the end. Depends on all seeds, so
    that the last one drawn decides, which nobody knew before its claim was made. `seeds` is not empty."""
    mixed = _hash(b"".join(seeds[claim] for claim in sorted(seeds)), b"closing", b"")
    return min(seeds, key=lambda claim: _hash(mixed, b"pick", claim))


class Vote(NamedTuple):
    """One account's committed answer to a task."""

    account: bytes
    answer: bytes


class Open(NamedTuple):
    """Not settled: `more` further votes are wanted now, beside those that are under way."""

    more: int
    disputed: bool


class Settled(NamedTuple):
    """`quorum` distinct accounts agree on `answer`. `wrong` are those that said something else."""

    answer: bytes
    right: tuple[bytes, ...]
    wrong: tuple[bytes, ...]


class Undecided(NamedTuple):
    """As many votes as the policy allows, and no quorum: nobody is believed and nobody is accused."""


def tally(votes: Sequence[Vote], under_way: int, quorum: int) -> Open | Settled | Undecided:
    """What the votes prove. Only an account's first vote counts (an account with many machines is one voice), and at
    most 2 * quorum + 1 votes are ever asked for. Accusing takes two agreeing others whatever the quorum: see
    `may_charge`."""
    answers: dict[bytes, bytes] = {}
    for vote in votes:
        answers.setdefault(vote.account, vote.answer)
    support: dict[bytes, int] = {}
    for answer in answers.values():
        support[answer] = support.get(answer, 0) + 1
    leader = max(sorted(support), key=lambda answer: support[answer], default=b"")
    disputed = len(support) > 1
    if support.get(leader, 0) >= quorum:
        right = tuple(account for account, answer in answers.items() if answer == leader)
        return Settled(leader, right, tuple(account for account in answers if account not in right))
    room = 2 * quorum + 1 - len(answers) - under_way
    missing = quorum - support.get(leader, 0) - under_way
    if room <= 0 and under_way == 0:
        return Undecided()
    return Open(max(0, min(missing, room)), disputed)


def may_charge(right: Sequence[bytes], accused: bytes) -> bool:
    """Whether the evidence is enough for a ledger: two or more other accounts agree."""
    return len(set(right) - {accused}) >= 2


def clears(policy: Policy, passed_since: int) -> bool:
    """Whether an unchecked claim is final, given how many later checks its account passed."""
    return passed_since >= policy.window


def expected_executions_ppm(
    policy: Policy, tasks: int, accounts: int, forced: int = 0, check_ppm: int = RATE_ONE
) -> int:
    """Executions per task that an honest crowd of `accounts` new ones costs for `tasks` tasks, in parts per million:
    itself, the probation of accounts (a check that passes counts for all who took part, but the first task of each
    begins before any has passed), the `forced` checks, the samples, and the closing checks. Forced and closing checks
    do the whole task again; the others cost `check_ppm` of it for each account that does one."""
    if tasks < 1:
        return RATE_ONE
    extra = policy.quorum - 1
    together = accounts if policy.probation else 0
    early = min(tasks, max(together, -(-accounts * policy.probation // policy.quorum)))
    whole = min(tasks - early, forced)
    if policy.rate_ppm < RATE_ONE or not policy.links:
        whole += min(tasks - early - whole, accounts)
    part = early * RATE_ONE + (tasks - early - whole) * policy.rate_ppm
    return RATE_ONE + extra * (part * check_ppm // RATE_ONE + whole * RATE_ONE) // tasks


def _hash(seed: bytes, purpose: bytes, detail: bytes) -> bytes:
    return blake3(seed + len(purpose).to_bytes(1, "big") + purpose + detail).digest()


def _chance(seed: bytes, purpose: bytes) -> int:
    """Uniform in [0, RATE_ONE): 64 bits modulo a million, whose bias is below 1e-13."""
    return int.from_bytes(_hash(seed, purpose, b"")[:8], "big") % RATE_ONE
