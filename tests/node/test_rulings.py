"""The bank's own machine rules on appeals: for whoever it agrees with, and for nobody when it cannot tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tests.courtroom import ID, TASK, charge, courtroom, purse, stage
from tests.ledger_world import ALICE, BANK, NOW, PROVIDER, REQUESTER, RIGHT, WRONG, Pool, run
from tests.node.provider.test_appeals import Machine

from fallow.node.rulings import Rulings
from fallow.rules.escrow import ChargeStage
from fallow.wire.claims import task_id
from fallow.wire.ledger import Appeal

THIRD = b"3" * 32


def appealed() -> Pool:
    pool = courtroom()
    pool.does(charge(), REQUESTER)
    pool.does(Appeal(ID, task_id(TASK)), PROVIDER)
    return pool


def referee_of(pool: Pool, gives: bytes, account: bytes = BANK.account) -> tuple[Rulings, Machine]:
    home: Any = pool.home
    clock = SimpleNamespace(now_ms=lambda: NOW)
    services: Any = SimpleNamespace(identity=SimpleNamespace(account=account), clock=clock)
    machine = Machine(gives)
    own: Any = machine
    return Rulings(services, home, own), machine


def test_what_the_accused_claimed_is_right_and_its_accusers_pay() -> None:
    pool = appealed()
    referee, machine = referee_of(pool, WRONG)
    for _ in range(2):
        run(referee.look())
    assert stage(pool) == ChargeStage.OVERTURNED
    assert (pool.balance(PROVIDER).staked_ucr, pool.balance(ALICE).slashed_ucr) == (300, 40)
    assert [spec for spec, _ in machine.asked] == [TASK]


def test_what_the_witnesses_gave_is_right_and_the_appeal_costs_more() -> None:
    pool = appealed()
    run(referee_of(pool, RIGHT)[0].look())
    assert (stage(pool), purse(pool)) == (ChargeStage.UPHELD, 100)
    assert pool.balance(PROVIDER).slashed_ucr == 100


@pytest.mark.parametrize("gives", [THIRD, b""], ids=["a third answer", "nothing"])
def test_in_doubt_a_person_rules_or_the_charge_falls(gives: bytes) -> None:
    pool = appealed()
    referee, machine = referee_of(pool, gives)
    for _ in range(3):
        run(referee.look())
    assert stage(pool) == ChargeStage.APPEALED
    assert len(machine.asked) == 1
    assert pool.balance(PROVIDER).slashed_ucr == 0


def test_a_bank_whose_referee_is_another_rules_nothing() -> None:
    pool = appealed()
    run(referee_of(pool, RIGHT, ALICE.account)[0].look())
    assert stage(pool) == ChargeStage.APPEALED


def test_what_nobody_appealed_is_not_looked_at() -> None:
    pool = courtroom()
    pool.does(charge(), REQUESTER)
    referee, machine = referee_of(pool, RIGHT)
    run(referee.look())
    assert machine.asked == []
