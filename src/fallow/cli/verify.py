"""Check a receipt yourself: signatures, commitments, what was paid and how it was checked. Needs no network and no
trust in whoever gave it to you.

RECEIPT is a file, the id of a receipt that your own node holds (only then is the node asked for it), or the id of a job
of yours, which stands for all its receipts.

With --replay a sample of the work is done again on this machine, in the same kind of process that a provider uses, and
compared with what the provider signed. Nothing is bought. What it starts from comes from your own node and from the
job's providers; every piece is known by its hash. Of a training round in exact arithmetic two links are drawn now, or
as many as you say; a finishing task or an exact answer is done again whole. The output says what was not checked, and
how likely a cheat would have been found.

  fallow verify r_3f9a --replay --links 8
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from fallow.cli import replay
from fallow.cli.output import Output
from fallow.cli.render import moment
from fallow.errors import FallowError, fail
from fallow.rules.steward.checks.registry import PolicyError, parse
from fallow.sdk.client import AsyncFallow
from fallow.units import to_text
from fallow.wire.receipt_checks import ReceiptCheck, holds, verify
from fallow.wire.receipts import MAX_RECEIPT_BYTES, Receipt, read_receipt, receipt_id, work_units


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow verify RECEIPT... [--replay]`."""
    parser.add_argument("receipts", nargs="+", metavar="RECEIPT", help="a file, or an id that starts with r_ or j_")
    replay.options(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Print each check of each receipt, and with --replay what doing it again gave, in JSON an object a line each; exit
    0 only if all of them hold and agree. Raises RejectedError E1501, PeerFault E1503, or what kept it from being done
    again, after all were looked at."""
    if not args.replay and any(getattr(args, name) for name in ("links", "model", "adapter", "data", "seed")):
        raise fail("E2001", "--links, --model, --adapter, --data and --seed say how to replay.", next_step="--replay")
    troubles = asyncio.run(_run(args, out))
    if troubles:
        raise min(troubles, key=lambda error: _WORST.index(error.code) if error.code in _WORST else len(_WORST))
    return 0


async def _run(args: argparse.Namespace, out: Output) -> list[FallowError]:
    """-> everything that went wrong."""
    seed, troubles = replay.draw_seed(args), list[FallowError]()
    names = [one for given in args.receipts for one in await _names(given, args.home)]
    async with replay.bench(args) as bench:
        for name in names:
            data = await _load(name, args.home)
            trouble = _check(name, data, out)
            if trouble is None and bench is not None:
                trouble = await replay.redo(bench, args, out, name, data, seed)
            if trouble is not None:
                troubles.append(trouble)
    return troubles


_WORST = ("E1501", "E1503")
"""What is told at the end when several things went wrong; else the first."""


async def _names(given: str, home: str | None) -> list[str]:
    """The receipts of a job; anything else is a receipt itself."""
    if not given.startswith("j_") or Path(given).expanduser().exists():
        return [given]
    async with AsyncFallow(home) as client:
        return [to_text("receipt", one) for one in await (await client.job(given)).receipts()]


def _check(name: str, data: bytes, out: Output) -> FallowError | None:
    """Show one receipt's checks; -> what is wrong with it."""
    checks = verify(data)
    good = holds(checks)
    receipt = read_receipt(data) if good else None
    answer = {
        "receipt": to_text("receipt", receipt_id(data)),
        "ok": good,
        "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks],
        "job": to_text("job", receipt.job) if receipt else "",
        "verdict": receipt.verdict if receipt else "",
        "units": work_units(receipt) if receipt else 0,
    }
    out.data(answer, _text(checks, receipt))
    bad = next((check for check in checks if not check.ok), None)
    return fail("E1501", f"{name} does not verify: {bad.name}: {bad.detail}.") if bad else None


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


def _words(receipt: Receipt) -> list[str]:
    """What the check that was ordered proves, and what it does not."""
    check = parse(receipt.policy)
    if isinstance(check, PolicyError):
        return [f"What the check is worth cannot be said: {check.what}."]
    return [f"That it was checked by {check.name} proves {check.proves}.", f"What it leaves open: {check.leaves_open}."]


def _text(checks: list[ReceiptCheck], receipt: Receipt | None) -> str:
    lines = [f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<13} {check.detail}" for check in checks]
    if receipt is not None:
        what = f"{work_units(receipt)} units, {receipt.verdict}, checked by policy {receipt.policy!r}"
        lines += ["", f"The receipt holds. Made {moment(receipt.made_ms)}: {what}."]
        lines += [f"Note: {note}" for note in receipt.notes]
        lines += ["", *_words(receipt)]
    return "\n".join(lines)
