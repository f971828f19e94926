"""A pool in which somebody is charged: a provider and two others under leases of one requester, and the claims that
they signed. `charge` is the good case; tests spoil one part of it."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.ledger_world import (
    ALICE,
    BOB,
    PROVIDER,
    REQUESTER,
    RIGHT,
    TERMS,
    WRONG,
    Person,
    Pool,
    evidence,
    lease_id,
    lease_of,
    open_request,
    slash_request,
    stocked_pool,
    task,
)

from fallow.rules.escrow import PoolTerms, verdict_key
from fallow.wire.claims import task_id
from fallow.wire.documents import Lease
from fallow.wire.ledger import DrawAuditors, Drawn, Evidence, Slash
from fallow.wire.tasks import LaneSetting, TaskSpec

LEASE = lease_of()
ID = lease_id(LEASE)
BY_ALICE, BY_BOB = lease_of(provider=ALICE, cap_ucr=50), lease_of(provider=BOB, cap_ucr=50)
TASK = task()


def courtroom(terms: PoolTerms = TERMS, *, open_accused: bool = True, drawn: bool = True) -> Pool:
    """With everybody's leases open, and auditors drawn for the accused's claim."""
    pool = stocked_pool(terms)
    if open_accused:
        pool.does(open_request(LEASE), REQUESTER)
    for lease, provider in ((BY_ALICE, ALICE), (BY_BOB, BOB)):
        pool.does(open_request(lease, provider=provider), REQUESTER)
    if open_accused and drawn:
        draw(pool, accused())
    return pool


def draw(pool: Pool, proof: Evidence) -> Drawn:
    answer = pool.ask(DrawAuditors(proof.claim), REQUESTER)
    assert isinstance(answer, Drawn), answer
    return answer


def accused(spec: TaskSpec = TASK, lane: LaneSetting | None = None) -> Evidence:
    return evidence(LEASE, PROVIDER, spec, WRONG, lane=lane)


def witness(
    lease: Lease, person: Person, output: bytes = RIGHT, spec: TaskSpec = TASK, lane: LaneSetting | None = None
) -> Evidence:
    return evidence(lease, person, spec, output, lane=lane)


def witnesses(spec: TaskSpec = TASK, lane: LaneSetting | None = None) -> tuple[Evidence, Evidence]:
    return witness(BY_ALICE, ALICE, spec=spec, lane=lane), witness(BY_BOB, BOB, spec=spec, lane=lane)


WITNESSES = witnesses()


def charge(spec: TaskSpec = TASK, lane: LaneSetting | None = None, slash_ucr: int = 80, **changes: Any) -> Slash:
    """A good one, but for `changes`; orders are those that the evidence names."""
    request = slash_request(
        changes.pop("accused", accused(spec, lane)), changes.pop("others", witnesses(spec, lane)), LEASE, spec,
        slash_ucr=slash_ucr, lane=lane,
    )  # fmt: skip
    return msgspec.structs.replace(request, **changes)


def stage(pool: Pool, spec: TaskSpec = TASK) -> int:
    """How far the charge over a task has come."""
    row: Any = pool.home.rows[verdict_key(ID, task_id(spec))]
    return row.stage


def purse(pool: Pool) -> int:
    return next((row.purse_ucr for key, row in pool.home.rows.items() if key.table == "pool"), 0)
