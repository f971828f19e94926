from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from blake3 import blake3
from tests.cli.files import gguf_model, hf_model

from fallow.cli import models
from fallow.cli.models import convert, trainable
from fallow.cli.output import Output
from fallow.errors import FallowError
from fallow.workloads.model_files import inspect_model

OUT = Output(as_json=True)


def converter(path: Path, script: str) -> str:
    """A program that takes the place of the converter's interpreter: $3 is the source, $4 the folder."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_model_folder_is_trained_as_it_is(tmp_path: Path) -> None:
    model = hf_model(tmp_path / "model")
    assert trainable(model, tmp_path / "home", OUT) == model
    assert not (tmp_path / "home").exists()


def test_a_gguf_file_is_converted_once_for_each_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, home = gguf_model(tmp_path / "a.gguf"), tmp_path / "home"
    monkeypatch.setattr(models.sys, "executable", converter(tmp_path / "ok", 'mkdir "$4"'))
    folder = trainable(source, home, OUT)
    assert folder == home / "models" / blake3(source.read_bytes()).hexdigest()[:32]
    monkeypatch.setattr(models.sys, "executable", converter(tmp_path / "never", "exit 9"))
    copy = tmp_path / "b.gguf"
    copy.write_bytes(source.read_bytes())
    assert trainable(copy, home, OUT) == folder


@pytest.mark.parametrize(
    ("script", "code", "what"),
    [
        ('echo "E1701 it is of no known kind" >&2; exit 2', "E1701", "it is of no known kind"),
        ('printf "warning\\n\\nE1708 Converting needs torch." >&2; exit 1', "E1708", "torch"),
        ("kill -9 $$", "E1701", "killed"),
        ("exit 0", "E1701", "killed"),
    ],
)
def test_a_converter_that_fails_is_a_coded_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, code: str, what: str
) -> None:
    monkeypatch.setattr(models.sys, "executable", converter(tmp_path / "fails", script))
    with pytest.raises(FallowError) as caught, OUT.progress("") as bar:
        convert(gguf_model(tmp_path / "a.gguf"), tmp_path / "folder", bar)
    assert caught.value.code == code
    assert what in caught.value.what


def test_how_far_a_conversion_is_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = 'echo "0 0 loading"; echo "a library talks"; echo "3 9 reading tensors"; mkdir "$4"'
    monkeypatch.setattr(models.sys, "executable", converter(tmp_path / "ok", script))
    trainable(gguf_model(tmp_path / "a.gguf"), tmp_path / "home", Output(as_json=False))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("once")[2].split() for line in lines] == [["loading"], ["3/9", "reading", "tensors"]]


INTERRUPTED = """
import signal, sys
from pathlib import Path
from fallow.cli import models
from fallow.cli.output import Output
models.sys.executable = sys.argv[1]
# as at a terminal: whoever runs these tests in the background may have told all its children to ignore it
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    models.trainable(Path(sys.argv[2]), Path(sys.argv[3]), Output(as_json=False))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_ends_a_conversion_and_leaves_nothing_behind(tmp_path: Path) -> None:
    slow = converter(tmp_path / "slow", 'mkdir "$4.part"; echo "1 $$ reading tensors"; exec sleep 1000')
    source, home = gguf_model(tmp_path / "a.gguf"), tmp_path / "home"
    command = [sys.executable, "-c", INTERRUPTED, slow, str(source), str(home)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        counted = running.stderr.readline().partition("once")[2].split()[0]
        child = int(counted.partition("/")[2])
        assert psutil.pid_exists(child)
        running.send_signal(signal.SIGINT)
        try:
            assert running.wait(timeout=10) == 130
        finally:
            running.kill()
    assert not psutil.pid_exists(child)
    assert list((home / "models").iterdir()) == []


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("text")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(FallowError) as caught:
            inspect_model(path)
        assert caught.value.code == "E1701"
