from __future__ import annotations

from pathlib import Path

import pytest

from fallow.sdk.home import resolve_home, socket_path


def test_the_argument_wins_over_the_environment_and_both_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert resolve_home() == Path("/home/me/.fallow")
    monkeypatch.setenv("FALLOW_HOME", "~/pool")
    assert resolve_home() == Path("/home/me/pool")
    assert resolve_home("/elsewhere") == Path("/elsewhere")


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_home("here") == tmp_path / "here"


def test_the_socket_lies_in_the_home(tmp_path: Path) -> None:
    assert socket_path(tmp_path).parent == tmp_path
