"""Fine-tune a model on your text, on machines that you need not trust.

MODEL is a folder in Hugging Face's layout or a GGUF file; DATA is a file or folder of text, JSON, CSV or Parquet:
chats, questions and answers, texts (docs/reference/data.md). Both are checked, and what was read is shown, before
anything is spent. Each round every worker trains on its own share and sends a small update; a sample
of the work is done again elsewhere, and who cheats is not paid. The result is an adapter (lora) or a model (full).

  fallow train --model ./SmolLM2 --data notes.txt --budget 2 --workers 4 --out tuned/
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from fallow.cli.data import check_data, read_data
from fallow.cli.models import trainable
from fallow.cli.options import add_job_terms, existing_path, positive
from fallow.cli.output import Output
from fallow.cli.spending import dry_run, end_of, submit, terms_of
from fallow.data.carry import portable
from fallow.errors import fail
from fallow.sdk.client import AsyncFallow
from fallow.wire.tasks import Recipe

DEFAULTS = Recipe(method="lora")


def options(parser: argparse.ArgumentParser) -> None:
    """What to train, how, and on what terms."""
    parser.add_argument("--model", metavar="PATH", type=existing_path, required=True, help="a folder or GGUF file")
    parser.add_argument("--data", metavar="FILE", type=existing_path, required=True, help="chats or texts")
    parser.add_argument("--out", metavar="DIR", type=Path, help="write the result here when it is done")
    parser.add_argument("--dry-run", action="store_true", help="show who would take it and the price, spend nothing")
    how = parser.add_argument_group("how")
    how.add_argument("--method", choices=("lora", "full"), default="lora", help="an adapter (default), or all weights")
    how.add_argument("--workers", metavar="N", type=positive, default=2, help="machines side by side (default 2)")
    whole = (
        ("--rounds", DEFAULTS.rounds, "outer steps"),
        ("--steps", DEFAULTS.inner_steps, "per round and worker"),
        ("--batch", DEFAULTS.batch_sequences, "sequences per step"),
        ("--rank", DEFAULTS.lora_rank, "of the adapter"),
    )
    for name, value, text in whole:
        how.add_argument(name, metavar="N", type=positive, default=value, help=f"{text} (default {value})")
    how.add_argument(
        "--length", metavar="N", type=positive, default=0, help="tokens per sequence (default: so that most chats fit)"
    )
    how.add_argument(
        "--loss", choices=("assistant", "all"), default="assistant",
        help="learn what assistants say and completions (default), or all of the text",
    )  # fmt: skip
    rate, text = DEFAULTS.learning_rate, "of inner steps"
    how.add_argument("--learning-rate", metavar="X", type=decimal, default=rate, help=f"{text} (default {rate})")
    how.add_argument(
        "--overlap", action="store_true", help="go on while updates travel: for slow links, not for very few rounds"
    )
    how.add_argument(
        "--arithmetic", choices=("fp32", "exact", "auto"), default="auto",
        help="exact: the same bits on every machine; fp32: on like ones; auto: exact where it can be (default auto)",
    )  # fmt: skip
    add_job_terms(parser)


def decimal(text: str) -> str:
    """A positive number, kept as it was written: it must mean the same on every machine."""
    try:
        good = 0 < float(text) < 1e6
    except ValueError:
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return text


def run(args: argparse.Namespace, out: Output) -> int:
    """Check the files, then the market, then ask, then train."""
    if args.out is not None and args.detach:
        raise fail(
            "E2001", "--out needs the end of the job, --detach does not wait for it.", next_step="Leave one out."
        )
    if args.out is not None and args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise fail("E2001", f"{args.out} is there already and not empty.", next_step="Choose another --out.")
    facts = check_data(args.data, args.length or DEFAULTS.sequence_tokens)
    client = AsyncFallow(args.home)
    asyncio.run(client.node())  # else a conversion is waited for only to learn that none runs
    args.model = trainable(args.model, client.home, out)
    args.data = portable(args.data, client.home / "data")
    args.read = read_data(facts, args.data, args.model, args.length, args.loss, out)
    args.length = args.read["sequence_tokens"]
    return asyncio.run(_run(client, args, out))


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe that the options describe."""
    return Recipe(
        method=args.method,
        rounds=args.rounds,
        inner_steps=args.steps,
        batch_sequences=args.batch,
        sequence_tokens=args.length,
        lora_rank=args.rank,
        lora_alpha=2 * args.rank,
        learning_rate=args.learning_rate,
        ahead=int(args.overlap),
        loss=args.loss,
    )


async def _run(client: AsyncFallow, args: argparse.Namespace, out: Output) -> int:
    terms = terms_of(args, args.workers)
    spec = await client.plan_train(args.model, args.data, recipe_of(args), args.arithmetic, **terms)
    if args.dry_run:
        dry_run(spec, await client.estimate(spec), out, {"data": args.read})
        return 0
    job = await submit(client, spec, args, out)
    return await end_of(job, args, out, "training", args.out, {"data": args.read})
