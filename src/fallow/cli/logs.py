"""What happened in a job. With --follow, also what happens next, until the job ends."""

from __future__ import annotations

import argparse

from fallow.cli.output import Output
from fallow.cli.render import data_of, note_text
from fallow.sdk.client import AsyncFallow


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow logs JOB [--follow] [--after N]`."""
    parser.add_argument("job", metavar="JOB", help="its id, the id's beginning, or its name")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    parser.add_argument("--after", type=int, default=0, metavar="N", help="leave out the notes up to number N")


async def run(args: argparse.Namespace, out: Output) -> None:
    """Print note after note; in JSON, one object a line."""
    out.when_interrupted = f"Interrupted. Job {args.job} goes on as it was."
    async with AsyncFallow(args.home) as client:
        job = await client.job(args.job)
        async for note in job.watch(max(0, args.after), follow=args.follow):
            out.data(data_of(note), note_text(note))
