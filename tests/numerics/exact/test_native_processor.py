"""No test asks torch for instructions that the processor lacks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.numerics.exact.processor import CAPABILITIES, capabilities, held_to

HERE = Path(__file__).resolve()


@pytest.mark.parametrize(("best", "there"), [("NO AVX", 1), ("AVX2", 2), ("AVX512", 3), ("SVE256", 1)])
def test_what_is_there_ends_with_torch_s_own_choice(best: str, there: int) -> None:
    assert capabilities(best) == CAPABILITIES[:there]


@pytest.mark.parametrize(("best", "told"), [("NO AVX", "default"), ("AVX2", "avx2"), ("AVX512", "avx2")])
def test_a_process_is_held_to_what_is_there(monkeypatch: pytest.MonkeyPatch, best: str, told: str) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: best)
    assert held_to("avx2")["ATEN_CPU_CAPABILITY"] == told


def test_nobody_else_tells_torch_what_to_use() -> None:
    """The variable is named where the processor is asked, and in no other program or test."""
    root = HERE.parents[3]
    named = {
        path.relative_to(root).as_posix()
        for folder in ("src", "tests", "benchmarks")
        for path in (root / folder).rglob("*.py")
        if path != HERE and re.search(r"ATEN_CPU_CAPABILITY\b", path.read_text("utf-8"))
    }
    assert named == {"tests/numerics/exact/processor.py", "benchmarks/exact_equality.py"}
