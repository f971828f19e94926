"""The golden self-test, run as a provider does it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fallow.adapters.exactness import exactness
from fallow.wire.messages import EXACT


def test_this_machine_computes_exactly() -> None:
    assert exactness(1) == EXACT


def test_what_differs_is_named_and_remembered(tmp_path: Path) -> None:
    marker = tmp_path / "runs"
    words = f"open({str(marker)!r}, 'a').write('x'); print('product'); print('loss'); raise SystemExit(1)"
    for _ in range(3):
        assert exactness(1, tmp_path, ("-c", words)) == "other results for product, loss"
    assert marker.read_text() == "x"
    assert exactness(2, tmp_path, ("-c", words)) == "other results for product, loss"
    assert marker.read_text() == "xx", "another number of threads is tried anew"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("raise ValueError('no such instruction')", "the self-test failed: ValueError: no such instruction"),
        ("import os; os._exit(3)", "the self-test failed: it ended without a word"),
    ],
)
def test_a_test_that_fails_says_why(tmp_path: Path, words: str, reason: str) -> None:
    assert exactness(1, tmp_path, ("-c", words)) == reason


def test_a_cache_that_cannot_be_read_or_written_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "exact.json").write_bytes(b"{nonsense")
    assert exactness(1, tmp_path, ("-c", "")) == EXACT
    assert exactness(1, Path(os.devnull) / "nowhere", ("-c", "")) == EXACT
