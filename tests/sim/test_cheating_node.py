"""A provider that lies takes part in a network like any other; `tests/e2e/test_replay.py` has it at work."""

from __future__ import annotations

from pathlib import Path

import pytest

from fallow.cli.demo_net import Network
from fallow.sim.cheating_node import main
from fallow.units import to_text


@pytest.mark.slow
async def test_is_on_offer_like_any_other(tmp_path: Path) -> None:
    with Network(tmp_path) as network:
        client = await network.found(1, cheats=1, cheat="lazy")
        (liar,) = [member for member in network.members if member.cheats]
        assert [to_text("account", offer.account) for offer in await client.offers()] == [liar.announced["account"]]


@pytest.mark.parametrize("words", [["clever", "fallow1"], ["lazy"]])
def test_wrong_words_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(words)
    assert refused.value.code == 2
