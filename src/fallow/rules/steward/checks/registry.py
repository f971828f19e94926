"""All checks, one line each. Whoever meets a check's name that came from outside imports `parse` from here, so that all
are known."""

from __future__ import annotations

from fallow.rules.steward.check import CHECKS, Check, PolicyError, check_of, parse
from fallow.rules.steward.checks.audit import Audit
from fallow.rules.steward.checks.none import Unchecked

__all__ = ["CHECKS", "Check", "PolicyError", "check_of", "parse"]

CHECKS.update((check.name, check) for check in (Audit(), Unchecked()))
