from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.cli.files import gguf_model, hf_model
from tests.cli.terminal import Terminal

from fallow.cli.serve import name_of
from fallow.wire.local import ChangeKey, MakeKey, SubmitJob


def test_serving_prints_the_two_lines_that_clients_read(terminal: Terminal, tmp_path: Path) -> None:
    said = terminal.fallow("serve", hf_model(tmp_path / "My Model"), "--budget", "1", "--yes")
    assert said.out.splitlines() == [
        "export OPENAI_BASE_URL=http://127.0.0.1:8790/v1",
        "export OPENAI_API_KEY=fallow-secret",
    ]
    assert terminal.node.requests(MakeKey) == [MakeKey("My-Model", 1_000_000)]
    assert terminal.node.requests(SubmitJob)[0].spec.work.name == "My-Model"


def test_for_programs_and_with_the_door_that_up_noted(terminal: Terminal, tmp_path: Path) -> None:
    (terminal.home / "gateway").write_text("http://127.0.0.1:1234/v1\n")
    answer = terminal.json("serve", gguf_model(tmp_path / "a.gguf"), "--as", "mine", "--budget", "1", "-y")
    assert (answer["model"], answer["base_url"], answer["ready"]) == ("mine", "http://127.0.0.1:1234/v1", True)


def test_answers_whose_bits_differ_are_not_compared_unless_asked(terminal: Terminal, tmp_path: Path) -> None:
    model = gguf_model(tmp_path / "a.gguf")
    said = terminal.fallow("serve", model, "--budget", "1", "-y")
    assert "not checked unless you say --verify audit" in said.err
    terminal.fallow("serve", model, "--budget", "1", "-y", "--verify", "audit", "--as", "b")
    said = terminal.fallow("serve", hf_model(tmp_path / "hf"), "--budget", "1", "-y")
    assert "not checked" not in said.err
    assert [request.spec.verify for request in terminal.node.requests(SubmitJob)] == ["none", "audit", "audit"]


def test_a_model_is_called_as_it_was_typed(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "short.gguf").symlink_to(gguf_model(tmp_path / "a-very-long-name.gguf"))
    assert terminal.json("serve", tmp_path / "short.gguf", "--budget", "1", "-y")["model"] == "short"


def test_a_port_that_is_taken(terminal: Terminal, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        model = hf_model(tmp_path / "model")
        said = terminal.fallow("serve", model, "--budget", "1", "--yes", "--port", str(port))
    assert (said.code, said.error_code) == (5, "E1804")
    assert not terminal.node.requests(SubmitJob)


def test_keys(terminal: Terminal) -> None:
    assert "fallow-secret" in terminal.fallow("serve", "--new-key", "--budget", "0.5").out
    assert terminal.json("serve", "--keys")["keys"][0]["prefix"] == "fallow-abc"
    assert terminal.fallow("serve", "--top-up", "fallow-abc", "--budget", "2").code == 0
    assert terminal.fallow("serve", "--revoke", "fallow-abc").code == 0
    assert terminal.node.requests(ChangeKey) == [
        ChangeKey("fallow-abc", 2_000_000),
        ChangeKey("fallow-abc", 0, True),
    ]


@pytest.mark.parametrize("words", [[], ["--new-key"], ["--keys", "--new-key"], ["--top-up", "k"], ["MODEL"]])
def test_one_thing_at_a_time_and_a_budget(terminal: Terminal, tmp_path: Path, words: list[str]) -> None:
    words = [str(hf_model(tmp_path / "model")) if word == "MODEL" else word for word in words]
    assert terminal.fallow("serve", *words).error_code == "E2001"
    assert not terminal.node.asked


def test_what_is_no_adapter(terminal: Terminal, tmp_path: Path) -> None:
    model = hf_model(tmp_path / "model")
    said = terminal.fallow("serve", model, "--adapter", tmp_path, "--budget", "1", "--yes")
    assert said.error_code == "E1701"
    assert not terminal.node.asked


def test_names_fit_a_url() -> None:
    assert name_of(Path("/x/SmolLM2-135M.gguf")) == "SmolLM2-135M"
    assert name_of(Path("/x/é a/b?c")) == "b-c"
    assert name_of(Path("/")) == "model"
