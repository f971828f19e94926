"""API keys: kept as hashes, on disk before they are answered, never overspent over a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from fallow.adapters.clock import SystemClock, SystemEntropy
from fallow.adapters.event_log import SqliteEventLog
from fallow.errors import FallowError
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
    keys.reserve(secret, b"1" * 32, 60)
    with pytest.raises(FallowError) as caught:
        keys.reserve(secret, b"2" * 32, 60)
    assert code_of(caught) == "E1905"
    keys.post(b"1" * 32, 40)
    keys.reserve(secret, b"2" * 32, 60)
    assert [(k.spent_ucr, k.budget_ucr) for k in keys.views()] == [(40, 100)]
    log.close()


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    keys, log = keys_in(tmp_path)
    secret = keys.make("app", 100)
    keys.reserve(secret, b"1" * 32, 60)
    log.close()
    again, log = keys_in(tmp_path)
    with pytest.raises(FallowError):
        again.reserve(secret, b"2" * 32, 60)
    again.post(b"1" * 32, 60)
    again.post(b"1" * 32, 60)
    assert again.views()[0].spent_ucr == 60
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
            keys.reserve(wrong, b"1" * 32, 0)
        assert code_of(caught) == "E1902"
    keys.change(secret[:11], 0, revoke=True)
    with pytest.raises(FallowError) as caught:
        keys.reserve(secret, b"1" * 32, 0)
    assert code_of(caught) == "E1902"
    with pytest.raises(FallowError):
        keys.change("f", 5, revoke=False)
    log.close()


def test_budgets_can_grow(tmp_path: Path) -> None:
    keys, log = keys_in(tmp_path)
    secret = keys.make("app", 10)
    keys.change(secret[:11], 90, revoke=False)
    keys.reserve(secret, b"1" * 32, 100)
    log.close()


def test_every_call_is_answered(tmp_path: Path) -> None:
    keys, log = keys_in(tmp_path)
    router = Router()
    serve_api_keys(router, keys)
    for request in (local.MakeKey, local.ListKeys, local.ChangeKey, local.ReserveKey, local.PostKey):
        assert router.handlers(request)[0] is not None
    log.close()
