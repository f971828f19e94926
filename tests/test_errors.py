from __future__ import annotations

import re
from pathlib import Path

import pytest

from fallow import errors
from fallow.errors import CODES, FallowError, PeerFault, RejectedError, UnavailableError, UsageError, fail

SOURCE = Path(errors.__file__).parent


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_can_be_raised_and_says_all_five_things(code: str) -> None:
    error = fail(code, "It happened.")
    lines = error.five_lines().splitlines()
    assert type(error) is CODES[code].family
    assert [line.split(":")[0] for line in lines[1:4]] == ["Likely cause", "Money", "Next"]
    assert all(line.partition(":")[2].strip() for line in lines[1:4])
    assert lines[4].startswith(code)
    assert lines[4] == f"{code}  fallow explain {code}, or {error.docs_page}"
    assert (SOURCE.parents[1] / error.docs_page).is_file()


def test_a_raiser_may_be_sharper_than_the_default() -> None:
    error = fail("E1201", "Nobody.", cause="why", money="where", next_step="what")
    assert error.details() == {
        "code": "E1201",
        "what": "Nobody.",
        "cause": "why",
        "money": "where",
        "next": "what",
        "docs_page": "docs/reference/errors/E1201.md",
        "retryable": False,
    }


def test_only_what_may_pass_is_retryable() -> None:
    assert fail("E1801", "").retryable
    assert not any(fail(code, "").retryable for code in ("E2001", "E1201", "E1101", "E9001"))
    families = (UsageError, RejectedError, PeerFault, UnavailableError)
    assert all(issubclass(family, FallowError) for family in families)


def test_an_unknown_code_is_a_bug_of_the_raiser() -> None:
    with pytest.raises(KeyError):
        fail("E0000", "")


def test_every_code_that_is_raised_is_declared_and_every_declared_one_is_used() -> None:
    used: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        if path.name != "errors.py":
            used |= set(re.findall(r"\bE\d{4}\b", path.read_text("utf-8")))
    assert used <= set(CODES), f"raised but not declared: {used - set(CODES)}"
    assert set(CODES) <= used, f"declared but never raised: {set(CODES) - used}"
