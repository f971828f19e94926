"""Run a typed workload on many inputs, spread over the network.

  fallow run echo hello world --budget 1             give each input back: the smallest job there is
  fallow run spin 1000000 2000000 --budget 1         burn a known amount of CPU
  fallow run generate --model PATH --from prompts.txt --budget 1     one answer per line

Each input is one task, checked and paid for by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from fallow.cli.models import UNCHECKED, check_model
from fallow.cli.options import add_job_terms, existing_path, positive
from fallow.cli.output import Output
from fallow.cli.results import output_data, output_text
from fallow.cli.spending import dry_run, follow, submit, terms_of
from fallow.errors import fail
from fallow.kinds.generate.tasks import ChatTurn, Generate
from fallow.sdk.client import AsyncFallow
from fallow.sdk.terms import checked_by, spec_of
from fallow.wire.codec import encode
from fallow.wire.local import BatchJob
from fallow.wire.tasks import Part

WORKLOADS = ("echo", "spin", "generate")
TEMPLATE_TOKENS = 64
"""What a chat template may add to a prompt."""
MAX_INPUTS = 100_000


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow run WORKLOAD [INPUT ...]`."""
    parser.add_argument("workload", choices=WORKLOADS, help="what to run")
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="one task each")
    parser.add_argument("--from", dest="source", metavar="FILE", help="more inputs, one a line; - reads standard input")
    parser.add_argument("--workers", metavar="N", type=positive, default=2, help="machines side by side (default 2)")
    parser.add_argument("--dry-run", action="store_true", help="show who would take it and the price, spend nothing")
    answers = parser.add_argument_group("to generate")
    answers.add_argument("--model", metavar="PATH", type=existing_path, help="a model folder or GGUF file")
    answers.add_argument("--max-tokens", metavar="N", type=positive, default=128, help="per answer (default 128)")
    add_job_terms(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Check the inputs, then the market, then ask, then run."""
    texts = [*args.inputs, *_lines(args.source)]
    if not texts:
        raise fail("E2001", "There is no input.", next_step="Give some, or --from FILE.")
    if len(texts) > MAX_INPUTS:
        raise fail("E2001", f"{len(texts)} inputs; a job takes at most {MAX_INPUTS}.")
    if args.workload == "spin" and (bad := next((text for text in texts if not text.isdigit()), None)) is not None:
        raise fail("E2001", f"spin takes whole numbers, not {bad[:40]!r}.")
    if (args.model is not None) != (args.workload == "generate"):
        raise fail("E2001", "generate needs --model PATH; the other workloads take none.")
    if args.model is not None:
        check_model(args.model)
    return asyncio.run(_run(args, texts, out))


def _lines(source: str | None) -> list[str]:
    if source is None:
        return []
    try:
        text = sys.stdin.read() if source == "-" else Path(source).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise fail("E2003", f"{source} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise fail("E1702", f"{source} is not UTF-8 text.") from error
    return [line for line in text.splitlines() if line]


def tasks_of(workload: str, texts: list[str], max_tokens: int) -> tuple[tuple[bytes, ...], int]:
    """-> (the parameters of each task, the units of each). To generate costs at most what the longest prompt and answer
    can have in tokens; a token has at least one byte."""
    if workload != "generate":
        units = 1 if workload == "echo" else max(1, max(int(text) for text in texts) // 1_000_000)
        return tuple(text.encode() for text in texts), units
    longest = max(len(text.encode()) for text in texts)
    tasks = tuple(encode(Generate((ChatTurn("user", text),), "", max_tokens)) for text in texts)
    return tasks, longest + TEMPLATE_TOKENS + max_tokens


async def _run(args: argparse.Namespace, texts: list[str], out: Output) -> int:
    async with AsyncFallow(args.home) as client:
        params, units = tasks_of(args.workload, texts, args.max_tokens)
        inputs: tuple[Part, ...] = ()
        if args.model is not None:
            taken = await client.import_path(args.model)
            inputs = (Part("model", taken.tree, taken.size_bytes),)
        terms = terms_of(args, args.workers)
        if args.model is not None and "verify" not in terms and checked_by(args.model) == "none":
            terms["verify"] = "none"
            out.say(UNCHECKED)
        spec = spec_of(BatchJob(args.workload, params, inputs, units), terms)
        if args.dry_run:
            dry_run(spec, await client.estimate(spec), out)
            return 0
        job = await submit(client, spec, args, out)
        if args.detach:
            out.data({"id": job.text, "phase": "starting"}, job.text)
            return 0
        view = await follow(job, out, args.workload)
        outputs = (await job.results()).outputs
        answer = {
            "id": job.text,
            "phase": view.phase,
            "spent_ucr": view.spent_ucr,
            "outputs": [output_data(output, args.workload) for output in outputs],
        }
        out.data(answer, "\n".join(output_text(output.value, args.workload) for output in outputs))
    return 0
