from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.terminal import Terminal
from tests.sdk.fake_node import RECEIPT
from tests.wire.parties import receipt, sealed

from fallow.wire.local import GetReceipt


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.receipt"
    path.write_bytes(sealed(receipt()))
    return path


def test_a_good_receipt_holds_without_asking_anybody(terminal: Terminal, file: Path) -> None:
    answer = terminal.json("verify", file)
    assert answer["ok"] is True
    assert all(check["ok"] for check in answer["checks"])
    assert "The receipt holds" in terminal.fallow("verify", file).out
    assert not terminal.node.asked


@pytest.mark.parametrize("place", [0, 40, 400, -1])
def test_one_changed_byte_is_found(terminal: Terminal, file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    said = terminal.fallow("verify", file)
    assert (said.code, said.error_code) == (3, "E1501")
    assert "FAIL" in said.out
    answer, error = map(json.loads, terminal.fallow("verify", file, "--json").out.splitlines())
    assert answer["ok"] is False
    assert error["error"]["code"] == "E1501"


def test_several_at_once_are_all_looked_at(terminal: Terminal, file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.receipt"
    bad.write_bytes(file.read_bytes()[:-1] + b"?")
    said = terminal.fallow("verify", bad, file, "--json")
    assert said.code == 3
    assert [json.loads(line).get("ok") for line in said.out.splitlines()] == [False, True, None]
    assert terminal.fallow("verify", file, file).code == 0


@pytest.mark.parametrize("content", [b"", b"not a receipt", b"\x00" * 1000])
def test_what_is_no_receipt(terminal: Terminal, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert terminal.fallow("verify", file).error_code == "E1501"


def test_a_huge_file_is_not_read(terminal: Terminal, file: Path) -> None:
    with file.open("r+b") as handle:
        handle.truncate(1 << 30)
    assert terminal.fallow("verify", file).error_code == "E1501"


def test_an_id_is_fetched_from_the_own_node(terminal: Terminal) -> None:
    terminal.node.receipt = sealed(receipt())
    assert terminal.json("verify", "r_" + RECEIPT.hex())["ok"] is True
    assert terminal.node.requests(GetReceipt) == [GetReceipt(RECEIPT)]


@pytest.mark.parametrize(
    ("name", "code"), [("no/such.receipt", "E2003"), ("gone.receipt", "E2003"), ("r_xyz", "E1003")]
)
def test_neither_a_file_nor_an_id(terminal: Terminal, name: str, code: str) -> None:
    assert terminal.fallow("verify", name).error_code == code


def test_a_folder_is_no_receipt(terminal: Terminal, tmp_path: Path) -> None:
    assert terminal.fallow("verify", tmp_path).error_code == "E2003"
