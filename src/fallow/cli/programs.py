"""The part of `fallow run` for programs of one's own: look at the program before anything is bought, run it once for
each input, and write what each run made into a folder of its own."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path

from fallow.cli.options import existing_path
from fallow.cli.output import Output
from fallow.cli.results import names_of, output_data, output_text, write
from fallow.cli.spending import dry_run, follow, submit, terms_of
from fallow.errors import FallowError, fail
from fallow.kinds.guest import Guest
from fallow.kinds.kind import Kind
from fallow.sdk.client import AsyncFallow
from fallow.sdk.jobs import AsyncJob, money_of
from fallow.sdk.programs import RunPlan, read_program
from fallow.wire.local import JobResults, JobView
from fallow.workloads.task import program

OPTIONS = ("input", "file", "env", "out")


def options(parser: argparse.ArgumentParser) -> None:
    """What only programs take."""
    group = parser.add_argument_group("to run a program of yours")
    group.add_argument(
        "--input", metavar="FILE", nargs="+", action="extend", type=existing_path,
        help="one run for each: its standard input or, where {} stands among the arguments, the file of that name",
    )  # fmt: skip
    group.add_argument(
        "--file", metavar="PATH", nargs="+", action="extend", type=existing_path, help="what all runs see, below /in"
    )
    group.add_argument("--env", metavar="NAME=VALUE", action="append", type=_variable, help="a variable of all runs")
    group.add_argument("--out", metavar="DIR", type=Path, help="write what each run made here")


def refuse(kind: Kind, args: argparse.Namespace) -> None:
    """Raises UsageError E2001 for what only programs take."""
    if given := [name for name in OPTIONS if getattr(args, name) is not None]:
        raise fail("E2001", f"{kind.name} takes no --{given[0]}.")


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE")
    return name, value


async def run(args: argparse.Namespace, kind: Kind, settings: Mapping[str, int], lines: list[str], out: Output) -> int:
    """Check, price, ask, run. Raises UsageError E1724 when a run did not end well, once all is written."""
    assert kind.guest is not None, "only kinds that run programs come here"
    if len(args.inputs) != 1:
        what = "There is no program." if not args.inputs else f"{args.inputs[1]!r} is one word too many."
        raise fail("E2001", what, next_step=f"fallow run {kind.name} PROGRAM --input FILES --budget CR -- ARGUMENTS")
    path = existing_path(args.inputs[0])
    for line in _looked_at(kind, kind.guest, path, settings):
        out.say(f"{path.name}: {line}")
    plan = RunPlan(args.rest, args.input or (), [_split(line) for line in lines], args.file or (), dict(args.env or ()))
    async with AsyncFallow(args.home) as client:
        spec = await client.plan_program(kind.name, path, plan, settings, **terms_of(args, args.workers))
        if args.dry_run:
            dry_run(spec, await client.estimate(spec), out)
            return 0
        job = await submit(client, spec, args, out)
        if args.detach:
            out.data({"id": job.text, "phase": "starting"}, job.text)
            return 0
        view = await follow(job, out, args.workload)
        results = await job.results()
        if args.out is not None:
            await write(client, results, kind.name, args.out)
        _show(job, view, results, args, out)
        _judge(kind.guest, view, results, kind.name)
    return 0


def _looked_at(kind: Kind, guest: Guest, path: Path, settings: Mapping[str, int]) -> tuple[str, ...]:
    """What the program wants. Raises UsageError E1721 for one that could not run."""
    data = read_program(path)
    found = guest.inspect(data, settings)
    try:
        check = program(kind, guest.check)
    except FallowError:  # what it takes is for providers to have; they refuse it as well
        return found
    check(data)
    return found


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise fail("E2001", f"These are no arguments: {line[:40]!r} ({error}).") from error


def _show(job: AsyncJob, view: JobView, results: JobResults, args: argparse.Namespace, out: Output) -> None:
    answer = {
        "id": job.text,
        "phase": view.phase,
        "spent_ucr": view.spent_ucr,
        "outputs": [output_data(output, args.workload) for output in results.outputs],
    }
    texts = [output_text(output.value, args.workload) for output in results.outputs]
    if len(texts) > 1:
        names = names_of(results.outputs, args.workload)
        texts = [f"== {name}\n{text}" for name, text in zip(names, texts, strict=True)]
    if args.out is not None:
        answer["saved"] = str(args.out)
        texts.append(f"Saved to {args.out}")
    out.data(answer, "\n".join(texts))


def _judge(guest: Guest, view: JobView, results: JobResults, kind: str) -> None:
    """Raises UsageError E1724 when a run did not end as one that is content."""
    endings = [guest.ending(output.value) for output in results.outputs]
    bad = [number for number, ending in enumerate(endings) if not ending.well]
    if bad:
        name = names_of(results.outputs, kind)[bad[0]]
        what = f"{len(bad)} of {len(endings)} runs failed, first {name}: {endings[bad[0]].how}."
        cause = "That is the program's own doing: any provider's machine gives the same."
        raise fail("E1724", what, cause=cause, money=money_of(view))
