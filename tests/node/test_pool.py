"""Founding a pool, joining one, and being let in by its bank."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from tests.node.provider.provider_net import seeded

from fallow.adapters.clock import SystemClock, SystemEntropy
from fallow.adapters.ledger_sql import SqlLedger
from fallow.errors import FallowError
from fallow.node import pool as module
from fallow.node.bank import BankPolicy, open_books
from fallow.node.config import Config, load_ticket
from fallow.node.pool import Pool
from fallow.node.router import Router
from fallow.node.rpc import Rpc
from fallow.node.services import Services
from fallow.sim.disk import Disk, SimBlobs, SimEventLog
from fallow.sim.transport import SimNetwork
from fallow.units import UCR_PER_CR
from fallow.wire.ledger import BalanceOf, GetBalance


class Town:
    """Nodes on one network that know nothing of each other yet."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.network, self.folder, self.stack = SimNetwork(), folder, stack
        self.books = stack.enter_context(ExitStack())

    async def node(self, name: str, *, serve: bool = True) -> tuple[Services, Router]:
        identity, home, router = seeded(name), self.folder / name, Router()
        home.mkdir(exist_ok=True)
        transport = self.network.listen(identity.node)
        rpc = await self.stack.enter_async_context(Rpc(transport, router))
        disk, nothing = Disk(self.folder / f"disk of {name}"), cast(Any, None)
        self.books.callback(disk.crash)
        services = Services(
            home, Config(welcome="7"), identity, SystemClock(), SystemEntropy(), transport, rpc, SimEventLog(disk),
            SimBlobs(1 << 20, disk), nothing, nothing, nothing,
        )  # fmt: skip
        assert rpc.server is not None
        if serve:
            rpc._spawn(rpc.server.run(transport, rpc))
        return services, router

    def pool(self, services: Services) -> Pool:
        def books(policy: BankPolicy) -> SqlLedger:
            opened = open_books(services.home / "ledger.db", services.identity, services.entropy, policy)
            self.books.callback(opened.close)
            return opened

        return Pool(services, (), books)


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        yield Town(tmp_path, stack)


async def found(town: Town) -> Services:
    services, router = await town.node("bank")
    pool = town.pool(services)
    pool.open_bank(router)
    pool.open_directory(router)
    await pool.join()
    return services


async def test_founding_makes_a_ticket_that_lets_others_in_with_a_grant(town: Town) -> None:
    bank = await found(town)
    assert bank.ticket is not None
    assert load_ticket(bank.home) == bank.ticket
    assert bank.directories == [bank.rpc.address()]
    member, _ = await town.node("sam")
    member.ticket = bank.ticket
    for _ in range(2):  # a second start is no second grant
        await town.pool(member).join()
        balance = await member.rpc.call(member.bank, GetBalance(member.identity.account))
        assert isinstance(balance, BalanceOf)
        assert balance.available_ucr == 7 * UCR_PER_CR
    assert member.directories == list(bank.ticket.directories)


async def test_a_wrong_invitation_is_refused_with_its_reason(town: Town) -> None:
    bank = await found(town)
    assert bank.ticket is not None
    member, _ = await town.node("sam")
    member.ticket = dataclasses_replace(bank.ticket, token="fj_guess")
    with pytest.raises(FallowError) as refused:
        await town.pool(member).join()
    assert refused.value.code == "E1304"


def dataclasses_replace(ticket: Any, **changes: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(ticket, **changes)


async def test_a_bank_that_is_not_up_yet_is_waited_for(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AS_LONG_AS_IT_TAKES", dataclasses.replace(module.AS_LONG_AS_IT_TAKES, call_s=0.1))
    bank = await found(town)
    member, _ = await town.node("sam")
    member.ticket = bank.ticket
    waits: list[float] = []

    class Waiting(SystemClock):
        async def sleep(self, seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 5:
                town.network.heal(member.identity.node, bank.identity.node)

    town.network.cut(member.identity.node, bank.identity.node)
    await town.pool(dataclasses.replace(member, clock=Waiting())).join()
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, [0.5, 1.0, 2.0, 4.0, 5.0], strict=True))


async def test_a_directory_alone_joins_nothing(town: Town) -> None:
    services, router = await town.node("directory")
    pool = town.pool(services)
    pool.open_directory(router)
    await pool.join()
    assert services.ticket is None
    assert load_ticket(services.home) is None


async def test_the_books_of_another_bank_are_not_taken_over(town: Town) -> None:
    bank = await found(town)
    town.books.close()
    other, router = await town.node("other")
    (other.home / "ledger.db").write_bytes((bank.home / "ledger.db").read_bytes())
    with pytest.raises(FallowError) as wrong:
        town.pool(other).open_bank(router)
    assert wrong.value.code == "E1306"
