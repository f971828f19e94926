"""Letters that steer terminals or turn words round, addresses that lead elsewhere, settings that are no numbers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.attacks.target import Strangers, identity

from fallow.adapters.iroh_transport import IrohTransport
from fallow.cli.output import Output, table
from fallow.errors import FallowError, fail
from fallow.node.app import quiet_logs
from fallow.node.config import Config, load_config
from fallow.sdk.framed import read_failure
from fallow.units import parse_size, plain
from fallow.wire.codec import encode
from fallow.wire.messages import Failure, NodeAddress
from fallow.wire.trees import path_problem

CLEAR = "\x1b[2J\x1b[1;1H"
TITLE = "\x1b]0;owned\x07"
C1 = "\x9b31m"
TURNED = "photo\u202egpj.exe"
ISOLATED = "a\u2066b\u2069"
OVERWRITES = "paid 5 cr\rpaid 1 cr"
NASTY = (CLEAR, TITLE, C1, TURNED, ISOLATED, OVERWRITES, "\x08\x08", "\x7f", "\u200e", "\ufeff")


def clean(text: str) -> bool:
    return all(letter.isprintable() or letter in "\n\t" for letter in text)


@pytest.mark.parametrize("nasty", NASTY)
def test_nothing_that_steers_a_terminal_is_printed(nasty: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A model's name, an answer, an error or a provider's progress holds such letters. Gained: a "?" each."""
    for as_json in (False, True):
        out = Output(as_json=as_json)
        out.data({"name": nasty, nasty: [nasty]}, table(("NAME",), [(nasty,)]))
        out.say(nasty)
        out.piece(nasty)
        out.error(fail("E1806", nasty, cause=nasty, money=nasty, next_step=nasty))
        with out.progress(nasty) as bar:
            bar.update(1, 2, nasty)
            bar.part(nasty, 2, 2, nasty)
            bar.say(nasty)
    said = capsys.readouterr()
    assert clean(said.out)
    assert clean(said.err)
    line = next(line for line in said.out.split("\n") if '{"name"' in line)
    assert json.loads(line[line.index('{"name"') :])["name"] == nasty


@pytest.mark.parametrize("nasty", NASTY)
def test_nothing_that_steers_a_terminal_is_logged(nasty: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same in what a node logs of a peer, by its own logger or a library's. Gained: 0."""
    import logging

    import structlog

    quiet_logs("info")
    structlog.get_logger().warning("peer said", what=nasty, code=nasty)
    logging.getLogger("some.library").error("peer said %s", nasty)
    logging.getLogger().handlers[:] = []
    assert clean(capsys.readouterr().err)


@pytest.mark.parametrize("nasty", NASTY)
def test_a_strangers_error_is_plain_before_anybody_sees_it(nasty: str) -> None:
    error = read_failure(encode(Failure("E1806", nasty, nasty, nasty, nasty)), trusted=False)
    assert clean(error.five_lines())


def test_what_people_write_stays_as_it_is() -> None:
    for text in ("Grüße, 世界", "می‌خواهم", "👩‍🔬 tests", "two\nlines\tand a tab", "1\u00a0000"):
        assert plain(text) == text


@pytest.mark.parametrize("nasty", [*NASTY[:6], "ok/\u202e/x", "a\u200fb"])
def test_no_file_is_written_under_a_name_that_looks_like_another(nasty: str) -> None:
    """A result's file is called photo[turned round]gpj.exe. Gained: 0; E1102, and nothing is written."""
    assert path_problem(nasty)
    assert clean(path_problem(nasty))


async def test_a_peers_address_does_not_make_us_dial_its_relay() -> None:
    """A stranger's address names a "relay" on a host of its choice. Gained: 0 connections to it."""
    heard = 0

    async def knock(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard += 1
        writer.close()

    server = await asyncio.start_server(knock, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Strangers() as strangers, server:
        us = await strangers.transport(1)
        there = NodeAddress(node=identity(2).node, direct=(), relay=f"http://127.0.0.1:{port}")
        with pytest.raises(FallowError) as unreachable:
            await us.connect(there, 1.5)
        assert unreachable.value.code == "E1801"
    assert heard == 0


async def test_the_relay_of_our_own_configuration_is_dialled() -> None:
    """Else the test above would show nothing."""
    heard = asyncio.Event()

    async def knock(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set()
        writer.close()

    server = await asyncio.start_server(knock, "127.0.0.1", 0)
    relay = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        us = await IrohTransport.bind(identity(3).node_secret, relay=relay)
        async with asyncio.timeout(20):
            await heard.wait()
        await us.close()


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("[provider]\ncpus = nan", "cpus"),
        ("[provider]\ncpus = inf", "cpus"),
        ("[provider]\ncpus = -1.0", "cpus"),
        ("[provider]\nthreads = -1", "threads"),
        ("[provider]\nthreads = 99999999999", "threads"),
        ("[provider.prices]\ntrain = -5", "prices.train"),
        ("[provider.prices]\necho = 99999999999999999999999", ""),
        ("gateway_port = 70000", "gateway_port"),
        ("gateway_port = -1", "gateway_port"),
        ("ticket_uses = -1", "ticket_uses"),
        ('welcome = "-5"', ""),
        ('welcome = "nan"', ""),
        ('purse = "inf"', ""),
        ('quota = "-1G"', ""),
        ('quota = "1e309"', ""),
        (f'quota = "{"9" * 400}"', ""),
        ('[provider]\nstake = "1e9"', ""),
        ('[provider]\nram = "inf"', ""),
    ],
)
def test_settings_that_are_no_numbers_are_refused_by_name(tmp_path: Path, setting: str, named: str) -> None:
    """NaN compares with nothing, infinity overflows, negatives turn sums round. Gained: 0; E1001 names the setting."""
    (tmp_path / "config.toml").write_text(setting + "\n")
    with pytest.raises(FallowError) as refused:
        load_config(tmp_path)
    assert refused.value.code == "E1001"
    assert named in refused.value.what


def test_settings_that_are_numbers_are_taken(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[provider]\ncpus = 1.5\nthreads = 2\n[provider.prices]\ntrain = 0\n")
    assert load_config(tmp_path).provider.cpus == 1.5
    assert load_config(tmp_path / "none") == Config()
    assert parse_size("1.5G") == 3 << 29
