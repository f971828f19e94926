"""Your credits: see them, put some up as stake, take stake out, send some, or (for a pool's operator) grant new ones.

fallow wallet                          show all balances
fallow wallet deposit 5                move 5 cr into stake
fallow wallet unbond 5                 take stake out; it stays slashable for the pool's unbonding time
fallow wallet transfer 5 0xACCOUNT     send
fallow wallet grant 5 0xACCOUNT        create credits (the pool's operator only)
fallow wallet appeal LEASE             say no to what is charged under a lease of yours; the pool's referee decides
fallow wallet rule LEASE overturned    decide that (the pool's referee only), or "upheld"
"""

from __future__ import annotations

import argparse

from fallow.cli.options import add_yes, money
from fallow.cli.output import Output
from fallow.cli.render import data_of, wallet_text
from fallow.errors import fail
from fallow.sdk.client import AsyncFallow
from fallow.units import Ucr, format_money, from_text, to_text

ACTIONS = ("deposit", "unbond", "transfer", "grant", "appeal", "rule")


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow wallet [ACTION AMOUNT [ACCOUNT]]`."""
    parser.add_argument("action", nargs="?", choices=ACTIONS, help="what to do (default: show all balances)")
    parser.add_argument("what", nargs="?", metavar="AMOUNT|LEASE", help="in credits; or the lease that is charged")
    parser.add_argument("to", nargs="?", metavar="ACCOUNT|RULING", help="0x and 40 hex digits; or upheld, overturned")
    add_yes(parser)


async def run(args: argparse.Namespace, out: Output) -> None:
    """Move money or answer a charge if asked to, then show the balances."""
    lease, answer = _answer(args)
    amount, to = (money("0"), b"") if answer else _transfer(args)
    async with AsyncFallow(args.home) as client:
        if args.action is not None:
            await client.wallet()  # nobody is asked before a node answers
            what = to_text("lease", lease)[:14] if answer else format_money(amount)
            where = f" to {args.to}" if args.to and not answer else f": {answer}" if args.to else ""
            out.confirm(f"{args.action.capitalize()} {what}{where}?", yes=args.yes)
            if answer:
                await client.answer_charge(lease, answer)
            else:
                await client.move_money(args.action, format_money(amount), to)
        wallet = await client.wallet()
        out.data(data_of(wallet), wallet_text(wallet))


def _answer(args: argparse.Namespace) -> tuple[bytes, str]:
    """The lease and what is said to its charge; "" for a move of money. Raises UsageError E2001 or E1003."""
    rulings = {"appeal": {None: "appeal"}, "rule": {"upheld": "upheld", "overturned": "overturned"}}
    if (said := rulings.get(args.action)) is None:
        return b"", ""
    if args.to not in said:
        words = 'and "upheld" or "overturned"' if args.action == "rule" else "and no more"
        raise fail("E2001", f"fallow wallet {args.action} takes a lease, {words}.")
    try:
        lease = from_text("lease", args.what or "")
    except ValueError:
        lease = b""
    if len(lease) != 32:
        raise fail("E1003", f"{args.what!r} is not a lease.", next_step="Write l_ and 64 hex digits.")
    return lease, said[args.to]


def _transfer(args: argparse.Namespace) -> tuple[Ucr, bytes]:
    """How much and to whom; checks that the words fit each other. Raises UsageError E2001, E1002 or E1003."""
    if args.action is None:
        return money("0"), b""
    amount = money(args.what or "0")
    if not amount:
        raise fail("E2001", f"fallow wallet {args.action} needs an amount above 0.")
    if (args.to is not None) != (args.action in ("transfer", "grant")):
        raise fail("E2001", f"fallow wallet {args.action} {'takes no' if args.to else 'needs an'} account.")
    try:
        account = from_text("account", args.to or "")
    except ValueError:
        account = b"?"
    if len(account) != (20 if args.to else 0):
        raise fail("E1003", f"{args.to!r} is not an account.", next_step="Write 0x and 40 hex digits.")
    return amount, account
