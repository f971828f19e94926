"""Run a typed workload, or a program of your own, on many inputs, spread over the network.

  fallow run echo hello world --budget 1             give each input back: the smallest job there is
  fallow run spin 1000000 2000000 --budget 1         burn a known amount of CPU
  fallow run generate --model PATH --from prompts.txt --budget 1     one answer per line
  fallow run wasm prog.wasm --input data/*.csv --budget 1     your own program, once for each file

Each input is one task, checked and paid for by itself. What follows -- are the arguments of your program.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from fallow.cli import programs
from fallow.cli.models import NO_AUDIT
from fallow.cli.options import add_job_terms, existing_path, positive
from fallow.cli.output import Output
from fallow.cli.results import output_data, output_text
from fallow.cli.spending import dry_run, follow, submit, terms_of
from fallow.errors import fail
from fallow.kinds.kind import Kind
from fallow.kinds.registry import KINDS, kind_named
from fallow.rules.steward.shapes.registry import LIST, shape_named
from fallow.sdk.client import AsyncFallow
from fallow.sdk.terms import checked_by, spec_of
from fallow.wire.local import UNCHECKED
from fallow.wire.tasks import Part
from fallow.workloads.model_files import inspect_model

MAX_INPUTS = 100_000
TAKES_REST = True
"""What follows a lone -- are inputs, or the arguments of a program."""


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow run KIND [INPUT ...]`."""
    parser.add_argument("workload", metavar="KIND", help=f"what to run: {', '.join(KINDS)}")
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="one task each")
    parser.add_argument("--from", dest="source", metavar="FILE", help="more inputs, one a line; - reads standard input")
    parser.add_argument("--workers", metavar="N", type=positive, default=2, help="machines side by side (default 2)")
    parser.add_argument("--form", default=LIST.name, help=f"how the inputs make up a job (default {LIST.name})")
    parser.add_argument("--dry-run", action="store_true", help="show who would take it and the price, spend nothing")
    for kind in KINDS.values():
        group = parser.add_argument_group(f"to {kind.name}")
        for one in kind.inputs:
            group.add_argument(f"--{one.name}", metavar="PATH", type=existing_path, help=one.help)
        for setting in kind.settings:
            text = f"{setting.help} (default {setting.default})"
            group.add_argument(_option(setting.name), metavar="N", type=positive, help=text)
    programs.options(parser)
    parser.set_defaults(rest=[])
    add_job_terms(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Check the inputs, then the market, then ask, then run."""
    kind, _ = kind_named(args.workload), shape_named(args.form)
    _refuse_others(kind, args)
    settings = {one.name: getattr(args, one.name) or one.default for one in kind.settings}
    if kind.guest is not None:
        return asyncio.run(programs.run(args, kind, settings, _lines(args.source), out))
    programs.refuse(kind, args)
    texts = [*args.inputs, *args.rest, *_lines(args.source)]
    if not texts:
        raise fail("E2001", "There is no input.", next_step="Give some, or --from FILE.")
    if len(texts) > MAX_INPUTS:
        raise fail("E2001", f"{len(texts)} inputs; a job takes at most {MAX_INPUTS}.")
    params = tuple(kind.read(text, settings) for text in texts)
    if "model" in inputs_of(kind, args):
        inspect_model(args.model)
    return asyncio.run(_run(args, kind, params, out))


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


def inputs_of(kind: Kind, args: argparse.Namespace) -> dict[str, Path]:
    """What all tasks get. Raises UsageError E2001 when something is missing."""
    found = {one.name: getattr(args, one.name) for one in kind.inputs}
    if missing := [name for name, path in found.items() if path is None]:
        raise fail("E2001", f"{kind.name} needs --{missing[0]} PATH.")
    return found


def _refuse_others(kind: Kind, args: argparse.Namespace) -> None:
    mine = {one.name for one in (*kind.inputs, *kind.settings)}
    for other in KINDS.values():
        for one in (*other.inputs, *other.settings):
            if one.name not in mine and getattr(args, one.name) is not None:
                raise fail("E2001", f"{kind.name} takes no {_option(one.name)}.")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


async def _run(args: argparse.Namespace, kind: Kind, params: tuple[bytes, ...], out: Output) -> int:
    async with AsyncFallow(args.home) as client:
        inputs: list[Part] = []
        for name, path in inputs_of(kind, args).items():
            taken = await client.import_path(path)
            inputs.append(Part(name, taken.tree, taken.size_bytes))
        terms = terms_of(args, args.workers)
        if inputs and "verify" not in terms and checked_by(args.model) == UNCHECKED:
            terms["verify"] = UNCHECKED
            out.say(NO_AUDIT)
        units = max(kind.units(one) for one in params)
        spec = spec_of(shape_named(args.form).of_inputs(kind.name, params, tuple(inputs), units), terms)
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
