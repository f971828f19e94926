"""Members of the demo's network: they say when they are ready, die with a word, and come back after `kill -9`."""

from __future__ import annotations

from pathlib import Path

import pytest

from fallow.cli.demo_net import Network
from fallow.errors import FallowError

DIRECTORY = ("up", "--roles", "directory", "--bind", "127.0.0.1:0")


async def test_a_member_comes_back_where_it_was(tmp_path: Path) -> None:
    with Network(tmp_path) as network:
        member = network.start("directory", *DIRECTORY)
        await member.wait_until_ready()
        address = member.announced["address"]
        network.kill(member)
        assert member.process.poll() is not None
        await network.restart(member)
        assert member.announced["address"] == address
        process = member.process
    assert process.poll() is not None


async def test_a_member_that_cannot_start_says_why(tmp_path: Path) -> None:
    with Network(tmp_path) as network:
        member = network.start("broken", *DIRECTORY, config="colour = 3\n")
        with pytest.raises(FallowError) as caught:
            await member.wait_until_ready()
        assert caught.value.code == "E1801"
        assert "colour" in caught.value.what + caught.value.cause
    with pytest.raises(KeyError):
        network.member("nobody")
