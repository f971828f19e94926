"""Models as clients look them up."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest
from tests.gateway.clients import with_openai


async def test_models_are_retrieved(tmp_path: Path) -> None:
    async with with_openai(tmp_path) as (_, api):
        assert (await api.models.retrieve("countdown")).id == "countdown"
        with pytest.raises(openai.NotFoundError):
            await api.models.retrieve("else/where")
