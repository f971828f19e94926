"""A provider that lies on purpose, for tests and demos: `python -m fallow.sim.cheating_node WAY TICKET`, in the home
that FALLOW_HOME names. An honest node in all but its workers, which are those of `cheating_worker`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from functools import partial

from fallow.adapters.runners.process import ProcessRunner
from fallow.node.app import Options, quiet_logs, run_node
from fallow.node.config import read_ticket
from fallow.sdk.home import resolve_home
from fallow.sim.cheating_worker import WAYS


def main(words: list[str]) -> None:
    """Run until told to stop; once up, say so in a line of JSON, as `fallow provide --json` does."""
    parser = argparse.ArgumentParser(prog="cheating_node")
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("ticket", type=read_ticket)
    parser.add_argument("--bind", default="")
    parser.add_argument("--log", default="info")
    args = parser.parse_args(words)
    quiet_logs(args.log)
    runner = partial(ProcessRunner, (sys.executable, "-m", "fallow.sim.cheating_worker", args.way))

    def ready(about: dict[str, str]) -> None:
        sys.stdout.write(json.dumps(about) + "\n")
        sys.stdout.flush()

    options = Options(frozenset({"provider"}), args.ticket, bind=args.bind, ready=ready, runner=runner)
    asyncio.run(run_node(resolve_home(None), options))


if __name__ == "__main__":
    main(sys.argv[1:])
