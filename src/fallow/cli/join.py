"""Remember the pool that a ticket leads to. Afterwards `fallow up` runs your jobs there, `fallow provide` earns there.

A home belongs to one pool: keys, stake and balances are that pool's. For another pool take another --home.
"""

from __future__ import annotations

import argparse

from fallow.cli.output import Output
from fallow.errors import fail
from fallow.node.config import load_ticket, prepare_home, read_ticket, save_ticket
from fallow.sdk.home import resolve_home
from fallow.units import to_text


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow join TICKET`."""
    parser.add_argument("ticket", metavar="TICKET", help="one long line that starts with fallow1")


def run(args: argparse.Namespace, out: Output) -> int:
    """Check the ticket and keep it. Raises UsageError E1005 for what is no ticket or leads elsewhere than before."""
    ticket = read_ticket(args.ticket)
    home = prepare_home(resolve_home(args.home))
    before = load_ticket(home)
    if before is not None and before.bank_account != ticket.bank_account:
        raise fail("E1005", f"{home} belongs to another pool.", next_step="Choose another --home.")
    save_ticket(home, ticket)
    bank = to_text("account", ticket.bank_account)
    out.data(
        {"home": str(home), "bank": bank}, f"{home} now belongs to pool {bank}.\nNext: fallow up, or fallow provide"
    )
    return 0
