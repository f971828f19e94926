"""What the way through the network costs a chat: the same streamed request to llama.cpp's own server, and through
Fallow's gateway (HTTP, key and budget, steward, signed lease, provider, worker with the same engine, receipt), and
through the litellm proxy in front of the former. SmolLM2-135M-Instruct Q4_1, the official `openai` client, two threads.

Direct, gateway and proxy take turns, in changing order, so that whatever else the machine does hits all of them. Added
time is gateway - direct of the same turn, a ratio is gateway / direct of the same turn. Every prompt begins with a new
number: none is sent twice, so none is answered from a cache of prompts. Engine, gateway and client share the cores.

    FALLOW_BENCH_LITELLM_PYTHON=.../bin/python python benchmarks/gateway.py [--pairs N] [--long N] [--many N]

Without a Python that has litellm it is left out. Prints one JSON line per figure; writes `results/gateway.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _record import OURS, Figure, Player, Record, peer_python

if TYPE_CHECKING:
    import openai

    from fallow.cli.demo_net import Network

CLAIM = "the gateway adds at most 5 ms to the first token and keeps at least 97 % of the engine's tokens/s"
DIRECT, PROXY = "llama.cpp's own server", "litellm proxy"
MODEL = "smollm2"
STREAMS, CONTEXT, THREADS = 4, 2048, 2
SHORT_TOKENS, LONG_TOKENS = 2, 128
WARM_UP = 5
START_S = 120.0
ADDED_GOAL_MS, SHARE_GOAL = 5.0, 0.97
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""How threads wait for each other, as in a provider's worker. As shipped they spin: no faster on an idle machine, and
several times slower beside any other process."""
CONFIG = """
model_list:
  - model_name: smollm2
    litellm_params: {{model: openai/smollm2, api_base: "{address}/v1", api_key: none}}
litellm_settings: {{telemetry: false, request_timeout: 60, num_retries: 0}}
"""


# the engine by itself, and litellm in front of it ---------------------------------------------------------------------


def play_engine(model: str) -> None:
    """llama.cpp's server with the settings that a provider's worker uses, yielding as that does."""
    import xllamacpp

    from fallow.adapters.worker import WorkerLimits

    os.nice(WorkerLimits().nice)
    settings: Any = xllamacpp.CommonParams()
    settings.model.path = model
    settings.n_parallel, settings.n_ctx = STREAMS, CONTEXT * STREAMS
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = THREADS
    settings.hostnames, settings.port = ["127.0.0.1"], 0
    server: Any = xllamacpp.Server(settings)
    print(f'{{"address": "{server.listening_address}"}}', flush=True)
    signal.pause()


def start_proxy(python: str, address: str, folder: Path, stack: ExitStack) -> tuple[str, str]:
    """litellm, in its own Python; -> its base URL and a key that it takes."""
    (folder / "config.yaml").write_text(CONFIG.format(address=address))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port, key = probe.getsockname()[1], "sk-" + secrets.token_hex(24)
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    env |= {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "HF_HUB_OFFLINE": "1", "NO_PROXY": "*",
        "LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": key, "HOME": str(folder),
    }  # fmt: skip
    command = [python, str(Path(python).with_name("litellm")), "--config", str(folder / "config.yaml")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    log = stack.enter_context((folder / "litellm.log").open("w+"))
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT)
    stack.callback(process.wait)
    stack.callback(process.kill)
    for _ in range(int(START_S / 0.1)):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=2).read()
        except OSError:
            time.sleep(0.1)
        else:
            return f"http://127.0.0.1:{port}/v1", key
    raise RuntimeError("litellm did not start: " + (folder / "litellm.log").read_text()[-2000:])


# Fallow ---------------------------------------------------------------------------------------------------------------


async def start_gateway(network: Network, model: Path) -> tuple[str, str]:
    """A whole network that serves the model; -> the gateway's base URL and a key."""
    client = await network.found(providers=0, cheats=0)
    ticket = network.member("bank").announced["ticket"]
    config = f"[provider]\nthreads = {THREADS}\n"
    provider = network.start("provider", "provide", ticket, "--bind", "127.0.0.1:0", config=config)
    await provider.wait_until_ready()
    while not await client.offers():
        await asyncio.sleep(0.2)
    await client.serve(MODEL, model, None, CONTEXT, budget="500", workers=1, verify="none", name=MODEL)
    async with asyncio.timeout(START_S):
        while not any(served.ready for served in await client.models()):
            await asyncio.sleep(0.2)
    return network.member("gateway").announced["base_url"], await client.make_key("bench", "100")


# one request ----------------------------------------------------------------------------------------------------------

_number = itertools.count(int(time.time() * 1000) % 10**9)


def messages() -> list[Any]:
    """A prompt that was never sent before."""
    return [
        {"role": "system", "content": f"{next(_number)} is the number of this conversation."},
        {"role": "user", "content": "Write a long story about a lighthouse keeper and the sea. Use many words."},
    ]


@dataclass(frozen=True)
class Streamed:
    """One streamed answer, as its reader saw it."""

    first_s: float
    last_s: float
    tokens: int

    @property
    def rate(self) -> float:
        """Tokens per second after the first one."""
        return (self.tokens - 1) / (self.last_s - self.first_s)


