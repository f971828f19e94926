"""What reading an Akash SDL costs: from its bytes to the manifest's hash, beside Akash's own `@akashnetwork/chain-
sdk` on Node, which does the same with the parser that it depends on.

The peer is measured when `FALLOW_BENCH_CHAIN_SDK` names the folder in which `npm install @akashnetwork/chain-sdk` was
run. Files are those below the folder `FALLOW_BENCH_SDL_FILES`, or a few that are made here. Both read all of them in
turns; refused files count, too. A round's figure is its mean per file, of the clock's time and of the processor's,
since the clock's grows with whatever else the machine does; the first two rounds of each side are not counted.

    python benchmarks/sdl_speed.py [--rounds N]

Prints one JSON line per side and writes every round to `benchmarks/results/sdl_speed.json`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from _record import OURS, Figure, Player, Record
from fallow.interop.model import FileRefused
from fallow.interop.registry import Settings, by_name

CLAIM = "an SDL file is parsed and hashed in at most 1.1 ms"
GOAL_MS = 1.1
WARM_UP = 2
PEER = """
const {createRequire} = require("module"), fs = require("fs");
const at = createRequire(process.argv[1] + "/x.js"), sdk = at("@akashnetwork/chain-sdk");
const yaml = createRequire(at.resolve("@akashnetwork/chain-sdk"))("js-yaml");
const lines = require("readline").createInterface({input: process.stdin});
const files = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
lines.on("line", async () => {
  const began = process.hrtime.bigint(), used = process.cpuUsage(), hashes = [];
  for (const text of files) {
    try {
      const made = sdk.generateManifest(yaml.load(text));
      const hash = made.ok ? await sdk.generateManifestVersion(made.value.groups) : null;
      hashes.push(hash && Buffer.from(hash).toString("hex"));
    } catch { hashes.push(null); }
  }
  const ms = Number(process.hrtime.bigint() - began) / 1e6, cpu = process.cpuUsage(used);
  console.log(JSON.stringify({ms, cpu_ms: (cpu.user + cpu.system) / 1e3, hashes}));
});
"""


def made_here() -> list[str]:
    """Files of one to eleven services, as long as real ones."""
    files: list[str] = []
    for count in range(1, 12):
        names = [f"service{number}" for number in range(count)]
        service = {
            "image": "example/image:1.2.3", "env": [f"VARIABLE_{n}=some value {n}" for n in range(8)],
            "expose": [{"port": 8080, "as": 80, "to": [{"global": True}]}],
        }  # fmt: skip
        needs = {"cpu": {"units": 0.5}, "memory": {"size": "512Mi"}, "storage": [{"size": "1Gi"}]}
        price = {"denom": "uakt", "amount": 1000}
        sdl: dict[str, Any] = {
            "version": "2.0", "services": dict.fromkeys(names, service),
            "profiles": {
                "compute": {name: {"resources": needs} for name in names},
                "placement": {"dc": {"pricing": dict.fromkeys(names, price)}},
            },
            "deployment": {name: {"dc": {"profile": name, "count": 1}} for name in names},
        }  # fmt: skip
        files.append(json.dumps(sdl, indent=1))
    return files


def ours(files: list[bytes]) -> dict[str, Any]:
    """One round: ms by the clock and of the processor, and the hashes."""
    akash, settings, hashes = by_name("akash"), Settings(), list[str | None]()
    began, used = time.perf_counter(), time.process_time()
    for data in files:
        try:
            hashes.append(akash.read(data, settings).digest)
        except FileRefused:
            hashes.append(None)
    ms, cpu_ms = (time.perf_counter() - began) * 1000, (time.process_time() - used) * 1000
    return {"ms": ms, "cpu_ms": cpu_ms, "hashes": hashes}


def peer_of(record: Record, texts: list[str], listed: Path) -> tuple[str, Player] | None:
    """The peer's version and its process, if it is here."""
    folder = os.environ.get("FALLOW_BENCH_CHAIN_SDK")
    if not folder:
        record.leave_out("chain-sdk: FALLOW_BENCH_CHAIN_SDK names no folder with it")
        return None
    listed.write_text(json.dumps(texts), "utf-8")
    package = Path(folder) / "node_modules/@akashnetwork/chain-sdk/package.json"
    return json.loads(package.read_text("utf-8"))["version"], Player(["node", "-e", PEER, folder, str(listed)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    record = Record(__file__, CLAIM)
    folder = os.environ.get("FALLOW_BENCH_SDL_FILES")
    paths = sorted(Path(folder).rglob("*.y*ml")) if folder else []
    texts = [path.read_text("utf-8") for path in paths] or made_here()
    files, rounds = [text.encode() for text in texts], dict[str, list[dict[str, Any]]]({OURS: [], "chain-sdk": []})
    versions = {OURS: importlib.metadata.version(OURS)}
    with tempfile.TemporaryDirectory() as folder:
        peer = peer_of(record, texts, Path(folder) / "files.json")
        for _ in range(args.rounds + WARM_UP):
            rounds[OURS].append(ours(files))
            if peer:
                versions["chain-sdk"] = peer[0]
                rounds["chain-sdk"].append(peer[1].ask({}))
        if peer:
            peer[1].stop()
    for who, version in versions.items():
        for what, name in (("the clock", "ms"), ("the processor", "cpu_ms")):
            values = [one[name] / len(files) for one in rounds[who][WARM_UP:]]
            title, goal = f"a file, from bytes to hash, by {what}", GOAL_MS if who == OURS else None
            record.add(Figure(who, title, "ms", values, goal=goal, less=True, version=version))
    theirs = rounds["chain-sdk"][-1]["hashes"] if peer else []
    agree = sum(mine == other for mine, other in zip(rounds[OURS][-1]["hashes"], theirs, strict=False))
    record.write({"files": len(files), "bytes": sum(map(len, files)), "same verdict and hash": agree})


if __name__ == "__main__":
    main()
