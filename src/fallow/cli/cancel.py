"""Stop a job. What was done until now is paid, the rest of the budget comes back."""

from __future__ import annotations

import argparse

from fallow.cli.output import Output
from fallow.cli.render import job_data
from fallow.sdk.client import AsyncFallow
from fallow.units import format_money


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow cancel JOB`."""
    parser.add_argument("job", metavar="JOB", help="its id, the id's beginning, or its name")


async def run(args: argparse.Namespace, out: Output) -> None:
    """Cancel, and say where the money is."""
    async with AsyncFallow(args.home) as client:
        job = await client.job(args.job)
        await job.cancel()
        view = await job.settled()
        rest = (
            f"{format_money(view.locked_ucr)} still locked until the leases are closed"
            if view.locked_ucr
            else "the rest is back"
        )
        money = f"{format_money(view.spent_ucr)} paid, {rest}"
        out.data(job_data(view), f"Job {job.text} is {view.phase}. Money: {money}.")
