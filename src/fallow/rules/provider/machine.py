"""The provider's machine: `effects = transition(state, event)`, pure and deterministic, no I/O, state updated in place.

The interpreter appends an event to its log before it runs the event's effects, unless `state.changes` stood still.
Replaying the log through `recover` rebuilds the state and gives the effects whose traces may be missing; all effects
are idempotent. So a task is claimed at most once, a claim's sequence number is used at most once, and a claim is on
disk before anybody hears of it, whenever the process is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fallow.kinds.chain import ALWAYS_KEPT_BYTES, room_bytes
from fallow.kinds.registry import KINDS, metered
from fallow.rules.provider import events as t
from fallow.rules.provider.money import bank_work, covered, may_start, on_paid, reckon, settling, unpaid_ucr
from fallow.rules.provider.quotes import on_ordered, on_proposed
from fallow.rules.provider.state import LeaseEntry, ProviderState, TaskEntry
from fallow.wire.claims import merkle_root, output_hash, task_leaf
from fallow.wire.documents import ClaimRoot
from fallow.wire.messages import LeaseLeaving, TaskFailed

Effects = list[t.ProviderEffect]
UNKNOWN = t.ReplyFailure("E1204", "this provider has no such lease of yours")
"""For everybody but the requester's node, who learn not even that a lease exists."""


def transition(state: ProviderState, event: t.ProviderEvent) -> Effects:
    """Take one event. Never raises for anything that a peer, the bank or a worker may say."""
    effects = _advance(state, event.at_ms)
    if (handler := _HANDLERS.get(type(event))) is not None:
        return effects + handler(state, event)
    about: Any = event
    lease, caller = state.leases.get(about.lease), getattr(event, "caller", None)
    if lease is not None and caller in (None, lease.document.requester_node):
        return effects + _ON_LEASE[type(event)](state, lease, event)
    return effects if caller is None else [*effects, UNKNOWN]


def recover(state: ProviderState, events: Iterable[t.ProviderEvent]) -> Effects:
    """Replay the log onto `state` (an older snapshot, or a fresh state); -> the durable events and claims to append
    again, of which all but the last few are there already."""
    found: Effects = []
    for event in events:
        found += [e for e in transition(state, event) if isinstance(e, t.EmitEvent | t.SignClaim)]
    return found


def outstanding(state: ProviderState, now_ms: int) -> Effects:
    """What must be under way now, to be run after a restart and every second or so; repeating it is harmless."""
    effects: Effects = []
    for lease_id, lease in state.leases.items():
        effects += bank_work(state, lease_id, lease, now_ms)
        running = lease.tasks.get(lease.running)
        if lease.phase == "open" and running is not None and running.spec is not None:
            effects.append(t.StartTask(lease_id, lease.running, running.spec, running.sources))
    return effects


# time -----------------------------------------------------------------------------------------------------------------


def _advance(state: ProviderState, now_ms: int) -> Effects:
    """Whatever the passing of time alone does. Runs before every event, so that no deadline depends on ticks."""
    for order in [o for o, r in state.reservations.items() if r.quote.expires_ms <= now_ms]:
        del state.reservations[order]
        state.changes += 1
    effects: Effects = []
    for lease_id, lease in list(state.leases.items()):
        if lease.phase == "closed" and lease.until_ms <= now_ms:
            del state.leases[lease_id]
            state.changes += 1
        elif lease.phase == "signed" and lease.until_ms <= now_ms:
            effects += _leave(state, lease_id, "the escrow was not opened in time", now_ms)
            effects += _close(state, lease_id, lease)
        elif lease.phase == "open" and lease.document.ends_ms <= now_ms:
            effects += _leave(state, lease_id, "the lease has ended", now_ms)
        elif lease.phase == "leaving" and _nothing_more_to_come(state, lease, now_ms):
            effects += _close(state, lease_id, lease)
    return effects


def _nothing_more_to_come(state: ProviderState, lease: LeaseEntry, now_ms: int) -> bool:
    """Whether a lease under which no work is done can be closed: it is paid in full, or waited long enough."""
    if lease.until_ms <= now_ms:
        return True
    return now_ms >= lease.left_ms + state.terms.policy.settle_ms and unpaid_ucr(lease) == 0


def _on_restarted(state: ProviderState, event: t.ProviderRestarted) -> Effects:
    """Workers are gone: what ran is run again, ahead of what waited, unless it keeps taking the process with it."""
    state.terms, state.owner = event.terms, ""
    state.changes += 1
    effects: Effects = []
    for lease_id, lease in state.leases.items():
        effects += _run_again(state, lease_id, lease, event.at_ms)
    return effects


