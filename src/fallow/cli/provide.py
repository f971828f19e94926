"""Earn: let this machine work for a pool while it is idle, in the foreground, until Ctrl-C.

The first time, give the ticket that `fallow up` printed on the pool's machine; it is remembered. Your own use of the
machine comes first: see `idle` in the configuration. Each provider needs a home of its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fallow.cli.options import add_log
from fallow.cli.output import Output
from fallow.cli.up import start
from fallow.errors import FallowError, fail
from fallow.sdk.home import resolve_home


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow provide [TICKET]`."""
    parser.add_argument("ticket", nargs="?", metavar="TICKET", help="which pool to work for (remembered)")
    parser.add_argument(
        "--bind", metavar="HOST:PORT", default="", help="UDP address for other nodes (default: any port)"
    )
    add_log(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Run a provider until it is told to stop."""
    home = resolve_home(args.home)
    if args.ticket is None and not joined(home):
        raise _no_pool(home)
    args.port = None
    return start(home, frozenset({"provider"}), args, out)


def _no_pool(home: Path) -> FallowError:
    """Says which pools are near. To join one still takes its ticket: it is the invitation."""
    import asyncio

    from fallow.node.neighbours import near_pools

    near = asyncio.run(near_pools())
    names = "; ".join(f"{pool.bank} at {pool.places[0]}" for pool in near if pool.places)
    cause = f"Near you: {names}. Ask whoever runs it for the ticket." if names else "No pool was heard of on this LAN."
    return fail("E1005", f"{home} belongs to no pool yet.", cause=cause, next_step="fallow provide TICKET")


def joined(home: Path) -> bool:
    """Whether a pool is remembered."""
    return (home / "network.txt").exists()
