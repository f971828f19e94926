from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.cli.terminal import Terminal
from tests.sdk.fake_node import JOB, RECEIPT, job_view, output

from fallow.cli.results import output_text
from fallow.errors import fail
from fallow.kinds.generate.tasks import GenerateValue
from fallow.wire.codec import encode
from fallow.wire.local import ExportTree
from fallow.wire.tasks import Part


def test_a_folder_is_written_only_when_asked(terminal: Terminal, tmp_path: Path) -> None:
    assert "--out" in terminal.fallow("results", "notes").out
    assert not terminal.node.requests(ExportTree)
    assert terminal.json("results", "notes", "--out", tmp_path / "out")["saved"] == str(tmp_path / "out")
    assert (tmp_path / "out" / "adapter_config.json").exists()


def test_small_values_are_printed_and_files_go_to_a_folder_for_each_task(terminal: Terminal, tmp_path: Path) -> None:
    terminal.node.tree = b""
    terminal.node.jobs[JOB] = job_view(kind="batch", workload="echo")
    terminal.node.outputs = (output(b"hello"), output(b"\xff", Part("log.txt", bytes(32), 3)))
    assert terminal.fallow("results", "notes").out == "hello\nlog.txt (3 B)\n"
    terminal.fallow("results", "notes", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "1" / "log.txt").exists()


def test_receipts_are_files_that_verify_can_read(terminal: Terminal, tmp_path: Path) -> None:
    terminal.fallow("results", "notes", "--out", tmp_path / "out", "--receipts")
    (file,) = (tmp_path / "out" / "receipts").iterdir()
    assert file.name == f"r_{RECEIPT.hex()}.receipt"
    assert file.read_bytes() == b"a receipt"


def test_a_job_without_outputs_still_has_its_receipts(terminal: Terminal, tmp_path: Path) -> None:
    terminal.node.no_results = fail("E1402", "There are no outputs: cancelled by its owner.", money="1 cr was paid.")
    said = terminal.fallow("results", "notes")
    assert (said.code, said.error_code) == (3, "E1402")
    assert "1 cr was paid" in said.err
    assert terminal.fallow("results", "notes", "--out", tmp_path / "out", "--receipts").code == 0
    assert len(list((tmp_path / "out" / "receipts").iterdir())) == 1


def test_receipts_need_a_folder(terminal: Terminal) -> None:
    assert terminal.fallow("results", "notes", "--receipts").error_code == "E2001"


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (encode(GenerateValue("an answer", "stop", 1, 2)), "generate", "an answer"),
        (msgspec.msgpack.encode(["an old answer", "stop", 1, 2]), "generate", "an old answer"),
        (b"plain", "echo", "plain"),
        (b"\xff\xfe", "echo", ""),
    ],
)
def test_values_as_text(value: bytes, kind: str, text: str) -> None:
    assert output_text(value, kind) == text
