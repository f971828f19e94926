"""How long a user waits for the command line itself: wall time of `fallow --help` and `import fallow`, beside a bare
interpreter, `hf --help` and `import huggingface_hub`, and the same of Ray and litellm.

Ray and litellm are measured when the Pythons named by `FALLOW_BENCH_RAY_PYTHON` and `FALLOW_BENCH_LITELLM_PYTHON`, or
this one, have them; `hf` comes with the `train` extra. All commands take turns, so that whatever else the machine does
hits all of them; the first round warms up byte code and page cache and is not counted. This is the kindest case: second
and later starts.

    python benchmarks/startup.py [--rounds N]

Prints one JSON line per command and writes every round to `benchmarks/results/startup.json`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _record import OURS, Figure, Record, peer_python

CLAIM = "`fallow --help` takes less than 150 ms, `import fallow` less than 200 ms"
GOALS_MS = {"fallow --help": 150.0, "import fallow": 200.0}
LIMIT_S = 60
PEERS = (
    ("huggingface_hub", "hf", "FALLOW_BENCH_HF_PYTHON"),
    ("ray", "ray", "FALLOW_BENCH_RAY_PYTHON"),
    ("litellm", "litellm", "FALLOW_BENCH_LITELLM_PYTHON"),
)
"""Package, command, and where to find its Python."""


def commands(record: Record) -> dict[str, tuple[str, str, list[str]]]:
    """What is measured: whose it is, its version, the command. Peers only where they are installed."""
    own, version = sys.executable, importlib.metadata.version(OURS)
    fallow = str(Path(own).with_name("fallow"))
    found = {
        "fallow --help": (OURS, version, [fallow, "--help"]),
        "import fallow": (OURS, version, [own, "-c", "import fallow"]),
        "import fallow; fallow.connect": (OURS, version, [own, "-c", "import fallow; fallow.connect"]),
        "fallow jobs --help": (OURS, version, [fallow, "jobs", "--help"]),
        "python -c pass": ("python", platform.python_version(), [own, "-c", "pass"]),
    }
    for package, command, variable in PEERS:
        peer = peer_python(variable, package)
        if peer is None:
            record.leave_out(f"{package} is not installed in this Python nor named by {variable}: left out")
            continue
        python, versions = peer
        program = str(Path(python).with_name(command))
        found[f"{command} --help"] = (package, versions[package], [program, "--help"])
        found[f"import {package}"] = (package, versions[package], [python, "-c", f"import {package}"])
    return found


def clock(command: list[str], home: str) -> float:
    """One start, in ms."""
    env = {"PATH": os.environ["PATH"], "HOME": home, "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    env |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    began = time.perf_counter()
    subprocess.run(command, env=env, check=True, timeout=LIMIT_S, capture_output=True, stdin=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    record = Record(__file__, CLAIM)
    measured = commands(record)
    spent: dict[str, list[float]] = {name: [] for name in measured}
    with tempfile.TemporaryDirectory() as home:
        for number in range(rounds + 1):
            for name, (_, _, command) in measured.items():
                took = clock(command, home)
                if number:
                    spent[name].append(took)
    for name, (who, version, _) in measured.items():
        record.add(Figure(who, name, "ms", spent[name], GOALS_MS.get(name), less=True, version=version))
    record.write()


if __name__ == "__main__":
    main()
