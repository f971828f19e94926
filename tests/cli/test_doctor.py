from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.terminal import Terminal

from fallow.adapters.runners import cgroup
from fallow.cli.doctor import Diagnosis, examine
from fallow.kinds.kind import Extra
from fallow.kinds.registry import KINDS, kind_named


def found(home: Path) -> dict[str, Diagnosis]:
    return {finding.name: finding for finding in examine(home)}


def test_a_good_home_with_a_node(terminal: Terminal) -> None:
    answer = terminal.json("doctor")
    assert answer["ok"] is True
    assert {check["name"]: check["state"] for check in answer["checks"]}["node"] == "ok"


def test_a_home_that_is_not_there_yet_is_not_wrong(tmp_path: Path) -> None:
    checks = found(tmp_path / "none")
    assert (checks["home"].state, checks["node"].state) == ("note", "note")
    assert not (tmp_path / "none").exists()


def test_a_home_that_others_can_read(terminal: Terminal) -> None:
    terminal.home.chmod(0o755)
    said = terminal.fallow("doctor")
    assert (said.code, said.error_code) == (2, "E2008")
    assert "chmod 700" in said.out
    assert terminal.fallow("doctor", "--json").data["ok"] is False


def test_a_key_that_others_can_read(terminal: Terminal) -> None:
    keys = terminal.home / "keys"
    keys.mkdir()
    (keys / "account").write_text("secret")
    (keys / "account").chmod(0o644)
    assert found(terminal.home)["keys"].state == "wrong"


def test_a_broken_configuration(terminal: Terminal) -> None:
    (terminal.home / "config.toml").write_text("=")
    finding = found(terminal.home)["config"]
    assert finding.state == "wrong"
    assert "E1001" in finding.text


def test_missing_extras_are_noted_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(kind_named("generate")), "extras", (Extra("llm", ("no-such-package",)),))
    finding = found(tmp_path)["llm"]
    assert finding.state == "note"
    assert "pip install 'fallow[llm]'" in finding.text


def test_the_extras_of_every_kind_are_looked_at(tmp_path: Path) -> None:
    assert {extra.name for kind in KINDS.values() for extra in kind.extras} <= found(tmp_path).keys()


def test_what_bounds_a_worker_s_memory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "look", lambda _pid: (tmp_path, ""))
    assert found(tmp_path)["limits"].state == "ok"
    monkeypatch.setattr(cgroup, "look", lambda _pid: (None, "other programs are in its cgroup"))
    finding = found(tmp_path)["limits"]
    assert finding.state == "note"
    assert "other programs are in its cgroup" in finding.text
    assert "Delegate=yes" in finding.text