# the owner ------------------------------------------------------------------------------------------------------------


def _on_owner_returned(state: ProviderState, event: t.OwnerReturned) -> Effects:
    """The owner comes first: no quote is kept, no work goes on; what was claimed can still be paid."""
    state.owner = event.reason or "the owner is active"
    state.reservations.clear()
    state.changes += 1
    effects: Effects = []
    for lease_id, lease in state.leases.items():
        if lease.phase in ("signed", "open"):
            effects += _leave(state, lease_id, state.owner, event.at_ms)
    return effects


def _on_owner_left(state: ProviderState, _event: t.OwnerLeft) -> Effects:
    if state.owner:
        state.owner = ""
        state.changes += 1
    return []


# tasks ----------------------------------------------------------------------------------------------------------------


def _on_assigned(state: ProviderState, lease: LeaseEntry, event: t.PeerAssigned) -> Effects:
    """Queue a task and start it if nothing else runs. A task that is known is not started again, except one that failed
    here for reasons of this machine."""
    known = lease.tasks.get(event.task)
    if known is not None and (known.phase != "failed" or lease.phase not in ("signed", "open")):
        return [t.ReplyOk()]
    refusal = _refusal(state, lease, event)
    if refusal is not None:
        return [refusal]
    lease.tasks[event.task] = TaskEntry("queued", event.spec.units, event.spec, event.sources)
    lease.queue.append(event.task)
    lease.promised_units += event.spec.units
    state.changes += 1
    check: Effects = [t.CheckEscrow(event.lease)] if lease.phase == "signed" else []
    return [t.ReplyOk(), *check, *_start_next(state, event.lease, lease)]


def _refusal(state: ProviderState, lease: LeaseEntry, event: t.PeerAssigned) -> t.ReplyFailure | None:
    policy, spec = state.terms.policy, event.spec
    if lease.phase not in ("signed", "open"):
        return t.ReplyFailure("E1206", state.owner or "no more work is done under this lease")
    if spec.kind != lease.document.kind:
        return t.ReplyFailure("E1205", f"the lease is for {lease.document.kind}, not for {spec.kind}")
    if not covered(lease, spec.units):
        return t.ReplyFailure("E1205", "the lease's cap does not cover this task")
    if spec.ram_bytes > lease.share.ram_bytes:
        return t.ReplyFailure("E1205", "the task needs more memory than was leased")
    if spec.kind not in KINDS:
        return t.ReplyFailure("E1205", f"no kind of work is called {spec.kind[:40]!r}")
    if KINDS[spec.kind].kept_bytes(spec) > max(lease.share.disk_bytes, room_bytes(ALWAYS_KEPT_BYTES)):
        # Else an order for little room could fill our disk.
        return t.ReplyFailure("E1205", "the task's states need more disk space than was leased")
    if len(lease.queue) >= policy.max_queued or len(lease.tasks) >= policy.max_tasks:
        return t.ReplyFailure("E1803", "too many tasks wait under this lease")
    return None


def _on_cancelled(state: ProviderState, lease: LeaseEntry, event: t.PeerCancelled) -> Effects:
    entry = lease.tasks.get(event.task)
    if entry is None or entry.phase not in ("queued", "running"):
        return [t.ReplyOk()]
    stop: Effects = [t.StopTask(event.lease, event.task)] if entry.phase == "running" else []
    failed = TaskFailed(event.task, "E1402", "cancelled by the requester", False)
    ended = _end_task(state, event.lease, lease, failed, event.at_ms)
    return [t.ReplyOk(), *stop, *ended, *_start_next(state, event.lease, lease)]


def _on_finished(state: ProviderState, lease: LeaseEntry, event: t.WorkerFinished) -> Effects:
    """Claim the running task. Anything else is a late answer to a task that was stopped, and is dropped."""
    entry = lease.tasks.get(event.task)
    if entry is None or lease.running != event.task:
        return []
    assert entry.spec is not None, "a running task keeps its spec"
    unused = entry.units - metered(entry.spec, event.output)
    entry.units, lease.promised_units = entry.units - unused, lease.promised_units - unused
    entry.phase, entry.spec, entry.sources, lease.running = "claimed", None, (), b""
    root = merkle_root([task_leaf(event.task, output_hash(event.output), entry.units)])
    claim = _next_claim(state, event.lease, lease, root, (1, entry.units))
    signed = t.SignClaim(event.lease, lease.sequence, event.at_ms, claim, event.task, event.output, event.metrics)
    return [signed, *_start_next(state, event.lease, lease)]


