"""`fallow import`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.terminal import Terminal
from tests.interop.akash.files import changed, sdl


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "deploy.json"
    path.write_text(json.dumps(sdl(), indent=1))
    return path


def test_it_shows_what_a_file_became_and_that_nothing_started(terminal: Terminal, file: Path) -> None:
    said = terminal.fallow("import", str(file))
    assert said.code == 0
    for word in ("akash 2.0", "nginx:1.27", "512 MiB", "80/tcp", "100 uakt per block", "Not carried over", "line "):
        assert word in said.out
    assert "Nothing was started" in said.out and "Not run by this version: container." in said.out
    data = terminal.json("import", str(file))
    assert (data["accepted"], data["started"], data["not_served"]) == (True, False, ["container"])
    assert data["digest"] in said.out and "canonical" not in data


def test_a_refusal_names_each_line(terminal: Terminal, file: Path) -> None:
    file.write_text(json.dumps(changed("services.web.expose.0.port", 0, changed("extra", 1)), indent=1))
    said = terminal.fallow("import", str(file))
    assert (said.code, said.error_code) == (2, "E2101")
    assert "services.web.expose[0].port" in said.out and "from 1 to 65535" in said.out and "And 1 more." in said.err
    first, second = map(json.loads, terminal.fallow("import", str(file), "--json").out.splitlines())
    assert first["problems"][0]["line"] > 0 and not first["accepted"]
    assert second["error"]["code"] == "E2101"


def test_the_other_reader_is_named_where_it_helps(terminal: Terminal, file: Path) -> None:
    file.write_text(json.dumps(changed("services.web.restart", "always")))
    assert "--lenient" in terminal.fallow("import", str(file)).err
    said = terminal.fallow("import", str(file), "--lenient")
    assert said.code == 0 and "services.web.restart" in said.out


def test_values_fill_in_a_template(terminal: Terminal, file: Path) -> None:
    file.write_text("Name: {{.name}}\nType: batch\nTasks:\n  - Name: main\n    Engine: {Type: noop}\n")
    assert "--value name=VALUE" in terminal.fallow("import", str(file)).out
    assert terminal.json("import", str(file), "--value", "name=x")["name"] == "x"
    assert terminal.fallow("import", str(file), "--no-template").error_code == "E2101"
    assert terminal.fallow("import", str(file), "-V", "x").error_code == "E2001"


def test_what_is_no_such_file(terminal: Terminal, file: Path, tmp_path: Path) -> None:
    assert terminal.fallow("import", str(tmp_path / "none")).error_code == "E2003"
    file.write_text("a: 1")
    assert terminal.fallow("import", str(file)).error_code == "E2102"
    assert terminal.fallow("import", str(file), "--format", "akash").error_code == "E2101"
    file.write_text("[" * 1000)
    assert terminal.fallow("import", str(file)).error_code == "E2103"
    assert terminal.fallow("import", str(file), "--strict", "--lenient").error_code == "E2001"
