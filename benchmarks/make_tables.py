"""The tables of `benchmarks/README.md`, from `results/`: no figure there is typed by hand.

    python benchmarks/make_tables.py            print the page as it should be
    python benchmarks/make_tables.py --write    and put it in its place

What stands between `<!-- table: NAME -->` and `<!-- end -->` is replaced; NAME is "summary" or a file of `results/`.
The rest of the page is prose, and is left as it is.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER / "README.md"
MARKED = re.compile(r"(<!-- table: ([\w.]+) -->\n).*?(<!-- end -->)", re.DOTALL)
AUDITS = "audit_economics.json"
MEMORY = "worker_memory.json"
KILLS = "kill_any.jsonl"
WAYS = "exact_equality_"
MACHINES = "two_machines.jsonl"
WORLDS = "simulated_worlds.jsonl"
FUZZ = "wire_fuzz.jsonl"
CLIENTS = "clients.jsonl"
TRIES = ("http_fuzz.jsonl", "hostile_cgroup.jsonl")

Row = dict[str, Any]


def read(name: str) -> Any:
    """A file of `results/`; of a `.jsonl`, its lines."""
    text = (FOLDER / "results" / name).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()] if name.endswith(".jsonl") else json.loads(text)


def page(text: str) -> str:
    """The page with all its tables made anew. Raises FileNotFoundError for one without results."""
    return MARKED.sub(lambda found: f"{found[1]}{made(found[2])}\n{found[3]}", text)


def made(name: str) -> str:
    """What stands under a name."""
    if name == "summary":
        return summary()
    if name == AUDITS:
        return audits(read(name))
    if name.startswith(WAYS):
        return ways(read(name))
    if name == MEMORY:
        return memory(read(name))
    if name == MACHINES:
        return machines(read(name))
    if name == WORLDS:
        return worlds(read(name))
    if name == FUZZ:
        return fuzz(read(name))
    if name == CLIENTS:
        return clients(read(name))
    if name in TRIES:
        return tries(read(name))
    return kills(read(name)) if name == KILLS else record(read(name))


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def clients(found: list[Row]) -> str:
    """Other people's clients, and what worked with them."""
    rows = [[f"`{one['client']}`", one["version"], one["use"], "yes" if one["ok"] else one["why"]] for one in found]
    return table(["client", "version", "use", "works"], rows)


def tries(found: list[Row]) -> str:
    """What was tried, how often, and how much of it worked."""
    rows = [[f"`{one['command']}`", f"{one['cases']:,}", str(one["failed"]), one["note"]] for one in found]
    return table(["run", "cases", "failed", "note"], rows)


def memory(found: dict[str, Any]) -> str:
    """What workers held at their peak, and what their orders ask for."""
    rows = [[name, peaks_of(one), figure(one["asked_bytes"] / 2**20), share(one)] for name, one in found["raw"].items()]
    heads = ["worker", "peak of each run, MiB", "asked for, MiB", "largest share"]
    return f"{table(heads, rows)}\n\n`python benchmarks/worker_memory.py`, {found['began'][:10]}."


def peaks_of(one: dict[str, Any]) -> str:
    """The peaks of all runs, in MiB."""
    return " / ".join(figure(peak / 2**20) for peak in one["peaks_bytes"])


def share(one: dict[str, Any]) -> str:
    """The largest peak, of what was asked for."""
    return f"{max(one['peaks_bytes']) / one['asked_bytes']:.2f}"


def figure(value: float) -> str:
    """Four digits at most, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def value_of(row: Row) -> float:
    """A row's figure, whichever of its values that is."""
    return row["median"] if "median" in row else row["p99"]


def told(row: Row) -> str:
    """A row's figure with its unit, and where 95 % of such medians lie when that is known."""
    said = f"{figure(value_of(row))} {row['unit']}".rstrip()
    if "interval95" in row:
        said += " (95 %: {} to {})".format(*map(figure, row["interval95"]))
    return said


def goal_of(row: Row) -> str:
    """The bound and whether it holds; "" without one."""
    if "goal" not in row:
        return ""
    bound = ("at most " if row["better"] == "less" else "at least ") + figure(row["goal"])
    return bound + (": met" if row["met"] else ": **not met**")


