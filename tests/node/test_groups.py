"""Tasks in groups that may be going down."""

from __future__ import annotations

import asyncio

import pytest

from fallow.errors import UnavailableError
from fallow.node.groups import begin


async def answer(value: int) -> int:
    return value


async def test_work_begins_in_a_group_that_lives() -> None:
    async with asyncio.TaskGroup() as group:
        task = begin(group, answer(7), "seven")
        assert await task == 7
        assert task.get_name() == "seven"


@pytest.mark.parametrize("there", [True, False])
async def test_a_group_that_is_gone_takes_nothing_and_leaves_nothing_unawaited(there: bool) -> None:
    async with asyncio.TaskGroup() as group:
        pass
    with pytest.raises(UnavailableError) as caught:
        begin(group if there else None, answer(7))
    assert caught.value.code == "E1801"
