"""Fetch what a job made: the outputs of its tasks, or the result folder of a training job.

With --out DIR files are written there: a training job's model or adapter, or the files that each task wrote under
DIR/0, DIR/1 and so on, or under the names of their inputs for programs of yours. Without it the small values are
printed.
"""

from __future__ import annotations

import argparse
import base64
from pathlib import Path
from typing import Any

from fallow.cli.output import Output
from fallow.cli.render import data_of
from fallow.errors import RejectedError, fail
from fallow.kinds.registry import kind_named
from fallow.sdk.client import AsyncFallow
from fallow.sdk.jobs import AsyncJob
from fallow.units import format_size, to_text
from fallow.wire.local import JobResults
from fallow.wire.tasks import TaskOutput


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow results JOB [--out DIR] [--receipts]`."""
    parser.add_argument("job", metavar="JOB", help="its id, the id's beginning, or its name")
    parser.add_argument("--out", metavar="DIR", type=Path, help="write files here")
    parser.add_argument("--receipts", action="store_true", help="with --out, write the receipts too, into DIR/receipts")


async def run(args: argparse.Namespace, out: Output) -> None:
    """Print or write."""
    if args.receipts and args.out is None:
        raise fail("E2001", "--receipts needs a folder to write them to.", next_step="Add --out DIR.")
    async with AsyncFallow(args.home) as client:
        job = await client.job(args.job)
        view, receipts = await job.view(), await job.receipts()
        if args.receipts and args.out is not None:
            await _write_receipts(client, receipts, args.out / "receipts")
        results = await _results(job, args, out)
        answer: dict[str, Any] = {
            "id": job.text,
            "tree": to_text("blob", results.tree) if results.tree else "",
            "outputs": [output_data(output, view.workload) for output in results.outputs],
            "receipts": [to_text("receipt", receipt) for receipt in receipts],
        }
        if args.out is not None:
            await write(client, results, view.workload, args.out)
            answer["saved"] = str(args.out)
        out.data(answer, _text(answer, results))


async def _results(job: AsyncJob, args: argparse.Namespace, out: Output) -> JobResults:
    """The outputs. A job without any still has the receipts of what was done and paid, if those were asked for."""
    try:
        return await job.results()
    except RejectedError as error:
        if not (args.receipts and args.out is not None):
            raise
        out.say(error.what)
        return JobResults(())


async def write(client: AsyncFallow, results: JobResults, kind: str, folder: Path) -> None:
    """Write all files of the results into `folder`, those of each task in one of its own."""
    if results.tree:
        await client.export(results.tree, folder)
        return
    for name, output in zip(names_of(results.outputs, kind), results.outputs, strict=True):
        for part in output.parts:
            await client.export(part.blob, folder / name, part.name)
        if (guest := kind_named(kind).guest) is not None:
            (folder / name).mkdir(parents=True, exist_ok=True)
            for file, data in guest.files_of(output.value).items():
                (folder / name / file).write_bytes(data)


def names_of(outputs: tuple[TaskOutput, ...], kind: str) -> list[str]:
    """What the folder of each task's files is called: as its kind says, where no two have that name, or its number."""
    guest = kind_named(kind).guest
    names = [guest.name_of(output.value) if guest is not None else "" for output in outputs]
    return [name if name and names.count(name) == 1 else str(number) for number, name in enumerate(names)]


async def _write_receipts(client: AsyncFallow, receipts: tuple[bytes, ...], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for receipt in receipts:
        (folder / f"{to_text('receipt', receipt)}.receipt").write_bytes(await client.receipt(receipt))


def output_data(output: TaskOutput, kind: str) -> dict[str, Any]:
    """One task's output: `text` where the value is text, `value` in base64 always, and the files it wrote."""
    data = {
        "text": output_text(output.value, kind),
        "value": base64.b64encode(output.value).decode(),
        "parts": [data_of(part) for part in output.parts],
    }
    if (guest := kind_named(kind).guest) is not None:
        ending = guest.ending(output.value)
        data |= {"name": guest.name_of(output.value), "ended_well": ending.well, "ending": ending.how}
    return data


def output_text(value: bytes, kind: str) -> str:
    """A value as its kind shows it to people; "" where that is no text."""
    return kind_named(kind).shown(value)


def _text(answer: dict[str, Any], results: JobResults) -> str:
    if "saved" in answer:
        return f"Saved to {answer['saved']}"
    if results.tree:
        return f"A result folder, {answer['tree']}. Write it: fallow results {answer['id'][:12]} --out DIR"
    lines: list[str] = []
    for output in answer["outputs"]:
        files = ", ".join(f"{part['name']} ({format_size(part['size_bytes'])})" for part in output["parts"])
        lines.append(output["text"] or files or f"{len(output['value'])} characters of base64; see --json")
    return "\n".join(lines)
