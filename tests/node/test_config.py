"""Homes, settings and tickets."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.errors import FallowError, UsageError
from fallow.node.config import (
    Config,
    Ticket,
    load_config,
    load_ticket,
    prepare_home,
    read_address,
    read_ticket,
    remember_port,
    remembered_port,
    save_ticket,
    write_ticket,
)
from fallow.wire.codec import encode
from fallow.wire.messages import NodeAddress

HERE = NodeAddress(bytes(range(32)), ("127.0.0.1:4433",), "")
TICKET = Ticket(HERE, bytes(20), (HERE,), "fj_secret")


def test_a_ticket_is_one_line_that_reads_back() -> None:
    line = write_ticket(TICKET)
    assert line.startswith("fallow1")
    assert line.isalnum()
    assert read_ticket(f"  {line}\n") == TICKET


@given(st.text(max_size=300))
def test_no_text_that_is_no_ticket_does_more_than_refuse(text: str) -> None:
    for words in (text, "fallow1" + text):
        with pytest.raises(FallowError):
            read_ticket(words)


@given(st.data())
def test_a_damaged_ticket_is_refused_or_differs(data: st.DataObject) -> None:
    line = write_ticket(TICKET)
    place = data.draw(st.integers(7, len(line) - 1))
    changed = line[:place] + data.draw(st.sampled_from("abcdefgh234567")) + line[place + 1 :]
    try:
        assert (read_ticket(changed) == TICKET) == (changed == line) or changed[:-1] == line[:-1]
    except FallowError:
        assert changed != line


def test_an_address_reads_back() -> None:
    text = base64.b32encode(encode(HERE)).decode().rstrip("=").lower()
    assert read_address(text) == HERE
    with pytest.raises(UsageError):
        read_address("not an address!")


def test_a_saved_ticket_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    assert load_ticket(tmp_path) is None
    save_ticket(tmp_path, TICKET)
    assert load_ticket(tmp_path) == TICKET
    assert stat.S_IMODE((tmp_path / "network.txt").stat().st_mode) == 0o600


def test_an_empty_home_has_the_defaults(tmp_path: Path) -> None:
    assert load_config(tmp_path) == Config()
    assert load_config(tmp_path).quota_bytes == 50 << 30


def test_settings_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('region = "eu"\n[provider]\nthreads = 2\nprices = { train = 7 }\n')
    config = load_config(tmp_path)
    assert (config.region, config.provider.threads, config.provider.prices) == ("eu", 2, {"train": 7})


@pytest.mark.parametrize(
    "text",
    [
        "this is not TOML",
        "colour = 3",
        "[provider]\nthread = 2",
        "gateway_port = 'high'",
        "quota = 'a lot'",
        "[provider]\nstake = 'all'",
        "provider = 3",
    ],
)
def test_what_cannot_be_read_is_a_coded_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_config(tmp_path)
    assert caught.value.code == "E1001"


def test_a_price_for_a_kind_that_nobody_registered_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[provider]\nprices = { train = 7, render = 9 }\n")
    with pytest.raises(UsageError, match="'render'") as caught:
        load_config(tmp_path)
    assert caught.value.code == "E1001"
    assert "train" in caught.value.cause


def test_a_home_that_is_a_file_is_a_coded_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as caught:
        prepare_home(tmp_path / "file")
    assert caught.value.code == "E1004"


def test_a_home_is_for_its_owner_only(tmp_path: Path) -> None:
    home = prepare_home(tmp_path / "deep" / "home")
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


@pytest.mark.parametrize("text", ["", "x", "0", "70000", "-1"])
def test_a_damaged_port_is_forgotten(tmp_path: Path, text: str) -> None:
    assert remembered_port(tmp_path) == 0
    remember_port(tmp_path, 4433)
    assert remembered_port(tmp_path) == 4433
    (tmp_path / "port").write_text(text)
    assert remembered_port(tmp_path) == 0


@pytest.mark.parametrize("url", ["", "https://relay.example.com", "http://10.0.0.1:3340/", "https://[::1]:443/path"])
def test_a_relay_is_named_by_its_url(tmp_path: Path, url: str) -> None:
    (tmp_path / "config.toml").write_text(f'relay = "{url}"\n')
    assert load_config(tmp_path).relay == url


@pytest.mark.parametrize(
    "url",
    [
        "relay.example.com",
        "ftp://relay.example.com",
        "https://",
        "https://:443",
        "https://host:port",
        "https://h ost",
        "https://user:secret@host",
        "https://host?query",
        "https://host#part",
        "https://[::1",
        "https://" + "h" * 200,
    ],
)
def test_what_is_no_relay_is_said_before_the_node_starts(tmp_path: Path, url: str) -> None:
    (tmp_path / "config.toml").write_text(f'relay = "{url}"\n')
    with pytest.raises(UsageError) as wrong:
        load_config(tmp_path)
    assert wrong.value.code == "E1001"
    assert "relay" in wrong.value.what
