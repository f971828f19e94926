"""Check a receipt yourself: signatures, commitments, what was paid and how it was checked. Needs no network and no
trust in whoever gave it to you.

RECEIPT is a file, or the id of a receipt that your own node holds (only then is the node asked for it).
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from fallow.cli.output import Output
from fallow.cli.render import moment
from fallow.errors import fail
from fallow.sdk.client import AsyncFallow
from fallow.units import to_text
from fallow.wire.receipt_checks import Check, holds, verify
from fallow.wire.receipts import MAX_RECEIPT_BYTES, Receipt, read_receipt, receipt_id, work_units


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow verify RECEIPT...`."""
    parser.add_argument("receipts", nargs="+", metavar="RECEIPT", help="a file, or an id that starts with r_")


def run(args: argparse.Namespace, out: Output) -> int:
    """Print each check of each receipt, in JSON an object a line; exit 0 only if all of them hold. Raises RejectedError
    E1501 otherwise, after all were looked at."""
    wrong = [found for name in args.receipts if (found := _check(name, _load(name, args.home), out))]
    if wrong:
        raise fail("E1501", wrong[0])
    return 0


def _check(name: str, data: bytes, out: Output) -> str:
    """Show one receipt's checks; -> what is wrong with it, "" when it holds."""
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
    return f"{name} does not verify: {bad.name}: {bad.detail}." if bad else ""


def _load(name: str, home: str | None) -> bytes:
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
    return asyncio.run(AsyncFallow(home).receipt(name))


def _text(checks: list[Check], receipt: Receipt | None) -> str:
    lines = [f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<13} {check.detail}" for check in checks]
    if receipt is not None:
        what = f"{work_units(receipt)} units, {receipt.verdict}, checked by policy {receipt.policy!r}"
        lines += ["", f"The receipt holds. Made {moment(receipt.made_ms)}: {what}."]
        lines += [f"Note: {note}" for note in receipt.notes]
    return "\n".join(lines)
