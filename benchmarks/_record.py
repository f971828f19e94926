"""What every benchmark here writes down: where, when and on what it ran, every round of every figure, and one JSON line
per figure on stdout. Standard library only, since peers' Pythons import it too."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
OURS = "fallow"
BOOTSTRAPS = 2_000


@dataclass
class Figure:
    """One figure: all values that it was taken from, and what it should be. `goal` is a bound on the median: from above
    when `less` is better, else from below. `peer` is filled in for figures of others. With `turn`, as many values that
    follow each other belong to one turn, and the median comes with an interval."""

    who: str
    what: str
    unit: str
    values: list[float]
    goal: float | None = None
    less: bool = False
    version: str = ""
    pick: str = "median"
    turn: int = 0

    @property
    def figure(self) -> float:
        """The figure itself: the median of the values, or their 99th percentile."""
        if self.pick == "p99":
            return sorted(self.values)[min(len(self.values) - 1, int(0.99 * len(self.values)))]
        return statistics.median(self.values)

    def interval(self) -> tuple[float, float]:
        """Where 95 % of the medians lie when the turns are drawn anew, with replacement: by whole turns, since the
        values of one are alike."""
        draw = random.Random(0)
        turns = [self.values[at : at + self.turn] for at in range(0, len(self.values), self.turn)]
        medians = sorted(
            statistics.median([value for turn in draw.choices(turns, k=len(turns)) for value in turn])
            for _ in range(BOOTSTRAPS)
        )
        return medians[int(0.025 * BOOTSTRAPS)], medians[int(0.975 * BOOTSTRAPS)]

    def row(self) -> dict[str, Any]:
        """As it is printed and written."""
        row: dict[str, Any] = {
            "who": self.who, "what": self.what, "unit": self.unit, self.pick: _digits(self.figure),
            "least": _digits(min(self.values)), "most": _digits(max(self.values)), "n": len(self.values),
            "version": self.version,
        }  # fmt: skip
        if self.turn:
            row["interval95"] = [_digits(end) for end in self.interval()]
        if self.goal is not None:
            met = self.figure <= self.goal if self.less else self.figure >= self.goal
            row |= {"goal": _digits(self.goal), "better": "less" if self.less else "more", "met": met}
        return row


@dataclass
class Record:
    """One run of one script. Make it before anything is started: it notes how busy the machine was."""

    script: str
    claim: str
    seed: int | None = None
    figures: list[Figure] = field(default_factory=list[Figure])
    left_out: list[str] = field(default_factory=list[str])
    load: tuple[float, float, float] = field(default_factory=os.getloadavg)
    began: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))

    def add(self, figure: Figure) -> Figure:
        """Print a figure and keep it."""
        self.figures.append(figure)
        print(json.dumps(figure.row()), flush=True)
        return figure

    def leave_out(self, why: str) -> None:
        """A peer that cannot be measured here is said so, not assumed."""
        self.left_out.append(why)
        print(why, file=sys.stderr, flush=True)

    def write(self, raw: dict[str, Any] | None = None, name: str = "") -> Path:
        """Everything to `results/NAME.json`; `raw` is what else is worth keeping."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name or Path(self.script).stem}.json"
        everything = {
            "script": Path(self.script).name, "claim": self.claim, "arguments": sys.argv[1:], "began": self.began,
            "seed": self.seed, "commit": commit(), "source": source_digest(), "machine": machine(),
            "load_before": [round(value, 2) for value in self.load],
            "load_after": [round(value, 2) for value in os.getloadavg()], "left_out": self.left_out,
            "rows": [figure.row() for figure in self.figures],
            "rounds": {f"{f.who}: {f.what}": [_digits(v, 6) for v in f.values] for f in self.figures},
            "raw": raw or {},
        }  # fmt: skip
        path.write_text(json.dumps(everything, indent=1) + "\n", "utf-8")
        return path


def _digits(value: float, count: int = 4) -> float:
    return float(f"{value:.{count}g}")


def commit() -> str:
    """The commit that is checked out, from git's files."""
    folder = ROOT / ".git"
    try:
        if folder.is_file():  # a worktree
            folder = (ROOT / folder.read_text("utf-8").removeprefix("gitdir:").strip()).resolve()
        head = (folder / "HEAD").read_text("utf-8").strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        if (folder / "commondir").exists():
            folder = (folder / (folder / "commondir").read_text("utf-8").strip()).resolve()
        if (folder / name).exists():
            return (folder / name).read_text("utf-8").strip()
        packed = (folder / "packed-refs").read_text("utf-8").splitlines()
        return next((line.split()[0] for line in packed if line.endswith(" " + name)), "")
    except OSError:
        return ""


def source_digest(part: str = "") -> str:
    """What was measured, whether it was committed or not: a hash over the package's source, or over a `part` of it with
    what is compiled."""
    digest = hashlib.blake2b(digest_size=8)
    files = {".py", ".c", ".h"} if part else {".py"}
    for path in sorted(path for path in (ROOT / "src" / part).rglob("*") if path.suffix in files):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def machine() -> dict[str, Any]:
    """The machine, in words."""
    name = platform.processor() or platform.machine()
    try:
        rows = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next((row.split(":", 1)[1].strip() for row in rows if row.startswith("model name")), name)
    except OSError:
        pass
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": name, "cores": os.cpu_count(), "ram_gib": round(pages / 2**30, 1), "platform": platform.platform(),
        "python": platform.python_version(),
    }  # fmt: skip


def peer_python(variable: str, *packages: str) -> tuple[str, dict[str, str]] | None:
    """The Python that the environment variable names (or this one) and its versions of `packages`; None when it lacks
    one of them."""
    python = os.environ.get(variable, sys.executable)
    asked = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    answer = subprocess.run([python, "-c", asked, *packages], capture_output=True, text=True, check=False)
    return (python, json.loads(answer.stdout)) if answer.returncode == 0 else None


class Player:
    """A process of a peer that does a round whenever it is sent a line of JSON, and answers with one."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None, *, quiet: bool = False) -> None:
        self.process = subprocess.Popen(
            command, env=os.environ | (env or {}), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL if quiet else None,
        )  # fmt: skip

    def hear(self) -> Any:
        """The next answer. Raises RuntimeError when it ended instead."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(("{", "[")):  # peers chatter
                return json.loads(line)
        raise RuntimeError(f"{self.process.args!r} ended early")

    def say(self, order: Any) -> None:
        """Begin a round."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def ask(self, order: Any) -> Any:
        """One round, to its end."""
        self.say(order)
        return self.hear()

    def stop(self) -> None:
        """End it; politely, so that it can end its own children."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
