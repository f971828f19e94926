from __future__ import annotations

import pytest
from tests.cli.terminal import Terminal
from tests.sdk.fake_node import BANK, ME

from fallow.units import to_text
from fallow.wire.local import AnswerCharge, MoveMoney


def test_balances(terminal: Terminal) -> None:
    assert terminal.json("wallet") == {
        "account": "0x" + ME.hex(),
        "bank": "0x" + BANK.hex(),
        "available_ucr": 5_000_000,
        "escrowed_ucr": 0,
        "staked_ucr": 10_000_000,
        "bonded_ucr": 0,
        "unbonding_ucr": 0,
        "earned_ucr": 7,
        "slashed_ucr": 0,
    }
    assert "5.00 cr" in terminal.fallow("wallet").out


def test_moving_money_needs_a_yes(terminal: Terminal) -> None:
    assert terminal.fallow("wallet", "deposit", "1").error_code == "E2006"
    assert not terminal.node.requests(MoveMoney)
    terminal.json("wallet", "deposit", "1.5", "--yes")
    terminal.json("wallet", "transfer", "0.5", "0x" + BANK.hex(), "-y")
    assert terminal.node.requests(MoveMoney) == [
        MoveMoney("deposit", 1_500_000),
        MoveMoney("transfer", 500_000, BANK),
    ]


def test_a_charge_is_answered(terminal: Terminal) -> None:
    lease = to_text("lease", b"l" * 32)
    assert terminal.fallow("wallet", "appeal", lease).error_code == "E2006"
    terminal.json("wallet", "appeal", lease, "--yes")
    terminal.json("wallet", "rule", lease, "overturned", "--yes")
    assert terminal.node.requests(AnswerCharge) == [
        AnswerCharge(b"l" * 32, "appeal"), AnswerCharge(b"l" * 32, "overturned")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["deposit"], "E2001"),
        (["deposit", "0"], "E2001"),
        (["deposit", "1", "0x" + ME.hex()], "E2001"),
        (["transfer", "1"], "E2001"),
        (["transfer", "1", "me"], "E1003"),
        (["transfer", "1", "0x1234"], "E1003"),
        (["deposit", "one"], "E1002"),
        (["steal", "1"], "E2001"),
        (["appeal"], "E1003"),
        (["appeal", "5"], "E1003"),
        (["appeal", "l_" + "0" * 64, "upheld"], "E2001"),
        (["rule", "l_" + "0" * 64], "E2001"),
        (["rule", "l_" + "0" * 64, "maybe"], "E2001"),
    ],
)
def test_words_that_do_not_fit(terminal: Terminal, words: list[str], code: str) -> None:
    said = terminal.fallow("wallet", *words, "--yes")
    assert (said.code, said.error_code) == (2, code)
    assert not terminal.node.asked
