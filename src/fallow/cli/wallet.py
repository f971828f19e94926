"""Your credits: see them, put some up as stake, take stake out, send some, or (for a pool's operator) grant new ones.

fallow wallet                          show all balances
fallow wallet deposit 5                move 5 cr into stake
fallow wallet unbond 5                 take stake out; it stays slashable for the pool's unbonding time
fallow wallet transfer 5 0xACCOUNT     send
fallow wallet grant 5 0xACCOUNT        create credits (the pool's operator only)
"""

from __future__ import annotations

import argparse

from fallow.cli.options import add_yes, money
from fallow.cli.output import Output
from fallow.cli.render import data_of, wallet_text
from fallow.errors import fail
from fallow.sdk.client import AsyncFallow
from fallow.units import format_money, from_text

ACTIONS = ("deposit", "unbond", "transfer", "grant")


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow wallet [ACTION AMOUNT [ACCOUNT]]`."""
    parser.add_argument("action", nargs="?", choices=ACTIONS, help="what to do (default: show all balances)")
    parser.add_argument("amount", nargs="?", type=money, metavar="AMOUNT", help="in credits")
    parser.add_argument("to", nargs="?", metavar="ACCOUNT", help="0x and 40 hex digits")
    add_yes(parser)


async def run(args: argparse.Namespace, out: Output) -> None:
    """Move money if asked to, then show the balances."""
    to = _account(args)
    async with AsyncFallow(args.home) as client:
        if args.action is not None:
            where = f" to {args.to}" if args.to else ""
            await client.wallet()  # nobody is asked before a node answers
            out.confirm(f"{args.action.capitalize()} {format_money(args.amount)}{where}?", yes=args.yes)
            await client.move_money(args.action, format_money(args.amount), to)
        wallet = await client.wallet()
        out.data(data_of(wallet), wallet_text(wallet))


def _account(args: argparse.Namespace) -> bytes:
    """Check that the words fit each other. Raises UsageError E2001 or E1003."""
    if args.action is None:
        return b""
    if args.amount is None or args.amount == 0:
        raise fail("E2001", f"fallow wallet {args.action} needs an amount above 0.")
    if (args.to is not None) != (args.action in ("transfer", "grant")):
        raise fail("E2001", f"fallow wallet {args.action} {'takes no' if args.to else 'needs an'} account.")
    try:
        account = from_text("account", args.to or "")
    except ValueError:
        account = b"?"
    if len(account) != (20 if args.to else 0):
        raise fail("E1003", f"{args.to!r} is not an account.", next_step="Write 0x and 40 hex digits.")
    return account
