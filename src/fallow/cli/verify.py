"""Check a receipt yourself: signatures, commitments, what was paid, how it was checked, and that a bank you know stands
behind it. Needs no network and no trust in whoever gave it to you.

RECEIPT is a file, the id of a receipt that your own node holds (only then is the node asked for it), or the id of a job
of yours, which stands for all its receipts.

A receipt holds against an anchor: the bank of the pool that this home belongs to, or the one that --bank names. Anybody
can invent keys, a bank and auditors; without an anchor the answer is "not anchored" (exit code 6), whatever the file
says. One that lacks evidence, as those of before do, is "incomplete" (6, too), and says what it lacks.

With --replay a sample of the work is done again on this machine, in the same kind of process that a provider uses, and
compared with what the provider signed. Nothing is bought. What it starts from comes from your own node and from the
job's providers; every piece is known by its hash. Of a training round in exact arithmetic two links are drawn now, or
as many as you say; a finishing task or an exact answer is done again whole. The output says what was not checked, and
how likely a cheat would have been found.

  fallow verify a.receipt --bank 0x5fbc1d3e70a2946b8c1f0d2e4a6b8c9d0e1f2a3b
  fallow verify r_3f9a --replay --links 8
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from fallow.cli import replay
from fallow.cli.output import Output
from fallow.cli.render import moment
from fallow.errors import FallowError, fail
from fallow.node.config import load_ticket, read_ticket
from fallow.rules.steward.proof import Anchor, Proof, prove
from fallow.sdk.client import AsyncFallow
from fallow.sdk.home import resolve_home
from fallow.units import to_text
from fallow.wire.receipts import MAX_RECEIPT_BYTES, receipt_id, work_units

ACCOUNT_BYTES = 20


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow verify RECEIPT... [--replay]`."""
    parser.add_argument("receipts", nargs="+", metavar="RECEIPT", help="a file, or an id that starts with r_ or j_")
    words = "the bank to believe: 0xACCOUNT, or a ticket of its pool (default: this home's)"
    parser.add_argument("--bank", metavar="BANK", type=_bank, help=words)
    replay.options(parser)


def _bank(text: str) -> Anchor:
    """An account, or that of a ticket's bank."""
    digits = text.strip().removeprefix("0x")
    try:
        account = bytes.fromhex(digits) if len(digits) == 2 * ACCOUNT_BYTES else read_ticket(text).bank_account
    except (ValueError, FallowError):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is neither a bank's 0xACCOUNT nor a ticket") from None
    return Anchor(account, "the bank that --bank names")


def _anchor(args: argparse.Namespace) -> Anchor | None:
    """What --bank says, else the bank of this home's pool."""
    ticket = None if args.bank else load_ticket(resolve_home(args.home))
    return Anchor(ticket.bank_account, "the bank of this home's pool") if ticket is not None else args.bank


def run(args: argparse.Namespace, out: Output) -> int:
    """Print each check of each receipt, and with --replay what doing it again gave, in JSON an object a line each; exit
    0 only if all of them hold and agree. Raises RejectedError E1501, PeerFault E1503, UnprovenError E1505 or E1506, or
    what kept it from being done again, after all were looked at."""
    if not args.replay and any(getattr(args, name) for name in ("links", "model", "adapter", "data", "seed")):
        raise fail("E2001", "--links, --model, --adapter, --data and --seed say how to replay.", next_step="--replay")
    troubles = asyncio.run(_run(args, out))
    if troubles:
        raise min(troubles, key=lambda error: _WORST.index(error.code) if error.code in _WORST else len(_WORST))
    return 0


async def _run(args: argparse.Namespace, out: Output) -> list[FallowError]:
    """-> everything that went wrong."""
    seed, troubles, anchor = replay.draw_seed(args), list[FallowError](), _anchor(args)
    names = [one for given in args.receipts for one in await _names(given, args.home)]
    async with replay.bench(args) as bench:
        for name in names:
            data = await _load(name, args.home)
            found = prove(data, anchor)
            out.data(_data(data, found, anchor), _text(found))
            trouble = _trouble(name, found)
            if bench is not None and found.outcome != "fails":
                trouble = await replay.redo(bench, args, out, name, data, seed) or trouble
            if trouble is not None:
                troubles.append(trouble)
    return troubles