async def one(client: openai.AsyncOpenAI, tokens: int) -> Streamed:
    """Ask, and read to the end."""
    began, first, last, made = time.perf_counter(), 0.0, 0.0, 0
    stream = await client.chat.completions.create(
        model=MODEL, messages=messages(), max_tokens=tokens, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            last = time.perf_counter()
            first = first or last
        made = chunk.usage.completion_tokens if getattr(chunk, "usage", None) is not None and chunk.usage else made
    return Streamed(first - began, last - began, made)


async def many(client: openai.AsyncOpenAI) -> float:
    """Tokens per second of several streams together, prompts included."""
    began = time.perf_counter()
    answers = await asyncio.gather(*[one(client, LONG_TOKENS) for _ in range(STREAMS)])
    return sum(answer.tokens for answer in answers) / (time.perf_counter() - began)


# the race -------------------------------------------------------------------------------------------------------------

Clients = dict[str, Any]


async def in_turns(clients: Clients, times: int, what: Any) -> dict[str, list[Any]]:
    """`what` on everyone, `times` times, in an order that changes each time."""
    found: dict[str, list[Any]] = {who: [] for who in clients}
    names = list(clients)
    for number in range(times):
        for at in range(len(names)):
            who = names[(number + at) % len(names)]
            found[who].append(await what(clients[who]))
    return found


async def race(clients: Clients, options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """-> by figure and by whom: the values of all turns."""
    for client in clients.values():
        for _ in range(WARM_UP):
            await one(client, 16)
    short = await in_turns(clients, options.pairs, lambda client: one(client, SHORT_TOKENS))
    long = await in_turns(clients, options.long, lambda client: one(client, LONG_TOKENS))
    together = await in_turns(clients, options.many, many)
    return {
        "first token": {who: [1e3 * answer.first_s for answer in answers] for who, answers in short.items()},
        "one stream": {who: [answer.rate for answer in answers] for who, answers in long.items()},
        f"{STREAMS} streams": together,
    }


def report(record: Record, found: dict[str, dict[str, list[float]]], versions: dict[str, str]) -> None:
    """Differences and ratios of the same turn first, then what they were taken from."""
    others = [who for who in found["first token"] if who != DIRECT]
    for who in others:
        goal = ADDED_GOAL_MS if who == OURS else None
        firsts = found["first token"]
        added = [there - here for there, here in zip(firsts[who], firsts[DIRECT], strict=True)]
        record.add(Figure(who, "added to the first token", "ms", added, goal, less=True, version=versions[who]))
    for what in ("one stream", f"{STREAMS} streams"):
        for who in others:
            goal = SHARE_GOAL if who == OURS else None
            shares = [there / here for there, here in zip(found[what][who], found[what][DIRECT], strict=True)]
            record.add(Figure(who, f"tokens/s, {what}: share of direct", "", shares, goal, version=versions[who]))
    for what, by_whom in found.items():
        unit = "ms" if what == "first token" else "tokens/s"
        for who, values in by_whom.items():
            record.add(Figure(who, what, unit, values, less=unit == "ms", version=versions[who]))


async def measure(stack: ExitStack, folder: Path, litellm: str | None, options: argparse.Namespace) -> Any:
    """Start everybody, then race."""
    import openai

    from fallow.cli.demo import demo_model
    from fallow.cli.demo_net import Network

    model = demo_model()
    engine = Player([sys.executable, __file__, "--play-engine", str(model)], WAITING, quiet=True)
    stack.callback(engine.process.wait)
    stack.callback(engine.process.kill)
    address = engine.hear()["address"]
    doors = {DIRECT: (f"{address}/v1", "none")}
    doors[OURS] = await start_gateway(stack.enter_context(Network(folder / "net")), model)
    if litellm is not None:
        doors[PROXY] = start_proxy(litellm, address, folder, stack)
    async with AsyncExitStack() as clients:
        return await race(
            {
                who: await clients.enter_async_context(
                    openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=120)
                )
                for who, (url, key) in doors.items()
            },
            options,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100, help="turns of short answers, for the first token")
    parser.add_argument("--long", type=int, default=12, help="turns of long answers")
    parser.add_argument("--many", type=int, default=8, help="turns of several long answers together")
    options = parser.parse_args()
    record = Record(__file__, CLAIM)
    versions = {OURS: importlib.metadata.version(OURS), DIRECT: importlib.metadata.version("xllamacpp")}
    peer = peer_python("FALLOW_BENCH_LITELLM_PYTHON", "litellm")
    if peer is None:
        record.leave_out("litellm is not installed in this Python nor named by FALLOW_BENCH_LITELLM_PYTHON: left out")
    else:
        versions[PROXY] = peer[1]["litellm"]
    folder = Path(tempfile.mkdtemp(prefix="fallow-bench-gateway-"))
    try:
        with ExitStack() as stack:
            found = asyncio.run(measure(stack, folder, peer[0] if peer else None, options))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report(record, found, versions)
    record.write({"tokens_short": SHORT_TOKENS, "tokens_long": LONG_TOKENS, "streams": STREAMS, "threads": THREADS})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--play-engine"]:
        play_engine(sys.argv[2])
    else:
        main()
