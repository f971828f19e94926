"""Who would take a job's tasks now, who would not, and by how much each falls short."""

from __future__ import annotations

import argparse

from fallow.cli.output import Output
from fallow.cli.render import estimate_data, estimate_text
from fallow.sdk.client import AsyncFallow


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow why JOB`."""
    parser.add_argument("job", metavar="JOB", help="its id, the id's beginning, or its name")


async def run(args: argparse.Namespace, out: Output) -> None:
    """Ask the market again for an old job."""
    async with AsyncFallow(args.home) as client:
        estimate = await client.explain_job((await client.job(args.job)).id)
        out.data(estimate_data(estimate), estimate_text(estimate))
