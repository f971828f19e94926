"""List your jobs, newest first, or show one at length.

A job is named by its id, the id's beginning, or the name you gave it.
"""

from __future__ import annotations

import argparse

from fallow.cli.output import Output
from fallow.cli.render import job_data, job_text, jobs_text
from fallow.sdk.client import AsyncFallow


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow jobs [JOB]`."""
    parser.add_argument("job", nargs="?", metavar="JOB", help="show this one: its id, the id's beginning, or its name")


async def run(args: argparse.Namespace, out: Output) -> None:
    """List or show."""
    async with AsyncFallow(args.home) as client:
        if args.job is None:
            views = await client.jobs()
            out.data({"jobs": [job_data(view) for view in views]}, jobs_text(views))
        else:
            view = await (await client.job(args.job)).view()
            out.data(job_data(view), job_text(view))
