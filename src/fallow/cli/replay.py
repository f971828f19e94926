"""`fallow verify --replay`: what is done again, said in words, and the evidence when it differs."""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from fallow.cli.options import existing_path, positive, seconds
from fallow.cli.output import Output
from fallow.errors import FallowError, fail
from fallow.units import format_money, to_text
from fallow.wire.codec import decode
from fallow.wire.documents import Settlement, Voucher
from fallow.wire.receipts import Receipt, receipt_id

if TYPE_CHECKING:
    from fallow.kinds.replay import ReplayPlan, Report
    from fallow.node.replay import Done, ReplayBench

SEED_BYTES = 32


def options(parser: argparse.ArgumentParser) -> None:
    """`--replay` and what belongs to it."""
    how = parser.add_argument_group("do it again")
    how.add_argument(
        "--replay", action="store_true", help="do a sample of the work again on this machine; buys nothing"
    )
    how.add_argument("--links", metavar="N", type=_links, help="how many links of a round, or all (default 2)")
    how.add_argument("--model", metavar="PATH", type=existing_path, help="the model, where your node does not hold it")
    how.add_argument("--adapter", metavar="PATH", type=existing_path, help="the adapter, likewise")
    how.add_argument("--data", metavar="FILE", type=existing_path, help="the training data, likewise")
    how.add_argument("--seed", metavar="HEX", type=_seed, help="draw the links that this seed drew before")
    how.add_argument("--timeout", metavar="TIME", type=seconds, default=24 * 3600, help="give up after (default 24h)")


def _links(text: str) -> int:
    """A number of links; "all" is more than any round has."""
    from fallow.rules.replay import ALL_LINKS

    return ALL_LINKS if text == "all" else min(positive(text), ALL_LINKS)


