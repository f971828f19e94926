"""Another benchmark's own figures, of an older commit and of this one, in turns and in one run, so that what else the
machine does hits both. Each side runs the script of its own commit, in a checkout of its own.

    python benchmarks/old_and_new.py --old COMMIT [--turns N] SCRIPT [ARGUMENTS OF THE SCRIPT]
    python benchmarks/old_and_new.py --old HEAD --without=--unboxed [--turns N] SCRIPT    # what the box costs

SCRIPT is `tasks`, `gateway`, `slow_link` or `train_step`. The figures that Fallow itself makes there are compared, as
how much better the new side is: above 1 is faster. Prints one JSON line per figure; writes
`results/old_and_new_SCRIPT.json`, or `results/unboxed_and_new_SCRIPT.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _record import OURS, ROOT, Figure, Record

CLAIM = "what was rebuilt keeps at least 95 % of the speed that it had"
GOAL = 0.95


def checkout(commit: str, folder: Path) -> Path:
    """The files of a commit, in a folder of their own."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder


def play(side: Path, script: str, arguments: list[str]) -> dict[str, tuple[float, bool]]:
    """One run of the script -> the median of each of Fallow's figures, and whether less of it is better."""
    environment = os.environ | {"PYTHONPATH": f"{side / 'src'}{os.pathsep}{side}"}
    command = [sys.executable, str(side / "benchmarks" / f"{script}.py"), *arguments]
    ran = subprocess.run(command, cwd=side, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    rows: list[dict[str, Any]] = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    found = [row for row in rows if row["who"] == OURS and "median" in row]
    return {row["what"]: (row["median"], row.get("better") == "less" or row["unit"] in ("ms", "s")) for row in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, help="a commit")
    parser.add_argument("--new", default="HEAD", help="a commit")
    parser.add_argument("--without", default="", help="an argument for the old side alone, such as one that leaves out")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("script", choices=("tasks", "gateway", "slow_link", "train_step"))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for the script")
    options = parser.parse_args()
    record = Record(__file__, CLAIM)
    sides: dict[str, list[dict[str, tuple[float, bool]]]] = {"old": [], "new": []}
    with tempfile.TemporaryDirectory(prefix="fallow-bench-") as folder:
        folders = {name: checkout(getattr(options, name), Path(folder) / name) for name in sides}
        for turn in range(options.turns):
            for name in sorted(sides, reverse=bool(turn % 2)):
                extra = [options.without] if options.without and name == "old" else []
                sides[name].append(play(folders[name], options.script, [*extra, *options.arguments]))
    for what, (_, less) in sides["new"][0].items():
        values = {name: [turn[what][0] for turn in turns if what in turn] for name, turns in sides.items()}
        if values["old"]:
            old = statistics.median(values["old"])
            times = [old / new if less else new / old for new in values["new"]]
            record.add(Figure(OURS, f"{what}: times as good as before", "", times, GOAL))
    what = options.without.strip("-") or "old"
    raw = {"old": options.old, "new": options.new, "without": options.without, "sides": sides}
    record.write(raw, f"{what}_and_new_{options.script}")


if __name__ == "__main__":
    main()
