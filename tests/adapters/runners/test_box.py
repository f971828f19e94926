"""What is inside a box; that nothing hostile gets out is `tests/attacks/test_hostile_worker.py`."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fallow.adapters.runners import box, boxing, kernel, leash
from fallow.adapters.runners.box import FAILED, LANDLOCK, NAMESPACES, View, read_view
from fallow.ports import READ, WORK, WorkerLimits

LAYERS = [layers for layers in (NAMESPACES, LANDLOCK) if not boxing._try(layers)]


def run(view: View, program: str) -> subprocess.CompletedProcess[str]:
    rein = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), "0", "0", "", view.words()]
    return subprocess.run(
        [*rein, sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.fixture(params=LAYERS)
def view(request: pytest.FixtureRequest, tmp_path: Path) -> View:
    for name in (READ, WORK):
        (tmp_path / name).mkdir()
    (tmp_path / READ / "model").write_text("weights")
    return boxing.view(tmp_path, WorkerLimits(), request.param)


def test_a_view_survives_the_command_line() -> None:
    view = View("/a b/work", ["/x", '/y"'], LANDLOCK, 7, cards=True)
    assert read_view(view.words()).__dict__ == view.__dict__


def test_inputs_python_and_a_place_to_write(view: View) -> None:
    program = """
import json, os, tempfile, msgspec, numpy
open("mine", "w").write("x")
print(json.dumps([os.getcwd(), open("../in/model").read(), os.listdir("."), open("/proc/self/status").read(5),
    len(open("/proc/cpuinfo").read()) > 0, len(os.urandom(4)), os.path.exists("/proc/meminfo")]))
"""
    told = json.loads(run(view, program).stdout)
    assert told == [view.work, "weights", ["mine"], "Name:", True, 4, True]


def test_status_and_death_are_those_of_the_worker(view: View) -> None:
    assert run(view, "raise SystemExit(7)").returncode == 7
    assert run(view, "import os; os.abort()").returncode in (-6, -11)  # process 1 takes no SIGABRT


def test_a_node_with_few_open_files_builds_boxes_too(view: View) -> None:
    rein = [
        sys.executable,
        "-I",
        "-S",
        leash.__file__,
        "$$",
        "0",
        "0",
        "",
        view.words(),
        sys.executable,
        "-c",
        "print(5)",
    ]
    words = " ".join(word if word == "$$" else shlex.quote(word) for word in rein)
    done = subprocess.run(["/bin/sh", "-c", f"ulimit -n 256; {words}"], capture_output=True, text=True, check=False)
    assert done.stdout == "5\n", done.stdout + done.stderr


def test_a_home_behind_a_link_is_where_it_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "real" / WORK).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for layers in LAYERS:
        view = boxing.view(tmp_path / "link", WorkerLimits(), layers)
        told = run(view, f"open({str(tmp_path / 'link' / WORK / layers)!r}, 'w').write('x'); print('done')")
        assert told.stdout == "done\n", told.stderr
        assert (tmp_path / "real" / WORK / layers).read_text() == "x"


def test_what_lies_elsewhere_is_seen_when_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "home" / WORK).mkdir(parents=True)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.gguf").write_text("a")
    (tmp_path / "models" / "b.gguf").write_text("b")
    for layers in LAYERS:
        view = boxing.view(tmp_path / "home", WorkerLimits(reads=(tmp_path / "models" / "a.gguf",)), layers)
        program = f"import sys; print(open({str(tmp_path / 'models')!r} + '/' + sys.argv[1]).read())"
        told = [run(view, program.replace("sys.argv[1]", repr(name))) for name in ("a.gguf", "b.gguf")]
        assert (told[0].stdout, told[1].returncode) == ("a\n", 1)


def test_without_a_folder_to_work_in_nothing_runs(tmp_path: Path) -> None:
    for layers in (*LAYERS, "paper"):
        done = run(View(str(tmp_path / "gone"), layers=layers), "print('ran')")
        assert done.returncode in (FAILED, 1)
        assert "ran" not in done.stdout


def test_landlock_alone_must_know_truncation(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    """On kernels before 6.2 a worker could cut the inputs of its lease, which are the store's own files."""
    monkeypatch.setattr(kernel, "landlock_version", lambda: 2)
    monkeypatch.setattr(kernel, "give_up_privileges", lambda: None)
    view.layers = LANDLOCK
    with pytest.raises(OSError, match="version 2 alone"):
        box.enter(view)
