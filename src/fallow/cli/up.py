"""Start a node of your own, in the foreground, until Ctrl-C.

In an empty home it founds a pool: it keeps the books (bank), lists offers (directory), runs your jobs (steward) and
opens an OpenAI-compatible door (gateway). The ticket that it prints lets other machines in: `fallow provide TICKET`.
In a home that joined a pool (`fallow join TICKET`) it runs your jobs there, and the door.

  fallow up                      all of it, without selling this machine's time
  fallow up --provide            and sell it too
  fallow up --roles bank         only some roles; each can be a process with a home of its own
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fallow.cli.options import add_log, positive
from fallow.cli.output import Output
from fallow.cli.serve import DOOR
from fallow.errors import fail
from fallow.sdk.home import resolve_home, socket_path
from fallow.units import format_money, parse_money

if TYPE_CHECKING:
    from fallow.node.config import Config

ROLES = ("bank", "directory", "steward", "gateway", "provider")
FOUNDER, MEMBER = frozenset({"bank", "directory", "steward", "gateway"}), frozenset({"steward", "gateway"})


def options(parser: argparse.ArgumentParser) -> None:
    """Roles and addresses."""
    parser.add_argument("--provide", action="store_true", help="sell this machine's idle time too")
    parser.add_argument("--roles", metavar="A,B", type=roles, help=f"only these of: {', '.join(ROLES)}")
    parser.add_argument("--ticket", metavar="TICKET", help="join this pool instead of founding one")
    parser.add_argument("--directory", metavar="ADDRESS", action="append", help="a directory of the pool to be founded")
    parser.add_argument("--steward", metavar="HOME", type=Path, help="be only the door of the node in this home")
    parser.add_argument(
        "--bind", metavar="HOST:PORT", default="", help="UDP address for other nodes (default: any port)"
    )
    parser.add_argument("--port", metavar="N", type=int, help="TCP port of the OpenAI-compatible door (default 8790)")
    parser.add_argument("--welcome", metavar="CR", help="bank: what a newcomer may spend on work (default 20)")
    parser.add_argument(
        "--ticket-uses", metavar="N", type=positive, help="bank: accounts its ticket opens (default 100)"
    )
    add_log(parser)


def roles(text: str) -> frozenset[str]:
    """A comma-separated list of roles."""
    found = frozenset(word.strip() for word in text.split(",") if word.strip())
    if not found or not found <= set(ROLES):
        raise argparse.ArgumentTypeError(f"{text!r}: roles are {', '.join(ROLES)}")
    return found


def roles_for(home: Path, chosen: frozenset[str] | None, *, ticket: bool, provide: bool) -> frozenset[str]:
    """The roles that were asked for, or those that fit the home: a founder keeps the books, a member does not."""
    member = ticket or ((home / "network.txt").exists() and not _keeps_books(home))
    found = chosen or (MEMBER if member else FOUNDER)
    return found | {"provider"} if provide else found


def _keeps_books(home: Path) -> bool:
    from fallow.node.config import load_config

    return (home / "ledger.db").exists() or bool(load_config(home).ledger)


def run(args: argparse.Namespace, out: Output) -> int:
    """Run the node until it is told to stop."""
    home = resolve_home(args.home)
    if args.steward is not None:
        return _only_door(home, resolve_home(args.steward), args, out)
    return start(home, roles_for(home, args.roles, ticket=bool(args.ticket), provide=args.provide), args, out)


def start(home: Path, chosen: frozenset[str], args: argparse.Namespace, out: Output) -> int:
    """Run a node with these roles. Raises UsageError E1001, E1004, E1005 or E1807, UnavailableError E1804."""
    from fallow.node.app import Options, quiet_logs, run_node  # only a node needs a node's libraries
    from fallow.node.config import load_config, prepare_home, read_address, read_ticket
    from fallow.node.local_socket import lock_home

    _answer_at_once()
    quiet_logs(args.log)
    logging.captureWarnings(True)
    said = {name: getattr(args, name, None) for name in ("welcome", "ticket_uses")}
    settings = {name: value for name, value in said.items() if value is not None}
    config = load_config(prepare_home(home), settings)
    with lock_home(home):  # a node that runs here already is better news than its port being taken
        pass
    ticket = read_ticket(args.ticket) if args.ticket else None
    directories = tuple(read_address(text) for text in getattr(args, "directory", None) or ())
    with ExitStack() as stack:
        beside, url = None, ""
        if "gateway" in chosen:
            beside, url = _door(home, config, args, stack)

        def ready(about: dict[str, str]) -> None:
            _announce(home, chosen, about, url, out)
            if "provider" in chosen:
                out.say(for_sale(home, config))

        out.say(f"Starting a node in {home} ({', '.join(sorted(chosen))})...")
        options = Options(
            chosen - {"gateway"}, ticket, directories, bind=args.bind, beside=beside, ready=ready, settings=settings
        )
        asyncio.run(run_node(home, options))
    out.say(farewell(chosen))
    return 0


def _answer_at_once() -> None:
    """Before there are threads, which all take after this one: what this process says is waited for, and its workers
    compute on the same cores. It may also open as many files and connections as the system lets it."""
    from fallow.adapters.runners.leash import SHORT_TURN_NS, ask_for_turns

    ask_for_turns(SHORT_TURN_NS)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(OSError, ValueError):  # many shells allow 1,024 unless a program asks for more
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def for_sale(home: Path, config: Config) -> str:
    """What a provider puts on offer, and what it puts at stake for that."""
    prices = ", ".join(f"{kind} {format_money(price)}" for kind, price in config.provider.prices.items())
    stake = format_money(parse_money(config.provider.stake))
    mine = "" if home == resolve_home() else f" --home {home}"
    return (
        f"For sale:        {prices} per 1,000 units, while the machine is idle (rule: {config.provider.idle})\n"
        f"At stake:        {stake} of this account's; only wrong results cost it\n"
        f"Change both in:  {home / 'config.toml'}\n"
        f"What it earns:   fallow wallet{mine}"
    )


def farewell(chosen: frozenset[str]) -> str:
    """What is left after the node has stopped."""
    lines = ["The node has stopped. Nothing of it is running."]
    if "steward" in chosen:
        lines.append("Jobs go on when it starts again; until then providers finish what they were given.")
    if "provider" in chosen:
        lines.append(
            "What ran here moves to other providers. Your stake stays until you take it out (fallow wallet unbond)."
        )
    return "\n".join(lines)


def _only_door(home: Path, steward: Path, args: argparse.Namespace, out: Output) -> int:
    """The gateway alone, in front of the node of another home on this machine, until SIGINT or SIGTERM."""
    from fallow.node.app import quiet_logs
    from fallow.node.config import load_config, prepare_home

    _answer_at_once()
    quiet_logs(args.log)
    config = load_config(prepare_home(home))
    with ExitStack() as stack:
        beside, url = _door(home, config, args, stack)

        async def serve() -> None:
            stop, loop = asyncio.Event(), asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop.set)
            async with asyncio.TaskGroup() as group:
                door = group.create_task(beside(socket_path(steward)), name="gateway")
                _announce(home, frozenset({"gateway"}), {}, url, out)
                await stop.wait()
                door.cancel()

        asyncio.run(serve())
    out.say(f"The door is closed. The node in {steward} goes on.")
    return 0


Beside = Callable[[Path], Coroutine[None, None, None]]


def _door(home: Path, config: Config, args: argparse.Namespace, stack: ExitStack) -> tuple[Beside, str]:
    """The gateway to run beside the node and its URL, on a port claimed now: a taken one fails before anything has
    started. The URL is noted in the home for `fallow serve`."""
    from fallow.gateway.server import claim_port, run_gateway

    host, port = config.gateway_host, config.gateway_port if args.port is None else args.port
    if not 0 <= port < 65536:
        raise fail("E2001", f"{port} is no port.", next_step="Choose --port from 1 to 65535.")
    listener = stack.enter_context(claim_port(host, port))
    shown = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound
    url = f"http://{shown}:{listener.getsockname()[1]}/v1"
    (home / DOOR).write_text(url + "\n", "utf-8")

    async def beside(steward_socket: Path) -> None:
        await run_gateway(steward_socket, listener, config.gateway_origins)

    return beside, url


def _announce(home: Path, chosen: frozenset[str], about: dict[str, str], door: str, out: Output) -> None:
    ticket = about.get("ticket", "")
    answer: dict[str, Any] = {
        "ready": True,
        "home": str(home),
        "roles": sorted(chosen),
        "ticket": ticket,
        "base_url": door,
        "pid": os.getpid(),
        **about,
    }
    lines = ["The node is up. Ctrl-C stops it."]
    if door:
        lines.append(f"OpenAI door:     {door}")
    if ticket and "bank" in chosen:
        lines.append(f"Others join by:  fallow provide {ticket}")
        lines.append("The ticket is a password: it opens accounts with a small grant. Keep this terminal open.")
    out.data(answer, "\n".join(lines))
