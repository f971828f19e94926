from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.workloads.smol import smol_gguf

from fallow.kinds.generate.tasks import ChatTurn, Generate
from fallow.workloads import convert
from fallow.workloads.generate import Opening, open_engine
from fallow.workloads.model_files import inspect_model


@pytest.mark.parametrize(
    ("arguments", "code"), [([], "E2001"), (["nowhere", "out"], "E2003"), ([__file__, "out"], "E1701")]
)
def test_refusals(arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert.main(arguments) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(code + " ")


def test_progress_is_read_from_lines_of_its_own_form() -> None:
    assert convert.read_progress("3 9 reading tensors\n") == (3, 9, "reading tensors")
    for line in ("", "3", "3 9", "-1 9 x", "loading 3 of 9"):
        assert convert.read_progress(line) is None


@pytest.mark.slow
def test_a_real_model_is_converted_and_chats(tmp_path: Path) -> None:
    folder = tmp_path / "smol"
    command = [sys.executable, "-m", "fallow.workloads.convert", str(smol_gguf()), str(folder)]
    done = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
    told = [found for line in done.stdout.splitlines() if (found := convert.read_progress(line)) is not None]
    assert (272, 272, "reading tensors") in told
    assert [note for done, _, note in told if not done][-1] == "writing the folder"
    facts = inspect_model(folder)
    assert (facts.parameters, facts.context_tokens, facts.has_tokenizer) == (134_515_008, 8192, True)
    engine = open_engine(folder, how=Opening(context_tokens=128))
    pieces: list[str] = []
    request = Generate((ChatTurn("user", "What is the capital of France? Tell me about it."),), "", 8)
    value = engine.answer(request, 1, lambda piece: pieces.append(piece) is None)
    assert "Paris" in value.text
    assert (value.prompt_tokens, value.completion_tokens) == (42, 8)