def summary() -> str:
    """A line per claim: what was asked for, and what was measured."""
    rows: list[list[str]] = []
    for path in sorted((FOLDER / "results").glob("*.json")):
        if path.name == AUDITS:
            continue
        found = read(path.name)
        aims = [row for row in found["rows"] if "goal" in row]
        said = [f"{row['what']}: {figure(value_of(row))} {row['unit']}".rstrip() + f" ({goal_of(row)})" for row in aims]
        rows.append([f"`{found['script']}`", found["claim"], "; ".join(said)])
    return table(["script", "claim", "measured"], rows)


def record(found: Row) -> str:
    """All rows of one script's last run, and where and when it ran."""
    rows = [
        [row["who"], row["version"], row["what"], told(row),
         f"{figure(row['least'])} to {figure(row['most'])}", str(row["n"]), goal_of(row)]
        for row in found["rows"]
    ]  # fmt: skip
    heads = ["who", "version", "what", "figure", "range", "n", "goal"]
    return table(heads, rows) + "\n\n" + run_of(found)


def run_of(found: Row) -> str:
    """One sentence on the run."""
    command = " ".join(["python", f"benchmarks/{found['script']}", *found["arguments"]])
    load = f"load {found['load_before'][0]:g} before"
    if "load_after" in found:
        load += f" and {found['load_after'][0]:g} after"
    said = f"`{command}`, {found['began'][:10]}, commit {found['commit'][:7] or 'unknown'}, {load}."
    if found["seed"] is not None:
        said += f" Seed {found['seed']}."
    return " ".join([said, *(f"{why[:1].upper()}{why[1:].rstrip('.')}." for why in found["left_out"])])


def audits(rows: list[Row]) -> str:
    """What auditing costs by policy and by kind of cheats."""
    return table(
        ["cheats", "policy", "executions per task", "wrong, %", "worst seed, %", "honest banned"],
        [[row["cheats"], row["policy"], figure(row["executions_per_task"]), figure(row["wrong_percent"]),
          figure(row["wrong_percent_max"]), figure(row["honest_banned"])] for row in rows],
    )  # fmt: skip


def ways(rows: list[Row]) -> str:
    """The state's hash after the most steps, and which ways of training led to it."""
    most = max((int(steps) for row in rows for steps in row["hashes"]), default=0)
    last = [[row["way"], str(most), f"`{row['hashes'].get(str(most), '')[:16]}`"] for row in rows]
    return table(["way", "steps", "state hash begins"], last)


def machines(rows: list[Row]) -> str:
    """The same training on unlike machines."""
    lines: list[list[str]] = []
    for row in rows:
        steps, found = max(row["hashes"].items(), key=lambda one: int(one[0]))
        lines.append([row["subject"], row["machine"], steps, f"`{found[:16]}`"])
    return table(["model", "machine", "steps", "state hash begins"], lines)


def kills(rows: list[Row]) -> str:
    """How often each process was killed, and how it ended."""
    victims = sorted({row["victim"] for row in rows})
    return table(
        ["killed", "times", "job finished and books balanced"],
        [[who, str(len(moments)), f"{sum(row['ok'] for row in moments)} of {len(moments)}"]
         for who in victims if (moments := [row for row in rows if row["victim"] == who])],
    )  # fmt: skip


def worlds(rows: list[Row]) -> str:
    """How many simulated worlds kept every invariant, and which did not."""
    return table(
        ["run", "commit", "seeds", "failed", "why"],
        [[f"`{row['command']}`", row["commit"], str(row["seeds"]), ", ".join(map(str, row["failed"])) or "none",
          row.get("why", "")] for row in rows],
    )  # fmt: skip


def fuzz(rows: list[Row]) -> str:
    """How many spoilt inputs were read at the doors for strangers' bytes, and what was not foreseen."""
    return table(
        ["inputs", "seed", "readings", "unexpected", "slowest", "peak memory"],
        [[f"{row['inputs']:,}", str(row["seed"]), f"{row['calls']:,}", str(len(row["unexpected"])),
          f"{row['slowest_s'] * 1e3:.0f} ms", f"{row['peak_rss_mib']} MiB"] for row in rows],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the page in its place")
    text = page(PAGE.read_text("utf-8"))
    if parser.parse_args().write:
        PAGE.write_text(text, "utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
