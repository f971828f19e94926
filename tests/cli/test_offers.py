from __future__ import annotations

from tests.cli.terminal import Terminal


def test_offers(terminal: Terminal) -> None:
    (offer,) = terminal.json("offers")["offers"]
    assert offer["rates"][0] == {"kind": "train", "price_ucr": 500, "units_per_s": 2_000}
    assert offer["hardware"]["cpu"] == "A fine CPU"
    assert "generate" in terminal.fallow("offers").out


def test_by_kind(terminal: Terminal) -> None:
    assert len(terminal.json("offers", "--kind", "train")["offers"]) == 1
    assert terminal.json("offers", "--kind", "render")["offers"] == []
