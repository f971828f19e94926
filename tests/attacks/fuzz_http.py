"""The gateway under a fuzzer of HTTP APIs: a network of real processes that serves a small model, its own description
of its doors, and schemathesis (which comes from elsewhere) through its phases: examples, coverage, fuzzing, stateful.

    python -m venv /tmp/schem && /tmp/schem/bin/pip install schemathesis
    python -m tests.attacks.fuzz_http --schemathesis /tmp/schem/bin/schemathesis [--examples N] [--seconds S]

What is unexpected: a 5xx that the description does not call our mistake's opposite, an answer that it does not know, a
process that ended. Adds a line to `benchmarks/results/http_fuzz.jsonl`, with the memory that the gateway had at most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from tests.workloads.tiny import make_model

from fallow.cli.demo_net import Network

MODEL, CONTEXT = "tiny", 64
RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "http_fuzz.jsonl"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


async def served(network: Network, model: Path) -> tuple[str, str]:
    """-> the URL of a gateway behind which a model is served, and a key."""
    client = await network.found(providers=1, cheats=0)
    await client.serve(MODEL, model, None, CONTEXT, budget="500", workers=1, verify="none", name=MODEL)
    async with asyncio.timeout(120):
        while not any(one.ready for one in await client.models()):
            await asyncio.sleep(0.2)
    return network.member("gateway").announced["base_url"].removesuffix("/v1"), await client.make_key("fuzz", "400")


def told(description: dict[str, Any]) -> dict[str, Any]:
    """The description, with the one model that there is where a model is named, in half of what is tried: else nearly
    everything ends at a model that nobody serves."""
    for schema in description["components"]["schemas"].values():
        model = schema.get("properties", {}).get("model")
        if model is not None:
            model["examples"] = [MODEL]
            schema["properties"]["model"] = {"anyOf": [{"const": MODEL}, model]}
    return description


def peak_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) // 1024


def main() -> int:
    """The command; -> schemathesis' exit code, or 1 when a process ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schemathesis", required=True, help="the program")
    parser.add_argument("--examples", type=int, default=200, help="of each operation, in the fuzzing phase")
    parser.add_argument("--seconds", type=int, default=600, help="at most so long")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fallow-fuzz-") as name, Network(Path(name) / "net") as network:
        model, described = Path(name) / "model", Path(name) / "openapi.json"
        make_model(model)
        url, key = asyncio.run(served(network, model))
        described.write_text(json.dumps(told(httpx.get(f"{url}/openapi.json").json())))
        pid, began = network.member("gateway").announced["pid"], time.monotonic()
        before = peak_mib(pid)
        command = [
            options.schemathesis, "run", str(described), "--url", url, "--header", f"Authorization: Bearer {key}",
            "--phases", "examples,coverage,fuzzing,stateful", "--checks", CHECKS, "--continue-on-failure",
            "--max-examples", str(options.examples), "--seed", str(options.seed), "--max-time", str(options.seconds),
            "--no-color", "--request-timeout", "60", "--suppress-health-check", "all",
        ]  # fmt: skip
        ran = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=name
        )
        sys.stdout.write(ran.stdout)
        ended = [member.name for member in network.members if member.process.poll() is not None]
        cases = re.findall(r"(\d+) generated", ran.stdout)
        failed = re.findall(r"(\d+) found", ran.stdout)
        row = {
            "command": f"python -m tests.attacks.fuzz_http --examples {options.examples} --seconds {options.seconds}",
            "when": time.strftime("%Y-%m-%d"), "cases": int(cases[-1]) if cases else 0,
            "failed": int(failed[-1]) if failed else 0,
            "note": f"{time.monotonic() - began:.0f} s; ended: {', '.join(ended) or 'no process'}; the gateway held "
            f"{before} MiB before and {peak_mib(pid)} MiB at most",
        }  # fmt: skip
    with RESULT.open("a") as file:
        file.write(json.dumps(row) + "\n")
    return 1 if ended else ran.returncode


if __name__ == "__main__":
    raise SystemExit(main())