def _seed(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if not 1 <= len(found) <= SEED_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: write up to 64 hexadecimal digits")
    return found


def draw_seed(args: argparse.Namespace) -> bytes:
    """What decides which links are done again: the owner's choice, or chance, now that the work is done."""
    from fallow.adapters.clock import SystemEntropy

    return args.seed or SystemEntropy().draw(SEED_BYTES)


@asynccontextmanager
async def bench(args: argparse.Namespace) -> AsyncGenerator[ReplayBench | None]:
    """Where `redo` does it; None without --replay."""
    if not args.replay:
        yield None
        return
    from fallow.adapters.clock import SystemClock
    from fallow.adapters.machine import ThisMachine
    from fallow.adapters.runners.process import ProcessRunner
    from fallow.node.replay import ReplayBench
    from fallow.sdk.client import AsyncFallow

    async with ReplayBench(AsyncFallow(args.home), ProcessRunner(), ThisMachine(SystemClock())) as opened:
        yield opened


async def redo(
    at: ReplayBench, args: argparse.Namespace, out: Output, name: str, data: bytes, seed: bytes
) -> FallowError | None:
    """Do the work of a receipt that holds again and say what came of it; -> the error that the command ends with, None
    when all of it agrees. Raises nothing of its own: what cannot be done again is an answer, too."""
    from fallow.kinds.replay import NoReplay
    from fallow.rules.replay import DEFAULT_LINKS, plan, report
    from fallow.wire.receipts import read_receipt

    receipt, text = read_receipt(data), to_text("receipt", receipt_id(data))
    found = plan(receipt, args.links or DEFAULT_LINKS, blake3(seed + receipt_id(data)).digest())
    try:
        if isinstance(found, NoReplay):
            raise fail(found.code, found.what, next_step=found.next_step)
        done = await _run(at, args, out, data, found)
    except FallowError as error:
        error.money = f"Nothing was bought by this. {_money(receipt)}"
        out.data(
            {"receipt": text, "replay": {"agrees": None, "error": error.details()}}, f"Not done again: {error.what}"
        )
        return error
    found = done.plan
    words = report(found)
    evidence = _write_evidence(name, data, found, done, words, seed) if done.differences else None
    out.data({"receipt": text, "replay": _data(found, done, words, seed, evidence)}, _text(found, done, words, seed))
    return _accusation(name, receipt, found, done, evidence) if done.differences else None


async def _run(at: ReplayBench, args: argparse.Namespace, out: Output, data: bytes, found: ReplayPlan) -> Done:
    from fallow.node.replay import Given

    paths = {name: getattr(args, name) for name in ("model", "adapter", "data") if getattr(args, name) is not None}
    with out.progress("replay") as bar:
        return await at.replay(data, found, Given(paths, args.timeout), bar.update)


# what is said ---------------------------------------------------------------------------------------------------------


def _data(found: ReplayPlan, done: Done, words: Report, seed: bytes, evidence: Path | None) -> dict[str, Any]:
    return {
        "agrees": not done.differences,
        "redone": words.redone,
        "links": list(found.drawn),
        "links_of_round": found.links,
        "tokens": found.tokens,
        "not_checked": list(words.not_checked),
        "proves": words.proves if not done.differences else "",
        "odds": words.odds,
        "differences": [row._asdict() for row in done.differences],
        "evidence": str(evidence or ""),
        "kept": str(done.kept or ""),
        "seed": seed.hex(),
        "cost_ucr": 0,
    }


def _text(found: ReplayPlan, done: Done, words: Report, seed: bytes) -> str:
    lines = [f"Done again on this machine, at no cost: {words.redone}."]
    if done.differences:
        lines.append("It DIFFERS from what the provider signed:")
        for row in done.differences[:8]:
            lines.append(f"  {row.where}: claimed {_short(row.expected)}, found {_short(row.found)}")
        if len(done.differences) > 8:
            lines.append(f"  and {len(done.differences) - 8} more")
    else:
        lines.append("It agrees: everything is what the provider signed.")
    lines.append(f"Not checked: {'; '.join(words.not_checked)}.")
    if not done.differences:
        lines.append(f"What that proves: {words.proves}")
    if len(found.drawn) < found.links:
        lines.append(f"Drawn after the work was done; the same again with --seed {seed.hex()}")
    return "\n".join(lines)


def _short(value: str) -> str:
    return value if len(value) <= 40 else f"{value[:37]}..."


def _money(receipt: Receipt) -> str:
    """Where the money of the work is, as far as the receipt tells."""
    promised = decode(Voucher, receipt.voucher.body).cumulative_ucr if receipt.voucher is not None else 0
    if receipt.settlement is not None:
        bank = decode(Settlement, receipt.settlement.body)
        if bank.closed_ms:
            paid, back = format_money(bank.paid_ucr), format_money(bank.refunded_ucr)
            return f"The lease is settled: {paid} was paid, {back} came back."
    return f"The lease is not settled: {format_money(promised)} of its escrow is promised."


def _accusation(name: str, receipt: Receipt, found: ReplayPlan, done: Done, evidence: Path | None) -> FallowError:
    """E1503 for a difference."""
    settled = receipt.settlement is not None and bool(decode(Settlement, receipt.settlement.body).closed_ms)
    all_done = len(found.drawn) == found.links
    step = f"fallow verify {name} --replay --links all   # what else is false"
    if not settled:
        step = f"fallow cancel {to_text('job', receipt.job)[:12]}   # what is not final yet is not paid"
    elif all_done:
        step = f"Keep {evidence} and {done.kept}: anybody can do it again from them."
    cause = f"The provider did not compute what it signed for. Evidence: {evidence}; what it started from: {done.kept}."
    if not found.names_inputs:
        cause = f"The answer is not this model's, or this was not the model that was served. Evidence: {evidence}."
    what = f"{name}: {done.differences[0].where} is not what the provider signed."
    return fail("E1503", what, cause=cause, money=f"Nothing was bought by this. {_money(receipt)}", next_step=step)


def _write_evidence(name: str, data: bytes, found: ReplayPlan, done: Done, words: Report, seed: bytes) -> Path:
    """All that somebody else needs to find the same, beside the receipt or, where nobody may write there, with the
    inputs."""
    assert done.kept is not None, "inputs are kept when something differs"
    text = to_text("receipt", receipt_id(data))
    body = {
        "receipt": text,
        "redone": words.redone,
        "links": list(found.drawn),
        "seed": seed.hex(),
        "differences": [row._asdict() for row in done.differences],
        "started_from": [{"name": part.name, "blob": to_text("blob", part.blob)} for part in done.inputs],
        "kept": str(done.kept),
    }
    (done.kept / f"{text}.receipt").write_bytes(data)
    beside = Path(name).expanduser()
    beside = beside if beside.is_file() else Path.cwd() / text
    for path in (beside.with_name(f"{beside.name}.evidence.json"), done.kept / "evidence.json"):
        try:
            path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", "utf-8")
        except OSError:
            continue
        return path
    raise fail("E1603", f"The evidence cannot be written to {done.kept}.")
