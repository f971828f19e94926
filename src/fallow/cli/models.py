"""Model and data files of the user's, checked before anything is spent, and GGUF files made trainable once.

Reading is done without tensor libraries; converting runs in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from blake3 import blake3

from fallow.cli.output import Output
from fallow.errors import CODES, fail
from fallow.units import format_size
from fallow.workloads.model_files import ModelFacts, inspect_model

CONVERTED = "models"
UNCHECKED = """A GGUF model's answers are not checked unless you say --verify audit: llama.cpp computes what runs at the
same time in one batch, so the last bits of an answer depend on its neighbours, and comparing them would accuse honest
providers. Answers of the same model as a Hugging Face folder are checked."""
"""Said when `sdk.terms.checked_by` chose "none"."""


def check_model(path: Path) -> ModelFacts:
    """Raises UsageError E1701 or E2003 for what is no model."""
    return inspect_model(path)


def trainable(path: Path, home: Path, out: Output) -> Path:
    """A model folder that can be trained: `path` itself, or for a GGUF file its conversion, made once and kept under
    HOME/models by content. Raises UsageError E1701 when it is no model, or none that can be converted."""
    facts = inspect_model(path)
    if facts.layout != "gguf":
        return facts.folder
    source = facts.weights[0]
    digest = blake3(max_threads=blake3.AUTO).update_mmap(source).hexdigest()
    folder = home / CONVERTED / digest[:32]
    if folder.is_dir():
        return folder
    size = format_size(facts.size_bytes)
    out.say(f"Converting {source.name} ({size}) for training; this is done once and takes about a minute per 200 MiB.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    convert(source, folder)
    return folder


def convert(source: Path, folder: Path) -> None:
    """Run the converter, which prints a code and what happened as its last line when it refuses."""
    command = [sys.executable, "-m", "fallow.workloads.convert", str(source), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 and folder.is_dir():
        return
    last = (done.stderr.strip().splitlines() or [""])[-1]
    code, _, what = last.partition(" ")
    if code in CODES:
        raise fail(code, what)
    raise fail("E1701", f"{source.name} could not be converted: {last or 'the converter was killed'}.")
