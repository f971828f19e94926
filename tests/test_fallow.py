from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import fallow


def test_what_is_exported_is_there_and_nothing_else() -> None:
    assert fallow.__all__ == sorted(fallow.__all__)
    assert all(getattr(fallow, name) is not None for name in fallow.__all__)
    assert dir(fallow) == fallow.__all__
    with pytest.raises(AttributeError):
        _ = fallow.nothing  # pyright: ignore[reportAttributeAccessIssue]


def test_connect_gives_a_client() -> None:
    assert fallow.connect is fallow.Fallow
    assert fallow.aconnect is fallow.AsyncFallow
    assert fallow.errors.FallowError is fallow.FallowError


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert fallow.__version__ == project["version"]
