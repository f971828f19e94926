"""Checks by sample: some links of a claim's committed chain, drawn after the claim, are done again by one other
account.

The check is a slot of its own, whose task (`kinds/chain.py`) starts from the states that were claimed and does
not hold the answers. So an auditor that does not do it cannot say that all is well, and what it says needs no second
opinion while it agrees. The steward fetches the states and hands them on: the accused does not learn who checks it.
"""

from __future__ import annotations

from fallow.kinds.chain import Chain
from fallow.kinds.registry import kind_named
from fallow.rules import trust
from fallow.rules.steward.checks.look import Look, look_at, seen_of
from fallow.rules.steward.checks.standing import outside, policy_of
from fallow.rules.steward.events import KeepBlob, LetGo
from fallow.rules.steward.hiring import outsider_coming
from fallow.rules.steward.slots import add_slot, begun, retire, serves
from fallow.rules.steward.state import Job, Run, Seat, Slot, Step, Turn
from fallow.wire.claims import output_hash
from fallow.wire.messages import NodeAddress
from fallow.wire.tasks import Part

MAX_NAMED = 16
"""Links that a receipt's words name: they have 200 characters."""


def begin(job: Job, slot: Slot) -> None:
    """Draw links of the slot's claim and ask for them to be done again. Does nothing where the claim has no chain, or
    the policy wants whole tasks done again."""
    run = slot.chosen()
    chain = kind_named(job.kind).chain(job.spec.work)
    if not policy_of(job).links or run is None or run.output is None or chain is None:
        return
    links = chain.links(slot.spec, run.output)
    if not links:
        return
    look = look_at(slot)
    drawn = chain.check(slot.spec, run.output, trust.draw_links(look.seed, links, policy_of(job).links))
    audit = add_slot(job, drawn.task, of=slot.key)
    expected = output_hash(drawn.expected)
    audit.check = Look(
        since_ms=look.since_ms, seed=look.seed, expected=expected, accused=run.claim_hash, drawn=look.drawn,
    )  # fmt: skip
    look.sample = audit.key


def about(job: Job, audit: Slot) -> Slot:
    """The slot whose claim it checks."""
    assert audit.of is not None, "it is the check of another slot"
    return job.slots[audit.of]


def auditors(job: Job, audit: Slot) -> list[bytes]:
    """The accounts that can do it, in the order in which they were drawn: not those whose claim it is about, and nobody
    twice."""
    accused = about(job, audit)
    parties = {run.account for run in accused.runs if run.task == accused.task}
    parties |= {run.account for run in audit.runs if run.task == audit.task}
    able = {seat.account for seat in job.usable if seat.room_units() >= audit.spec.units}
    look = seen_of(audit)
    return trust.auditor_order(look.seed, able - parties, look.drawn, outside(job))


def place(turn: Turn, job: Job, audit: Slot, free: list[Seat]) -> Seat | None:
    """Where it goes now: to the account that was drawn, once it has room and the states are here. Another is not asked
    because it is less busy, or a provider could choose whom it checks by being busy."""
    # Decided without it: its auditor was banned, or the claim's lease came to its end.
    if about(job, audit).step is not Step.CHECKING or not serves(job, audit):
        retire(turn, job, audit)
        return None
    if not _states_kept(turn, job, audit) or outsider_coming(turn, job):
        return None
    order = auditors(job, audit)
    for account in order[:1]:
        seats = [seat for seat in free if seat.account == account and seat.room_units() >= audit.spec.units]
        look_at(audit).call(order, outside(job), 1)
        return min(seats, key=lambda seat: (len(seat.running), seat.number), default=None)
    return None


def _states_kept(turn: Turn, job: Job, audit: Slot) -> bool:
    slot, wanted = about(job, audit), _chain(job).states(audit.spec)
    for part in wanted:
        if part.blob not in job.blobs.kept:
            job.blobs.kept[part.blob] = False
            job.blobs.lent[part.blob] = slot.key
            turn.ask(KeepBlob(job.id, part, sources(job, slot, part)))
    return all(job.blobs.kept[part.blob] for part in wanted)


def let_go(turn: Turn, job: Job) -> None:
    """States that are here for a check which is over: of a model that is trained in full, those of a few checks take
    more room than all else that a job leaves. One that a later check wants is fetched again."""
    for blob, key in list(job.blobs.lent.items()):
        if job.slots[key].step is not Step.CHECKING and job.blobs.kept.get(blob) is not False:
            del job.blobs.lent[blob]
            if job.blobs.kept.pop(blob, False):
                turn.ask(LetGo(job.id, blob))


def missing(job: Job) -> list[KeepBlob]:
    """What checks start from and is not here yet."""
    wanted: dict[bytes, KeepBlob] = {}
    for key in job.queue.checking:
        slot = job.slots[key]
        for part in slot.spec.inputs:
            if job.blobs.kept.get(part.blob) is False:
                wanted[part.blob] = KeepBlob(job.id, part, job.blobs.holders.get(part.blob, ()))
        for part in (part for audit in begun(job, slot) for part in audit.spec.inputs):
            if job.blobs.kept.get(part.blob) is False:
                wanted.setdefault(part.blob, KeepBlob(job.id, part, sources(job, slot, part)))
    return list(wanted.values())


def sources(job: Job, slot: Slot, part: Part) -> tuple[NodeAddress, ...]:
    """Who should have a state that the check of `slot` starts from: who claimed it, or carried it in."""
    if part in slot.spec.inputs:
        return job.blobs.holders.get(part.blob, ())
    return tuple(address for run in slot.live() for address in run.holders)[:16]


def _chain(job: Job) -> Chain:
    found = kind_named(job.kind).chain(job.spec.work)
    assert found is not None, "only claims that are chains are checked by sample"
    return found


def words(job: Job, audit: Slot, run: Run) -> str:
    """What a receipt says of a claim that stood the check."""
    drawn = _chain(job).drawn(audit.spec)
    more = f" and {len(drawn) - MAX_NAMED} more" if len(drawn) > MAX_NAMED else ""
    links = ", ".join(map(str, drawn[:MAX_NAMED]))
    return f"links {links}{more} of it, done again by 0x{run.account.hex()}, gave the same"
