from __future__ import annotations

import io

import pytest
from tests.cli.terminal import Terminal
from tests.sdk.fake_node import RECEIPT

from fallow.wire.local import OpenJobLane


def test_one_answer_is_streamed(terminal: Terminal) -> None:
    said = terminal.fallow("chat", "stressed was I")
    assert said.out == "Isawdesserts\n"
    assert f"receipt r_{RECEIPT.hex()[:10]}" in said.err


def test_one_answer_for_programs(terminal: Terminal) -> None:
    assert terminal.json("chat", "live on") == {
        "text": "no evil",
        "finish": "stop",
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "logits": "",
        "receipt": "r_" + RECEIPT.hex(),
    }


def test_a_conversation_goes_on_until_the_end_of_input(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n"))
    assert terminal.fallow("chat").out == "eno\nowt\n"
    assert len(terminal.node.requests(OpenJobLane)) == 1


def test_an_unknown_model(terminal: Terminal) -> None:
    said = terminal.fallow("chat", "hi", "-m", "huge")
    assert said.error_code == "E1901"
    assert "Served: tiny" in said.err
    terminal.node.models = ()
    assert "No model is served" in terminal.fallow("chat", "hi").err


@pytest.mark.parametrize("temperature", ["hot", "-1", "3", "nan"])
def test_a_temperature_out_of_range(terminal: Terminal, temperature: str) -> None:
    assert terminal.fallow("chat", "hi", "--temperature", temperature).error_code == "E2001"