_WORST = ("E1501", "E1503", "E1505", "E1506")
"""What is told at the end when several things went wrong; else the first."""


async def _names(given: str, home: str | None) -> list[str]:
    """The receipts of a job; anything else is a receipt itself."""
    if not given.startswith("j_") or Path(given).expanduser().exists():
        return [given]
    async with AsyncFallow(home) as client:
        return [to_text("receipt", one) for one in await (await client.job(given)).receipts()]


def _data(data: bytes, found: Proof, anchor: Anchor | None) -> dict[str, Any]:
    receipt, who = found.receipt, found.accounts
    return {
        "receipt": to_text("receipt", receipt_id(data)),
        "ok": found.outcome == "holds",
        "outcome": found.outcome,
        "anchor": {"bank": f"0x{anchor.bank.hex()}", "source": anchor.source} if anchor else None,
        "checks": [{"name": row.name, "ok": row.ok, "detail": row.detail} for row in found.checks],
        "lacks": list(found.lacks),
        "proven": found.proven,
        "by": found.by,
        "not_proven": found.unproven,
        "bank": f"0x{who.bank.hex()}" if who else "",
        "requester": f"0x{who.requester.hex()}" if who else "",
        "provider": f"0x{who.provider.hex()}" if who else "",
        "auditors": [f"0x{account.hex()}" for account in who.auditors] if who else [],
        "job": to_text("job", receipt.job) if receipt else "",
        "verdict": receipt.verdict if receipt else "",
        "policy": receipt.policy if receipt else "",
        "units": work_units(receipt) if receipt else 0,
    }


def _trouble(name: str, found: Proof) -> FallowError | None:
    """What keeps a receipt from holding."""
    match found.outcome:
        case "holds":
            return None
        case "fails":
            bad = next(check for check in found.checks if not check.ok and not check.missing)
            return fail("E1501", f"{name} does not verify: {bad.name}: {_plain(bad.detail)}.")
        case "not anchored":
            return fail("E1505", f"{name} is not anchored: {found.lacks[0]}.")
        case "incomplete":
            return fail("E1506", f"{name} is incomplete: {_plain('; '.join(found.lacks))}.")


async def _load(name: str, home: str | None) -> bytes:
    path = Path(name).expanduser()
    if path.is_file():
        try:
            if path.stat().st_size > MAX_RECEIPT_BYTES:
                raise fail("E1501", f"{path.name} is too large to be a receipt.")
            return path.read_bytes()
        except OSError as error:
            raise fail("E2003", f"{path} cannot be read: {error.strerror}.") from error
    if path.exists() or "/" in name or "." in name:
        raise fail("E2003", f"{name} is no file.")
    return await AsyncFallow(home).receipt(name)


_ENDS = {
    "holds": "The receipt holds.",
    "incomplete": "INCOMPLETE: nothing is wrong, and not all is shown.",
    "not anchored": "NOT ANCHORED: whose bank this is, you have to know from elsewhere. Name it with --bank.",
    "fails": "The receipt DOES NOT VERIFY.",
}


def _text(found: Proof) -> str:
    lines = [
        f"{'ok  ' if check.ok else 'LACK' if check.missing else 'FAIL'}  {check.name:<13} {check.detail}"
        for check in found.checks
    ]
    lines += ["", _ENDS[found.outcome]]
    if (receipt := found.receipt) is not None:
        what = f"{work_units(receipt)} units, {receipt.verdict}, checked by policy {receipt.policy!r}"
        lines += [f"Made {moment(receipt.made_ms)}: {what}."]
        lines += [f"Note: {note}" for note in receipt.notes]
        lines += ["", f"Proven: {found.proven}", f"By: {found.by}", f"Not proven: {found.unproven}"]
    return "\n".join(map(_plain, lines))


def _plain(text: str) -> str:
    """One line, whatever a stranger wrote into it: nothing that moves the cursor, or turns the direction of writing."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
