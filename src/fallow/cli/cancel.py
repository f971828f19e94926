"""Stop a job. What was done until now is paid, the rest of the budget comes back."""

from __future__ import annotations

import argparse
import asyncio

from fallow.cli.options import cr
from fallow.cli.output import Output
from fallow.cli.render import job_data
from fallow.sdk.client import AsyncFallow


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow cancel JOB`."""
    parser.add_argument("job", metavar="JOB", help="its id, the id's beginning, or its name")


def run(args: argparse.Namespace, out: Output) -> int:
    """Cancel, and say where the money is."""
    return asyncio.run(_run(args, out))


async def _run(args: argparse.Namespace, out: Output) -> int:
    async with AsyncFallow(args.home) as client:
        job = await client.job(args.job)
        await job.cancel()
        view = await job.settled()
        rest = (
            f"{cr(view.locked_ucr)} still locked until the leases are closed" if view.locked_ucr else "the rest is back"
        )
        money = f"{cr(view.spent_ucr)} paid, {rest}"
        out.data(job_data(view), f"Job {job.text} is {view.phase}. Money: {money}.")
    return 0
