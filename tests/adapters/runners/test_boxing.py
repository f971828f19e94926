from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from fallow.adapters.runners import boxing
from fallow.adapters.runners.box import LANDLOCK, NAMESPACES
from fallow.ports import READ, WORK, WorkerLimits
from fallow.units import GIB


@pytest.fixture
def fresh() -> None:
    boxing.strength.cache_clear()


def test_a_worker_sees_python_this_package_its_inputs_and_what_is_named(tmp_path: Path) -> None:
    view = boxing.view(tmp_path, WorkerLimits(cards=("a",), disk_bytes=GIB, reads=(Path("/opt/model"),)), NAMESPACES)
    assert {sys.prefix, sys.base_prefix, str(tmp_path / READ), "/opt/model"} <= set(view.reads)
    assert (view.work, view.cards, view.file_bytes) == (str(tmp_path / WORK), True, GIB)
    assert str(Path.home()) not in view.reads


def test_a_worker_that_would_see_its_nodes_home_is_not_started(tmp_path: Path) -> None:
    """Python may lie anywhere: in the folder that also holds the keys, too."""
    with pytest.raises(OSError, match="which it must see"):
        boxing.view(tmp_path / "work" / "lease", WorkerLimits(reads=(tmp_path,)), NAMESPACES)


@pytest.mark.parametrize(
    ("can", "wanted"),
    [
        ({NAMESPACES, LANDLOCK}, (NAMESPACES, "")),
        ({LANDLOCK}, (LANDLOCK, "no namespaces")),
        (set(), ("", "no namespaces")),
    ],
)
def test_the_best_that_can_be_had_and_why_not_more(
    fresh: None, monkeypatch: pytest.MonkeyPatch, can: set[str], wanted: tuple[str, str]
) -> None:
    monkeypatch.setattr(boxing, "_try", lambda layers: "" if layers in can else f"no {layers}")
    assert boxing.strength() == wanted
    boxing.strength.cache_clear()


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "riscv64")])
def test_there_is_none_on_other_systems(
    fresh: None, monkeypatch: pytest.MonkeyPatch, system: str, machine: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(boxing.platform, "machine", lambda: machine)
    layers, why = boxing.strength()
    assert not layers
    assert machine in why
    boxing.strength.cache_clear()


def test_a_failed_try_says_what_the_kernel_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert boxing._try("paper").startswith("the box could not be built")
    monkeypatch.setattr(sys, "executable", os.devnull)
    assert "Permission denied" in boxing._try(NAMESPACES)
