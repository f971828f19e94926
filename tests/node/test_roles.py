"""What a node plays is taken up over open doors, without sockets or signals."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
from tests.node.provider.provider_net import open_pool, seeded

from fallow.errors import FallowError
from fallow.node.bank import BankPolicy
from fallow.node.pool import Pool
from fallow.node.roles import Roles, take_up
from fallow.node.router import Caller, Router
from fallow.ports import Ledger
from fallow.rules.steward.events import Timing
from fallow.wire.local import JobList, ListJobs, SeeNode, SubmitJob


def no_books(_policy: BankPolicy) -> Ledger:
    raise AssertionError("this node keeps no books")


async def test_a_steward_answers_its_owner_once_it_is_up(tmp_path: Path) -> None:
    async with open_pool(tmp_path) as pool, asyncio.TaskGroup() as group:
        owner = Router()
        services = await pool.services("sam", Router())
        roles = Roles(frozenset({"steward"}), Timing(), Router(), owner)
        await take_up(roles, services, Pool(services, (), no_books), group)
        assert roles.steward is not None
        assert roles.provider is None
        assert owner.handlers(SubmitJob)[0] is not None
        asked, _ = owner.handlers(ListJobs)
        assert asked is not None
        answer = await asked(Caller(seeded("sam").node), ListJobs())
        assert answer == JobList(())
        for task in asyncio.all_tasks():
            if task.get_name() in ("steward", "serve peers"):
                task.cancel()


async def test_a_steward_without_a_pool_is_refused(tmp_path: Path) -> None:
    async with open_pool(tmp_path) as pool:
        services = dataclasses.replace(await pool.services("sam", Router()), ticket=None)
        roles = Roles(frozenset({"steward"}), Timing(), Router(), Router())
        with pytest.raises(BaseExceptionGroup) as failed:
            async with asyncio.TaskGroup() as group:
                await take_up(roles, services, Pool(services, (), no_books), group)
        (error,) = failed.value.exceptions
        assert isinstance(error, FallowError)
        assert error.code == "E2001"
        assert roles.owner.handlers(SeeNode) == (None, None)