def _on_failed(state: ProviderState, lease: LeaseEntry, event: t.WorkerFailedTask) -> Effects:
    if lease.running != event.task or event.task not in lease.tasks:
        return []
    if event.died:
        return _run_again(state, event.lease, lease, event.at_ms)
    failed = TaskFailed(event.task, event.code, event.what[:4000], event.retryable)
    ended = _end_task(state, event.lease, lease, failed, event.at_ms)
    return [*ended, *_start_next(state, event.lease, lease)]


def _on_lane_answered(state: ProviderState, lease: LeaseEntry, event: t.LaneAnswered) -> Effects:
    """Claim a batch. A number below `lane_next` was claimed before, by this process or the one before it."""
    if lease.phase not in ("open", "leaving") or event.first < lease.lane_next or event.count < 1:
        return []
    lease.lane_next = event.first + event.count
    lease.promised_units += event.units
    claim = _next_claim(state, event.lease, lease, event.root, (event.count, event.units))
    return [t.SignClaim(event.lease, lease.sequence, event.at_ms, claim, first=event.first)]


def _next_claim(
    state: ProviderState, lease_id: bytes, lease: LeaseEntry, root: bytes, weight: tuple[int, int]
) -> ClaimRoot:
    """Number the claim and its event; `weight` is (leaves, units)."""
    lease.claims += 1
    lease.sequence += 1
    lease.claimed_units += weight[1]
    state.changes += 1
    return ClaimRoot(lease=lease_id, sequence=lease.claims, root=root, count=weight[0], units=weight[1])


def _start_next(state: ProviderState, lease_id: bytes, lease: LeaseEntry) -> Effects:
    """Start the first waiting task, if the escrow is open, the credit lasts, and nothing runs."""
    if lease.running or not lease.queue or not may_start(state, lease):
        return []
    task = lease.queue.pop(0)
    entry = lease.tasks[task]
    assert entry.spec is not None, "a waiting task keeps its spec"
    entry.phase, entry.attempts, lease.running = "running", entry.attempts + 1, task
    state.changes += 1
    return [t.StartTask(lease_id, task, entry.spec, entry.sources)]


def _run_again(state: ProviderState, lease_id: bytes, lease: LeaseEntry, now_ms: int) -> Effects:
    """The running task lost its worker: put it in front of the queue, or give up after too many tries."""
    entry = lease.tasks.get(lease.running)
    if entry is None:
        return []
    if entry.attempts >= state.terms.policy.max_attempts:
        failed = TaskFailed(lease.running, "E1704", f"the worker died {entry.attempts} times", True)
        ended = _end_task(state, lease_id, lease, failed, now_ms)
        return [*ended, *_start_next(state, lease_id, lease)]
    entry.phase = "queued"
    lease.queue.insert(0, lease.running)
    lease.running = b""
    state.changes += 1
    return _start_next(state, lease_id, lease)


def _end_task(state: ProviderState, lease_id: bytes, lease: LeaseEntry, failed: TaskFailed, now_ms: int) -> Effects:
    """Note that a waiting or running task will give no output, and tell the requester."""
    entry = lease.tasks[failed.task]
    entry.phase, entry.spec, entry.sources = ("failed" if failed.retryable else "ended"), None, ()
    lease.promised_units -= entry.units
    if lease.running == failed.task:
        lease.running = b""
    else:
        lease.queue.remove(failed.task)
    return [_emit(state, lease_id, lease, failed, now_ms)]


def _emit(
    state: ProviderState, lease_id: bytes, lease: LeaseEntry, body: TaskFailed | LeaseLeaving, now_ms: int
) -> t.EmitEvent:
    lease.sequence += 1
    state.changes += 1
    return t.EmitEvent(lease_id, lease.sequence, now_ms, body)


# leases and money -----------------------------------------------------------------------------------------------------


def _on_paid(state: ProviderState, lease: LeaseEntry, event: t.PeerPaid) -> Effects:
    effects, changed = on_paid(lease, event, state.terms.policy.redeem_ms)
    if changed:
        state.changes += 1
        effects += _start_next(state, event.lease, lease)
    return effects


def _on_peer_closed(state: ProviderState, lease: LeaseEntry, event: t.PeerClosed) -> Effects:
    """Stop at once and settle. The requester gets its answer when the escrow is closed."""
    if lease.phase == "closed":
        # Given up before the escrow was there, and opened late: asked again, or the money stays locked until the term.
        return [t.ReplyOk(), t.ReleaseEscrow(event.lease)]
    if lease.phase == "closing":
        return [t.ReplyOk(), *settling(event.lease, lease)]
    return [t.ReplyOk(), t.StopLease(event.lease), *_close(state, event.lease, lease)]


