"""A node's home folder: `config.toml`, keys, stores, and the ticket by which machines join a pool.

HOME/config.toml      what the owner sets; every key is optional
HOME/keys/            node and account key, mode 0600 (adapters/keys.py)
HOME/blobs/ log.db ledger.db api.sock
HOME/network.txt      the ticket of the pool this node belongs to
HOME/port             the UDP port of the last start, so that others find the node again
"""

from __future__ import annotations

import base64
import errno
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from fallow.errors import fail
from fallow.kinds.registry import KINDS
from fallow.units import parse_money, parse_size
from fallow.wire.codec import decode, encode
from fallow.wire.documents import Address, Label
from fallow.wire.messages import NodeAddress

TICKET_PREFIX = "fallow1"
MAX_TICKET_BYTES = 2_000
MAX_RELAY_CHARS = 200
MAX_SETTING, MAX_PRICE_UCR = 1_000_000, 10**15
"""Nothing of a machine is counted higher; no thousand units of work cost more."""
LEAST_ROOM_BYTES = 1 << 20
"""Keys, logs and books of a node that has done nothing yet fit into this."""


class Ticket(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """All that a machine needs to join a pool: who keeps the books, who lists the offers, and a token that the bank
    takes as an invitation. Whoever holds a ticket can open accounts with the pool's welcome grant, as many as it
    has uses: treat it as a password."""

    bank: NodeAddress
    bank_account: Address
    directories: tuple[NodeAddress, ...]
    token: Label


def write_ticket(ticket: Ticket) -> str:
    """The ticket as one line of lower-case letters and digits."""
    return TICKET_PREFIX + base64.b32encode(encode(ticket)).decode().rstrip("=").lower()


def read_ticket(text: str) -> Ticket:
    """The inverse of `write_ticket`. Raises UsageError E1005 for anything that is no ticket."""
    body = text.strip().removeprefix(TICKET_PREFIX).upper()
    if not text.strip().startswith(TICKET_PREFIX) or len(body) > MAX_TICKET_BYTES:
        raise fail("E1005", "This is not a ticket.")
    try:
        raw = base64.b32decode(body + "=" * (-len(body) % 8))
    except ValueError as error:
        raise fail("E1005", "This ticket is damaged: it is not the whole line.") from error
    return decode(Ticket, raw, MAX_TICKET_BYTES)


def read_address(text: str) -> NodeAddress:
    """A node's address as `fallow up --json` prints it. Raises UsageError E1005 for anything else."""
    try:
        raw = base64.b32decode(text.strip().upper() + "=" * (-len(text.strip()) % 8))
    except ValueError as error:
        raise fail("E1005", "This is not a node's address.", cause="It is damaged, or not the whole line.") from error
    return decode(NodeAddress, raw, MAX_TICKET_BYTES)


@dataclass(frozen=True)
class ProviderConfig:
    """What the owner sells and when. `prices` is ucr per 1,000 units by kind of work; `idle` the rule for when the
    machine counts as idle ("always", or see docs/how-to/share-your-machine.md); limits of 0 mean all there is. `credit`
    is what may be worked for under a lease before it is paid, beside the task that is under way. `unboxed` lets
    strangers' work run with all the rights of this user."""

    prices: dict[str, int] = field(default_factory=lambda: {kind.name: kind.price_ucr for kind in KINDS.values()})
    idle: str = "always"
    cpus: float = 0
    ram: str = ""
    disk: str = "20G"
    threads: int = 0
    stake: str = "10"
    unboxed: bool = False
    credit: str = "0.05"


@dataclass(frozen=True)
class Config:
    """Everything that can be set. Defaults suit a person's own machine."""

    bind: str = "0.0.0.0:0"
    relay: str = ""
    region: str = ""
    quota: str = "50G"
    gateway_host: str = "127.0.0.1"
    gateway_port: int = 8790
    gateway_origins: tuple[str, ...] = ()
    """Web pages whose scripts may ask the gateway, as browsers name them ("https://chat.example.com"); "*" for all."""
    welcome: str = "20"
    """What a bank grants to a newcomer with a ticket, for work: it cannot be sent on."""
    ticket_uses: int = 100
    """How many accounts a bank's ticket opens."""
    open_to_all: bool = False
    """Whether a bank opens accounts, without a grant, to those who have no ticket."""
    purse: str = "1000"
    """What the founder of a pool has at first."""
    ledger: str = ""
    """Where a bank keeps its books: the URL of a PostgreSQL database; a SQLite file in the home when empty."""
    mdns: bool = True
    provider: ProviderConfig = field(default_factory=ProviderConfig)

    @property
    def quota_bytes(self) -> int:
        return parse_size(self.quota)


def _build(kind: type[Any], table: dict[str, Any], where: str) -> Any:
    known = {item.name: item for item in fields(kind)}
    for key in table:
        if key not in known:
            raise fail("E1001", f"{where}: there is no setting called {key!r}.", cause=f"Known: {', '.join(known)}.")
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise fail("E1001", f"{where}: {error}.") from error


def load_config(home: Path, settings: Mapping[str, Any] | None = None) -> Config:
    """Read HOME/config.toml, or the defaults when there is none; `settings` take the place of what it says. Raises
    UsageError E1001 for a file that is not TOML, an unknown key or kind of work, a value of the wrong type, a number
    that is negative, too large or none, an amount or size that cannot be read, or a relay that is no URL."""
    path = home / "config.toml"
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        table = dict[str, Any]()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise fail("E1001", f"{path} cannot be read: {error}.") from error
    table |= settings or {}
    if isinstance(provider := table.get("provider", {}), dict):
        _build(ProviderConfig, cast(dict[str, Any], provider), f"{path} [provider]")
    config: Config = _build(Config, table, str(path))
    if unknown := sorted(config.provider.prices.keys() - KINDS.keys()):
        what = f"{path} [provider.prices]: no kind of work is called {unknown[0]!r}."
        raise fail("E1001", what, cause=f"Known: {', '.join(KINDS)}.")
    try:
        for size in (config.quota, config.provider.disk, config.provider.ram):
            parse_size(size or "0")
        for amount in (config.welcome, config.purse, config.provider.stake, config.provider.credit):
            parse_money(amount)
    except ValueError as error:
        raise fail("E1001", f"{path}: {error}.") from error
    for name, value, most in _numbers(config):
        if not 0 <= value <= most:  # which NaN is not either
            raise fail("E1001", f"{path}: {name} is {value}.", cause=f"It must be from 0 to {most}.")
    wrong = relay_problem(config.relay)
    if wrong:
        cause = "A relay is named by its URL, as in https://relay.example.com."
        raise fail("E1001", f"{path}: relay {config.relay[:80]!r} {wrong}.", cause=cause)
    return config


def _numbers(config: Config) -> Iterator[tuple[str, float, int]]:
    """Every number of a configuration with the most that it may be."""
    provider = config.provider
    yield "gateway_port", config.gateway_port, 65_535
    yield "ticket_uses", config.ticket_uses, MAX_SETTING
    yield "provider.cpus", provider.cpus, MAX_SETTING
    yield "provider.threads", provider.threads, MAX_SETTING
    for kind, price in provider.prices.items():
        yield f"provider.prices.{kind}", price, MAX_PRICE_UCR


def relay_problem(url: str) -> str:
    """What is wrong with a relay's URL, in words; "" for a good one and for none. Whether anybody answers there is seen
    only when the node is up: iroh takes any URL and tries it again and again."""
    if not url:
        return ""
    try:
        found = urlsplit(url)
        host, _ = found.hostname, found.port
    except ValueError as error:
        return f"cannot be read: {error}"
    if found.scheme not in ("https", "http") or not host:
        return "is no http or https URL with a host"
    if found.username is not None or found.query or found.fragment or not url.isprintable() or " " in url:
        return "has more than a host, a port and a path"
    return "is longer than an address can hold" if len(url) > MAX_RELAY_CHARS else ""


def prepare_home(home: Path) -> Path:
    """Make the home folder with mode 0700. Raises UsageError E1004 when it cannot be made or used, UnavailableError
    E1603 when there is no room for a node's logs on its disk."""
    probe = home / ".writable"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe.write_bytes(bytes(LEAST_ROOM_BYTES))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise fail("E1603", f"The disk that holds {home} is full.", next_step="Make room on it.") from error
        raise fail("E1004", f"{home} cannot be used: {error.strerror}.") from error
    finally:
        with suppress(OSError):
            probe.unlink()
    return home


def remembered_port(home: Path) -> int:
    """The UDP port of the last start, 0 when there was none."""
    try:
        port = int((home / "port").read_text("ascii"))
    except (OSError, ValueError):
        return 0
    return port if 0 < port < 65536 else 0


def remember_port(home: Path, port: int) -> None:
    """Keep the port for the next start, so that addresses that others hold stay good."""
    (home / "port").write_text(str(port), "ascii")


def load_ticket(home: Path) -> Ticket | None:
    """The pool this home belongs to, or None."""
    try:
        return read_ticket((home / "network.txt").read_text("ascii"))
    except FileNotFoundError:
        return None


def save_ticket(home: Path, ticket: Ticket) -> None:
    """Join: remember the pool. The file is a secret, hence mode 0600 from its creation."""
    path = home / "network.txt"
    path.touch(mode=0o600)
    path.write_text(write_ticket(ticket) + "\n", "ascii")
