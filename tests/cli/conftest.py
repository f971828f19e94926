from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.terminal import Terminal
from tests.sdk.fake_node import running


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Terminal]:
    home = tmp_path / "home"
    with running(home) as node:
        yield Terminal(home, node, capsys)