def _on_opened(state: ProviderState, lease: LeaseEntry, event: t.LedgerOpened) -> Effects:
    if lease.phase != "signed":
        return []
    lease.phase = "open"
    state.changes += 1
    return _start_next(state, event.lease, lease)


def _on_redeemed(state: ProviderState, lease: LeaseEntry, event: t.LedgerRedeemed) -> Effects:
    if event.cumulative_ucr <= lease.redeemed_ucr:
        return []
    lease.redeemed_ucr = event.cumulative_ucr
    lease.redeem_ms = event.at_ms + state.terms.policy.redeem_ms
    state.changes += 1
    return settling(event.lease, lease)


def _on_refused(state: ProviderState, lease: LeaseEntry, event: t.LedgerRefusedVoucher) -> Effects:
    """Our voucher buys nothing at the bank: there is no money left to work for."""
    if lease.phase == "closed":
        return []
    lease.redeemed_ucr = lease.voucher_ucr
    state.changes += 1
    leaving = _leave(state, event.lease, f"the bank refused to pay: {event.reason}"[:200], event.at_ms)
    return [*leaving, *_close(state, event.lease, lease)]


def _on_ledger_closed(state: ProviderState, lease: LeaseEntry, event: t.LedgerClosed) -> Effects:
    reckon(state, lease, event)
    if lease.phase == "closed":
        return []
    effects = _leave(state, event.lease, "the escrow was closed", event.at_ms)
    lease.phase, lease.until_ms = "closed", event.at_ms + state.terms.policy.keep_ms
    lease.tasks, lease.queue, lease.running = {}, [], b""
    state.changes += 1
    return [*effects, *bank_work(state, event.lease, lease, event.at_ms)]


def _on_staked(state: ProviderState, event: t.LedgerStaked) -> Effects:
    if state.stake_ucr != event.stake_ucr:
        state.stake_ucr = event.stake_ucr
        state.changes += 1
    return []


def _leave(state: ProviderState, lease_id: bytes, reason: str, now_ms: int) -> Effects:
    """Stop working under a lease that still worked: fail what is unfinished, tell the requester, wait for money."""
    lease = state.leases[lease_id]
    if lease.phase not in ("signed", "open"):
        return []
    unfinished = [task for task, entry in lease.tasks.items() if entry.phase in ("queued", "running")]
    effects: Effects = [t.StopLease(lease_id)]
    for task in unfinished:
        effects += _end_task(state, lease_id, lease, TaskFailed(task, "E1206", reason, True), now_ms)
    effects.append(_emit(state, lease_id, lease, LeaseLeaving(reason[:200]), now_ms))
    lease.phase, lease.left_ms = "leaving", now_ms
    # Claims may be checked, and paid, until the lease ends, however early we stop.
    lease.until_ms = max(lease.document.ends_ms, now_ms) + state.terms.policy.grace_ms
    return effects


def _close(state: ProviderState, lease_id: bytes, lease: LeaseEntry) -> Effects:
    lease.phase, lease.queue, lease.running = "closing", [], b""
    for entry in lease.tasks.values():
        if entry.phase in ("queued", "running"):
            entry.phase, entry.spec, entry.sources = "ended", None, ()
    state.changes += 1
    return settling(lease_id, lease)


_HANDLERS: dict[type[t.ProviderEvent], Callable[[ProviderState, Any], Effects]] = {
    t.ProviderRestarted: _on_restarted,
    t.PeerOrdered: on_ordered,
    t.PeerProposedLease: on_proposed,
    t.LedgerStaked: _on_staked,
    t.OwnerReturned: _on_owner_returned,
    t.OwnerLeft: _on_owner_left,
    t.ClockTicked: lambda _state, _event: [],
}
_ON_LEASE: dict[type[t.ProviderEvent], Callable[[ProviderState, LeaseEntry, Any], Effects]] = {
    t.PeerAssigned: _on_assigned,
    t.PeerCancelled: _on_cancelled,
    t.PeerPaid: _on_paid,
    t.PeerClosed: _on_peer_closed,
    t.LedgerOpened: _on_opened,
    t.LedgerRedeemed: _on_redeemed,
    t.LedgerRefusedVoucher: _on_refused,
    t.LedgerClosed: _on_ledger_closed,
    t.WorkerFinished: _on_finished,
    t.WorkerFailedTask: _on_failed,
    t.LaneAnswered: _on_lane_answered,
}
"""What is dropped, or answered with UNKNOWN, where there is no such lease."""
