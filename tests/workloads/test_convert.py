from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.workloads.smol import smol_gguf

from fallow.wire.tasks import ChatTurn, Generate
from fallow.workloads import convert
from fallow.workloads.generate import Opening, open_engine
from fallow.workloads.model_files import inspect_model


@pytest.mark.parametrize(
    ("arguments", "code"), [([], "E2001"), (["nowhere", "out"], "E2003"), ([__file__, "out"], "E1701")]
)
def test_refusals(arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert.main(arguments) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(code + " ")


@pytest.mark.slow
def test_a_real_model_is_converted_and_chats(tmp_path: Path) -> None:
    folder = tmp_path / "smol"
    command = [sys.executable, "-m", "fallow.workloads.convert", str(smol_gguf()), str(folder)]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    facts = inspect_model(folder)
    assert (facts.parameters, facts.context_tokens, facts.has_tokenizer) == (134_515_008, 8192, True)
    engine = open_engine(folder, how=Opening(context_tokens=128))
    pieces: list[str] = []
    request = Generate((ChatTurn("user", "What is the capital of France? Tell me about it."),), "", 8)
    value = engine.answer(request, 1, lambda piece: pieces.append(piece) is None)
    assert "Paris" in value.text
    assert (value.prompt_tokens, value.completion_tokens) == (42, 8)
