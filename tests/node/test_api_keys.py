"""API keys: kept as hashes, on disk before they are answered, never overspent over a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from fallow.adapters.clock import SystemClock, SystemEntropy
from fallow.adapters.event_log import SqliteEventLog
from fallow.errors import FallowError, fail
from fallow.node.api_keys import ApiKeys, serve_api_keys
from fallow.node.router import Router
from fallow.wire import local


def keys_in(path: Path) -> tuple[ApiKeys, SqliteEventLog]:
    log = SqliteEventLog(path / "log.db")
    return ApiKeys(log, SystemClock(), SystemEntropy()), log


def code_of(caught: pytest.ExceptionInfo[FallowError]) -> str:
    return caught.value.code


def test_a_key_spends_its_budget_and_no_more(tmp_path: Path) -> None:
    keys, log = keys_in(tmp_path)
    secret = keys.make("app", 100)
    operation = keys.reserve(secret, 60)
    with pytest.raises(FallowError) as caught:
        keys.reserve(secret, 60)
    assert code_of(caught) == "E1905"
    keys.post(operation, 40)
    keys.reserve(secret, 60)
    assert [(k.spent_ucr, k.budget_ucr) for k in keys.views()] == [(40, 100)]
    log.close()


async def test_a_restart_forgets_nothing_that_was_booked_and_frees_what_was_under_way(tmp_path: Path) -> None:
    keys, log = keys_in(tmp_path)
    secret, heard = keys.make("app", 100), list[FallowError | None]()
    operation = keys.reserve(secret, 60)
    keys.post(operation, 50)
    keys.post(operation, 50)
    keys.reserve(secret, 40)
    keys.saved(heard.append)
    await keys.write()
    assert heard == [None]
    log.close()
    again, log = keys_in(tmp_path)
    assert again.views()[0].spent_ucr == 50
    again.post(operation, 50)
    assert again.views()[0].spent_ucr == 50
    again.reserve(secret, 50)
    log.close()


async def test_one_write_serves_many(tmp_path: Path) -> None:
    keys, log = keys_in(tmp_path)
    secret, heard = keys.make("app", 100), list[FallowError | None]()
    for _ in range(10):
        keys.reserve(secret, 1)
        keys.saved(heard.append)
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(keys.write())
    assert heard == [None] * 10
    log.close()


class FullDisk(SqliteEventLog):
    """Has no room while `full`."""

    full = False

    def put_all(self, cells: Mapping[str, bytes]) -> None:
        if self.full:
            raise fail("E1603", "The disk is full.")
        super().put_all(cells)


async def test_a_full_disk_is_told_and_what_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    log = FullDisk(tmp_path / "log.db")
    keys = ApiKeys(log, SystemClock(), SystemEntropy())
    secret, heard = keys.make("app", 100), list[FallowError | None]()
    log.full = True
    keys.post(keys.reserve(secret, 60), 60)
    keys.saved(heard.append)
    await keys.write()
    assert [error.code for error in heard if error is not None] == ["E1603"]
    log.full = False
    keys.saved(heard.append)
    await keys.write()
    assert heard[1:] == [None]
    assert ApiKeys(log, SystemClock(), SystemEntropy()).views()[0].spent_ucr == 60
    log.close()


def test_secrets_are_not_on_disk(tmp_path: Path) -> None:
    keys, log = keys_in(tmp_path)
    secret = keys.make("app", 100)
    log.close()
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert secret[12:].encode() not in stored


def test_wrong_and_revoked_keys_are_refused(tmp_path: Path) -> None:
    keys, log = keys_in(tmp_path)
    secret = keys.make("app", 100)
    for wrong in ("", "fk-", secret[:-1], secret + "0"):
        with pytest.raises(FallowError) as caught:
            keys.reserve(wrong, 0)
        assert code_of(caught) == "E1902"
    keys.change(secret[:11], 0, revoke=True)
    with pytest.raises(FallowError) as caught:
        keys.check(secret)
    assert code_of(caught) == "E1902"
    with pytest.raises(FallowError):
        keys.change("f", 5, revoke=False)
    log.close()


def test_budgets_can_grow(tmp_path: Path) -> None:
    keys, log = keys_in(tmp_path)
    secret = keys.make("app", 10)
    keys.change(secret[:11], 90, revoke=False)
    keys.reserve(secret, 100)
    log.close()


def test_every_call_is_answered(tmp_path: Path) -> None:
    keys, log = keys_in(tmp_path)
    router = Router()
    serve_api_keys(router, keys)
    for request in (local.MakeKey, local.ListKeys, local.ChangeKey, local.CheckKey):
        assert router.handlers(request)[0] is not None
    log.close()
