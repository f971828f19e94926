"""How long a user waits for the command line itself: wall time of `fallow --help` and `import fallow`, beside a bare
interpreter, `hf --help`, `import huggingface_hub`, `ray --help` and `import ray`.

Ray is measured when the Python named by `FALLOW_BENCH_RAY_PYTHON`, or this one, has it; `hf` comes with the `train`
extra. All commands take turns, so that whatever else the machine does hits all of them; the first round warms up byte
code and page cache and is not counted. This is the kindest case: second and later starts.

    python benchmarks/startup.py [--rounds N]

Prints one JSON line per command (median and range in ms) and writes every round to `benchmarks/results/startup.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "startup.json"
GOALS_MS = {"fallow --help": 150, "import fallow": 200}
LIMIT_S = 60


def has(python: str, module: str) -> bool:
    """Whether an interpreter can import a module."""
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def commands() -> dict[str, list[str]]:
    """What is measured, by name; peers only where they are installed."""
    own, ray = sys.executable, os.environ.get("FALLOW_BENCH_RAY_PYTHON", sys.executable)
    found = {
        "python -c pass": [own, "-c", "pass"],
        "fallow --help": [str(Path(own).with_name("fallow")), "--help"],
        "import fallow": [own, "-c", "import fallow"],
        "import fallow; fallow.connect": [own, "-c", "import fallow; fallow.connect"],
        "fallow jobs --help": [str(Path(own).with_name("fallow")), "jobs", "--help"],
    }
    if has(own, "huggingface_hub"):
        found["hf --help"] = [str(Path(own).with_name("hf")), "--help"]
        found["import huggingface_hub"] = [own, "-c", "import huggingface_hub"]
    if has(ray, "ray"):
        found["ray --help"] = [str(Path(ray).with_name("ray")), "--help"]
        found["import ray"] = [ray, "-c", "import ray"]
    return found


def clock(command: list[str], home: str) -> float:
    """One start, in ms."""
    env = {"PATH": os.environ["PATH"], "HOME": home, "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    began = time.perf_counter()
    subprocess.run(command, env=env, check=True, timeout=LIMIT_S, capture_output=True, stdin=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    measured = commands()
    spent: dict[str, list[float]] = {name: [] for name in measured}
    with tempfile.TemporaryDirectory() as home:
        for number in range(rounds + 1):
            for name, command in measured.items():
                took = clock(command, home)
                if number:
                    spent[name].append(round(took, 1))
    for name, values in spent.items():
        goal = GOALS_MS.get(name)
        row = {"what": name, "median_ms": statistics.median(values), "min_ms": min(values), "max_ms": max(values)}
        print(json.dumps(row | ({"goal_ms": goal} if goal else {})))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}"
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "rounds": rounds, "ms": spent}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
