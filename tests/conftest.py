"""What every test runs under: Hypothesis profiles and an environment without the developer's own settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

settings.register_profile("dev", max_examples=30, deadline=None)
settings.register_profile(
    "ci",
    max_examples=60,
    deadline=None,
    derandomize=True,
    print_blob=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

_SETTINGS = ("FALLOW_HOME", "FALLOW_TICKET", "NO_COLOR", "FORCE_COLOR", "OPENAI_API_KEY", "OPENAI_BASE_URL")


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A test that starts a node leaves its way of logging, and of warning, to nobody."""
    yield
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the developer's home, keys or colours."""
    for name in _SETTINGS:
        monkeypatch.delenv(name, raising=False)
