"""A provider that is charged looks for itself, and appeals where it was right."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from tests.courtroom import ID, TASK, charge, courtroom
from tests.ledger_world import BANK, PROVIDER, REQUESTER, RIGHT, WRONG, Dice, Pool, run
from tests.settlements import BooksAtHand

from fallow.errors import fail
from fallow.node.provider.appeals import Appeals
from fallow.ports import LeaseStanding
from fallow.wire.ledger import OpenCharge, Refusal
from fallow.wire.refusals import SettlementRefused
from fallow.wire.tasks import TaskSpec


class Machine:
    """In the place of the own machine: gives an answer, or cannot."""

    def __init__(self, gives: bytes) -> None:
        self.gives = gives
        self.asked: list[tuple[TaskSpec, str]] = []

    async def answer(self, spec: TaskSpec, numerics: str, *_rest: object) -> bytes:
        self.asked.append((spec, numerics))
        if not self.gives:
            raise fail("E1504", "This is no such machine.")
        return self.gives


def appeals_of(pool: Pool, machine: Machine) -> tuple[Appeals, BooksAtHand]:
    home: Any = pool.home
    services: Any = SimpleNamespace(bank_account=BANK.account, identity=SimpleNamespace(account=PROVIDER.account))
    bank = BooksAtHand(home, PROVIDER, Dice())
    own: Any = machine
    return Appeals(services, bank, own), bank


def charged() -> Pool:
    pool = courtroom()
    pool.does(charge(), REQUESTER)
    return pool


def test_who_still_gives_what_it_claimed_appeals_once() -> None:
    pool, machine = charged(), Machine(WRONG)  # "wrong" is what its accusers call it
    appeals, _ = appeals_of(pool, machine)
    for _ in range(3):
        run(appeals.look(pool.balance(PROVIDER).charged))
    assert machine.asked == [(TASK, "")]
    assert run(pool.home.charge(ID)).appealed


@pytest.mark.parametrize("gives", [RIGHT, b""], ids=["another answer", "nothing"])
def test_who_gives_another_answer_or_cannot_look_does_not_appeal(gives: bytes) -> None:
    pool, machine = charged(), Machine(gives)
    appeals, _ = appeals_of(pool, machine)
    for _ in range(3):
        run(appeals.look((ID,)))
    assert len(machine.asked) == 1
    assert not run(pool.home.charge(ID)).appealed


def test_nobody_makes_it_work_by_a_charge_about_something_else() -> None:
    """Tried: a bank shows a task of its own choice as what was charged. Gained: nothing is run."""
    machine = Machine(WRONG)
    appeals, bank = appeals_of(charged(), machine)
    real = run(bank.standing(ID))
    assert real.charge is not None
    assert real.charge.evidence is not None
    evidence = real.charge.evidence
    for shown in (
        None, replace(evidence, orders=()), replace(evidence, task=replace(TASK, params=b"mine coins")),
        replace(evidence, accused=evidence.others[0]),
        replace(evidence, accused=replace(evidence.accused, output=RIGHT)),
    ):  # fmt: skip
        false = OpenCharge(real.charge.task, 80, real.charge.due_ms, appealed=False, evidence=shown)

        async def standing(_lease: bytes, false: OpenCharge = false) -> LeaseStanding:
            return LeaseStanding(real.said, real.signed, false)

        bank.standing = standing  # type: ignore[method-assign]
        run(appeals_again(appeals))
    assert machine.asked == []


async def appeals_again(appeals: Appeals) -> None:
    """As after a restart."""
    await appeals.look(())
    await appeals.look((ID,))


def test_a_bank_that_does_not_take_the_appeal_is_asked_again() -> None:
    pool, machine = charged(), Machine(WRONG)
    appeals, bank = appeals_of(pool, machine)
    bank.refusals.append(Refusal.TOO_EARLY)
    with pytest.raises(SettlementRefused):
        run(appeals.look((ID,)))
    run(appeals.look((ID,)))
    assert run(pool.home.charge(ID)).appealed


async def test_what_is_told_is_answered_beside_everything_else() -> None:
    pool = await asyncio.to_thread(charged)
    appeals, _ = appeals_of(pool, Machine(WRONG))
    async with asyncio.timeout(10):
        async with asyncio.TaskGroup() as group:
            running = group.create_task(appeals.run())
            appeals.tell((ID,))
            while not (found := await pool.home.charge(ID)) or not found.appealed:
                await asyncio.sleep(0)
            running.cancel()
