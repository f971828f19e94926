from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from fallow.cli.options import add_job_terms, existing_path, parser_of, positive, seconds
from fallow.errors import FallowError
from fallow.sdk.terms import money


@pytest.mark.parametrize(("text", "value"), [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400)])
def test_durations(text: str, value: int) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "h", "-1", "1.5h", "0", "1w", "²h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        seconds(text)


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.0", "²"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        positive(text)
    assert positive("12") == 12


def test_money() -> None:
    assert money("0.05") == 50_000
    with pytest.raises(FallowError) as caught:
        money("5 euro")
    assert caught.value.code == "E1002"


def test_paths(tmp_path: Path) -> None:
    assert existing_path(str(tmp_path)) == tmp_path
    with pytest.raises(FallowError) as caught:
        existing_path(str(tmp_path / "nothing"))
    assert caught.value.code == "E2003"


def test_terms_need_a_budget_and_nothing_else() -> None:
    parser = parser_of("x", "do x", "")
    add_job_terms(parser)
    with pytest.raises(FallowError) as caught:
        parser.parse_args([])
    assert caught.value.code == "E2001"
    terms = parser.parse_args(["--budget", "1"])
    assert (terms.budget, terms.timeout, terms.prefer, terms.verify, terms.yes) == (
        1_000_000,
        86400,
        "price",
        None,
        False,
    )
