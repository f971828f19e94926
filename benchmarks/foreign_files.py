"""How many files of other networks get the verdict that their own network's code gave, and the same hash or price.

FOLDER holds `akash/verdicts.json`, `flux/verdicts.json` and `bacalhau/jobs/`, as recorded by running the originals;
they are not in the repository. Without it, or where `FALLOW_BENCH_FOREIGN` does not name it, nothing is measured.

    python benchmarks/foreign_files.py [FOLDER]

Prints one JSON line per comparison, names every file that differs, and writes the counts to
`benchmarks/results/foreign_files.json`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _record import OURS, Figure, Record
from fallow.interop.model import FileRefused, Import
from fallow.interop.registry import FORMATS, Settings, by_name

CLAIM = "every recorded file of another network gets its verdict, and the same hash or price"
Compared = Iterator[tuple[str, str, bool]]
"""What is compared, of which file, and whether it agrees."""


def outcome(name: str, data: bytes) -> Import | None:
    """What a file becomes; None if it is refused."""
    try:
        return by_name(name).read(data, Settings())
    except FileRefused:
        return None


def akash(folder: Path) -> Compared:
    """Verdicts of chain-sdk, and hashes of manifests."""
    for row in json.loads((folder / "verdicts.json").read_text("utf-8")):
        found = outcome("akash", (folder / row["file"]).read_bytes())
        yield "verdicts", row["file"], (found is not None) == row["ok"]
        if row["ok"]:
            made = (found.digest, found.canonical) if found is not None else None
            yield "hashes", row["file"], made == (row["version_sha256"], row["manifest_sorted_json"])


def flux(folder: Path) -> Compared:
    """Verdicts of FluxOS, and prices."""
    for row in json.loads((folder / "verdicts.json").read_text("utf-8")):
        found = outcome("flux", json.dumps(row["spec"]).encode())
        yield "verdicts", row["name"], (found is not None) == row["accept"]
        if row["accept"]:
            price = found.price if found is not None else None
            yield (
                "prices",
                row["name"],
                price is not None and float(price.amount) == row["price_usd_per_month_usdprice"],
            )


def bacalhau(folder: Path) -> Compared:
    """Jobs of Bacalhau's own tests: all are jobs, but for an empty file."""
    for path in sorted(path for path in (folder / "jobs").rglob("*") if path.suffix in (".yaml", ".yml", ".json")):
        data = path.read_bytes()
        yield "verdicts", path.name, (outcome("bacalhau", data) is not None) == bool(data.strip())


COMPARED = {"akash": akash, "flux": flux, "bacalhau": bacalhau}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=os.environ.get("FALLOW_BENCH_FOREIGN"))
    folder = parser.parse_args().folder
    if folder is None:
        sys.exit("No folder of recorded files: name one, or set FALLOW_BENCH_FOREIGN.")
    record, version = Record(__file__, CLAIM), importlib.metadata.version(OURS)
    titles = {it.name: it.title for it in FORMATS}
    raw: dict[str, Any] = {}
    for name, compare in COMPARED.items():
        agree: dict[str, list[bool]] = {}
        for what, file, same in compare(Path(folder) / name):
            agree.setdefault(what, []).append(same)
            if not same:
                print(f"differs: {name} {what} {file}", file=sys.stderr)
                raw.setdefault(f"{name} {what}", []).append(file)
        for what, rows in agree.items():
            title = f"{titles[name]}: {what} that agree, of {len(rows)}"
            record.add(Figure(OURS, title, "", [float(sum(rows))], goal=float(len(rows)), version=version))
    record.write({"that differ": raw})


if __name__ == "__main__":
    main()
