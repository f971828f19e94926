from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.terminal import Terminal
from tests.sdk.fake_node import ADDRESS, RECEIPT
from tests.wire.parties import AUDITORS, BANK, PROVIDER, REQUESTER, changed, receipt, sealed

from fallow.node.config import Ticket, write_ticket
from fallow.wire.local import GetReceipt


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.receipt"
    path.write_bytes(sealed(receipt()))
    return path


def test_a_good_receipt_holds_without_asking_anybody(member: Terminal, file: Path) -> None:
    answer = member.json("verify", file)
    assert answer["ok"] is True
    assert all(check["ok"] for check in answer["checks"])
    assert "The receipt holds" in member.fallow("verify", file).out
    assert not member.node.asked


def test_it_says_what_is_proven_by_whom_and_what_is_not(member: Terminal, file: Path) -> None:
    answer = member.json("verify", file)
    assert (answer["outcome"], answer["lacks"]) == ("holds", [])
    assert answer["anchor"]["bank"] == answer["bank"] == f"0x{BANK.account.hex()}"
    assert [answer["requester"], answer["provider"]] == [f"0x{one.account.hex()}" for one in (REQUESTER, PROVIDER)]
    assert answer["auditors"] == [f"0x{one.account.hex()}" for one in AUDITORS[:2]]
    said = member.fallow("verify", file).out
    lines = [line.split(":")[0] for line in said.splitlines()[-3:]]
    assert lines == ["Proven", "By", "Not proven"]
    assert [answer["proven"], answer["by"], answer["not_proven"]] == [
        line.partition(": ")[2] for line in said.splitlines()[-3:]
    ]


def test_without_a_bank_that_one_knows_nothing_holds(terminal: Terminal, file: Path) -> None:
    said = terminal.fallow("verify", file)
    assert (said.code, said.error_code) == (6, "E1505")
    assert "NOT ANCHORED" in said.out
    assert "holds" not in said.out
    assert json.loads(terminal.fallow("verify", file, "--json").out.splitlines()[0])["outcome"] == "not anchored"


def test_a_bank_is_named_by_account_or_ticket(terminal: Terminal, file: Path) -> None:
    account, ticket = f"0x{BANK.account.hex()}", write_ticket(Ticket(ADDRESS, BANK.account, (), ""))
    for words in (account, account[2:], ticket):
        assert terminal.json("verify", file, "--bank", words)["ok"] is True
    other = terminal.fallow("verify", file, "--bank", f"0x{REQUESTER.account.hex()}")
    assert (other.code, other.error_code) == (3, "E1501")
    for words in ("", "0x12", "my bank", "0x" + "g" * 40, "fallow1abc"):
        assert terminal.fallow("verify", file, "--bank", words).error_code == "E2001"


def test_the_named_bank_counts_more_than_the_homes(member: Terminal, file: Path) -> None:
    assert member.fallow("verify", file, "--bank", f"0x{bytes(20).hex()}").code == 3


def test_what_is_missing_is_named(member: Terminal, file: Path) -> None:
    file.write_bytes(sealed(changed(receipt(), draw=None)))
    said = member.fallow("verify", file)
    assert (said.code, said.error_code) == (6, "E1506")
    assert "LACK  draw          it lacks the bank's word on the draw of those who checked" in said.out
    answer = json.loads(member.fallow("verify", file, "--json").out.splitlines()[0])
    assert (answer["ok"], answer["outcome"]) == (False, "incomplete")
    assert answer["lacks"] == ["it lacks the bank's word on the draw of those who checked"]


@pytest.mark.parametrize("place", [0, 40, 400, -1])
def test_one_changed_byte_is_found(member: Terminal, file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    said = member.fallow("verify", file)
    assert (said.code, said.error_code) == (3, "E1501")
    assert "FAIL" in said.out
    answer, error = map(json.loads, member.fallow("verify", file, "--json").out.splitlines())
    assert answer["ok"] is False
    assert error["error"]["code"] == "E1501"


def test_several_at_once_are_all_looked_at(member: Terminal, file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.receipt"
    bad.write_bytes(file.read_bytes()[:-1] + b"?")
    said = member.fallow("verify", bad, file, "--json")
    assert said.code == 3
    assert [json.loads(line).get("ok") for line in said.out.splitlines()] == [False, True, None]
    assert member.fallow("verify", file, file).code == 0


@pytest.mark.parametrize("content", [b"", b"not a receipt", b"\x00" * 1000])
def test_what_is_no_receipt(member: Terminal, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert member.fallow("verify", file).error_code == "E1501"


def test_a_huge_file_is_not_read(member: Terminal, file: Path) -> None:
    with file.open("r+b") as handle:
        handle.truncate(1 << 30)
    assert member.fallow("verify", file).error_code == "E1501"


def test_an_id_is_fetched_from_the_own_node(member: Terminal) -> None:
    member.node.receipt = sealed(receipt())
    assert member.json("verify", "r_" + RECEIPT.hex())["ok"] is True
    assert member.node.requests(GetReceipt) == [GetReceipt(RECEIPT)]


@pytest.mark.parametrize(
    ("name", "code"), [("no/such.receipt", "E2003"), ("gone.receipt", "E2003"), ("r_xyz", "E1003")]
)
def test_neither_a_file_nor_an_id(member: Terminal, name: str, code: str) -> None:
    assert member.fallow("verify", name).error_code == code


def test_a_folder_is_no_receipt(member: Terminal, tmp_path: Path) -> None:
    assert member.fallow("verify", tmp_path).error_code == "E2003"
