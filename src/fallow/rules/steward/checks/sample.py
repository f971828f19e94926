"""Checks by sample: some links of a claim's committed chain, drawn after the claim, are done again by one other
account.

The check is a slot of its own, whose task (`kinds/train/trace.py`) starts from the states that were claimed and does
not hold the answers. So an auditor that does not do it cannot say that all is well, and what it says needs no second
opinion while it agrees. The steward fetches the states and hands them on: the accused does not learn who checks it.
"""

from __future__ import annotations

from fallow.kinds.train.tasks import TrainAudit, TrainParams, TrainRound
from fallow.kinds.train.trace import PREFIX, audit_task, expected_answer, read_trace
from fallow.rules import market, trust
from fallow.rules.steward.events import KeepBlob, LetGo
from fallow.rules.steward.slots import add_slot, retire
from fallow.rules.steward.specs import train_work
from fallow.rules.steward.state import Job, Run, Seat, Slot, Step, Turn
from fallow.wire import codec
from fallow.wire.claims import output_hash
from fallow.wire.messages import NodeAddress
from fallow.wire.tasks import Part


def begin(job: Job, slot: Slot) -> None:
    """Draw links of the slot's claim and ask for them to be done again. Does nothing where the claim has no chain, or
    the policy wants whole tasks done again."""
    run = slot.chosen()
    if not job.policy.links or slot.round < 0 or run is None or run.output is None or not market.in_links(job.spec):
        return
    recipe, params = train_work(job).recipe, codec.recall(TrainParams, slot.spec.params)
    trace = read_trace(recipe, run.output)
    if trace is None or not isinstance(params, TrainRound):
        return
    drawn = trust.draw_links(slot.seed, trace.links, job.policy.links)
    units = market.audit_units(recipe, trace.cut, drawn)
    audit = add_slot(job, audit_task(slot.spec, params, trace, drawn, units), of=slot.key)
    audit.expected = output_hash(expected_answer(trace, drawn))
    audit.seed, audit.since_ms, audit.accused = slot.seed, slot.since_ms, run.claim_hash
    slot.audit = audit.key


def auditors(job: Job, audit: Slot) -> list[bytes]:
    """The accounts that can do it, in the order in which they were drawn: not those whose claim it is about, and nobody
    twice."""
    parties = {run.account for run in job.slots[audit.of].runs if run.task == job.slots[audit.of].task}
    parties |= {run.account for run in audit.runs if run.task == audit.task}
    usable = (job.seats[number] for number in job.live)
    able = {seat.account for seat in usable if seat.usable and seat.room_units() >= audit.spec.units}
    return trust.auditor_order(audit.seed, able - parties)


def place(turn: Turn, job: Job, audit: Slot, free: list[Seat]) -> Seat | None:
    """Where it goes now: to the account that was drawn, once it has room and the states are here. Another is not asked
    because it is less busy, or a provider could choose whom it checks by being busy."""
    about = job.slots[audit.of]
    if audit.key not in (about.audit, about.dissent):  # decided without it, after its auditor was banned
        retire(turn, job, audit)
        return None
    if not _states_kept(turn, job, audit):
        return None
    for account in auditors(job, audit)[:1]:
        seats = [seat for seat in free if seat.account == account and seat.room_units() >= audit.spec.units]
        return min(seats, key=lambda seat: (len(seat.running), seat.number), default=None)
    return None


def _states_kept(turn: Turn, job: Job, audit: Slot) -> bool:
    slot = job.slots[audit.of]
    wanted = [part for part in audit.spec.inputs if part.name.startswith(PREFIX) or part.name == "carry"]
    for part in wanted:
        if part.blob not in job.kept:
            job.kept[part.blob] = False
            job.lent[part.blob] = slot.key
            turn.ask(KeepBlob(job.id, part, sources(job, slot, part)))
    return all(job.kept[part.blob] for part in wanted)


def let_go(turn: Turn, job: Job) -> None:
    """States that are here for a check which is over: of a model that is trained in full, those of a few checks take
    more room than all else that a job leaves. One that a later check wants is fetched again."""
    for blob, key in list(job.lent.items()):
        if job.slots[key].step is not Step.CHECKING and job.kept.get(blob) is not False:
            del job.lent[blob]
            if job.kept.pop(blob, False):
                turn.ask(LetGo(job.id, blob))


def sources(job: Job, slot: Slot, part: Part) -> tuple[NodeAddress, ...]:
    """Who should have a state that the check of `slot` starts from: who claimed it, or carried it in."""
    if not part.name.startswith(PREFIX):
        return job.holders.get(part.blob, ())
    return tuple(address for run in slot.live() for address in run.holders)[:16]


def words(audit: Slot, run: Run) -> str:
    """What a receipt says of a claim that stood the check."""
    params = codec.recall(TrainParams, audit.spec.params)
    assert isinstance(params, TrainAudit), "it was made here"
    return f"links {', '.join(map(str, params.links))} of it, done again by 0x{run.account.hex()[:10]}, gave the same"
