"""Model and data files of the user's, checked before anything is spent, and GGUF files made trainable once.

Reading is done without tensor libraries; converting runs in a process of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from blake3 import blake3

from fallow.cli.output import Bar, Output
from fallow.errors import CODES, fail
from fallow.units import MIB, format_size
from fallow.workloads.convert import read_progress
from fallow.workloads.model_files import draft_of, inspect_model

CONVERTED = "models"
PIECE_BYTES = 256 * MIB
NO_AUDIT = """A GGUF model's answers are not checked unless you say --verify audit: llama.cpp computes what runs at the
same time in one batch, so the last bits of an answer depend on its neighbours, and comparing them would accuse honest
providers. Answers of the same model as a Hugging Face folder are checked."""
"""Said when `sdk.terms.checked_by` chose "none"."""


def trainable(path: Path, home: Path, out: Output) -> Path:
    """A model folder that can be trained: `path` itself, or for a GGUF file its conversion, made once and kept under
    HOME/models by content. Raises UsageError E1701 when it is no model, or none that can be converted."""
    facts = inspect_model(path)
    if facts.layout != "gguf":
        return facts.folder
    source = facts.weights[0]
    with out.progress(f"Converting {source.name} ({format_size(facts.size_bytes)}) for training, once") as bar:
        folder = home / CONVERTED / _content(source, bar)[:32]
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            convert(source, folder, bar)
    return folder


def _content(source: Path, bar: Bar) -> str:
    """The hash of a file, read in pieces so that Ctrl-C is heard."""
    hasher, size_bytes, done = blake3(max_threads=blake3.AUTO), source.stat().st_size, 0
    with source.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            hasher.update(piece)
            done += len(piece)
            if size_bytes > PIECE_BYTES:
                bar.update(done // MIB, size_bytes // MIB, "MiB compared with earlier conversions")
    return hasher.hexdigest()


def convert(source: Path, folder: Path, bar: Bar) -> None:
    """Run the converter, showing how far it is; it prints a code and what happened as its last line when it refuses.
    However this ends, no converter is left running, and no half of a folder lies there."""
    command = [sys.executable, "-m", "fallow.workloads.convert", str(source), str(folder)]
    with tempfile.TemporaryFile("w+", errors="replace") as complaints:
        # A session of its own: Ctrl-C is for us to hear, and a converter deep in a library would not end at once.
        running = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=complaints, text=True, errors="replace", start_new_session=True
        )
        try:
            assert running.stdout is not None
            for line in running.stdout:
                if (said := read_progress(line)) is not None:
                    bar.update(*said)
            running.wait()
        finally:
            running.kill()
            running.wait()
            if running.stdout is not None:
                running.stdout.close()
            shutil.rmtree(draft_of(folder), ignore_errors=True)
        complaints.seek(0)
        last = (complaints.read().strip().splitlines() or [""])[-1]
    if running.returncode == 0 and folder.is_dir():
        return
    code, _, what = last.partition(" ")
    if code in CODES:
        raise fail(code, what)
    raise fail("E1701", f"{source.name} could not be converted: {last or 'the converter was killed'}.")
