"""What the way through the network costs a chat: the same streamed request to llama.cpp's own server, and through
Fallow's gateway (HTTP, key and budget, steward, signed lease, provider, worker with the same engine, receipt), and
through the litellm proxy in front of the former. SmolLM2-135M-Instruct Q4_1, the official `openai` client, two threads.

Direct, gateway and proxy take turns, in changing order, so that whatever else the machine does hits all of them. A turn
of short answers is RUN of them by the same one, the first of which is not counted: so what somebody has still to do for
an answer (claims, receipts, logs) falls on their own next one, and what the one before left undone falls on nobody.
Added time is gateway - direct of the same place in the same turn, a ratio is gateway / direct of the same turn. Every
prompt begins with a new number: none is sent twice, so none is answered from a cache of prompts; that the engine reads
the same number of tokens behind us is checked. Engine, gateway and client share the cores.

    FALLOW_BENCH_LITELLM_PYTHON=.../bin/python python benchmarks/gateway.py [--turns N] [--brief N] [--long N]
        [--many N]

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
from contextlib import AsyncExitStack, ExitStack, suppress
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
RUN, WARM_UP = 5, 5
FIRST, BRIEF = "first token", "first token, short prompt"
READ = "tokens of a prompt"
SPENT = "processor time of a short answer"
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

    from fallow.adapters.runners.leash import leash
    from fallow.ports import WorkerLimits

    os.setsid()
    leash(os.getppid(), WorkerLimits().nice, 0)
    settings: Any = xllamacpp.CommonParams()
    settings.model.path = model
    settings.n_parallel, settings.n_ctx = STREAMS, CONTEXT * STREAMS
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = THREADS
    settings.hostnames, settings.port = ["127.0.0.1"], 0
    server: Any = xllamacpp.Server(settings)
    print(f'{{"address": "{server.listening_address}"}}', flush=True)
    signal.pause()


def start_proxy(python: str, address: str, folder: Path, stack: ExitStack) -> tuple[str, str]:
    """litellm, in its own Python and session, as our processes are; -> its base URL and a key that it takes."""
    from fallow.cli.demo_net import REIN

    (folder / "config.yaml").write_text(CONFIG.format(address=address))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port, key = probe.getsockname()[1], "sk-" + secrets.token_hex(24)
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    env |= {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "HF_HUB_OFFLINE": "1", "NO_PROXY": "*",
        "LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": key, "HOME": str(folder),
    }  # fmt: skip
    command = [*REIN, str(os.getpid()), "0", "0", python, str(Path(python).with_name("litellm"))]
    command += ["--config", str(folder / "config.yaml")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    log = stack.enter_context((folder / "litellm.log").open("w+"))
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
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
    config = f"[provider]\nthreads = {THREADS}\n{network.settings}"
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


def messages(brief: bool) -> list[Any]:
    """A prompt that was never sent before."""
    if brief:
        return [{"role": "system", "content": f"{next(_number)}"}, {"role": "user", "content": "Go on."}]
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
    prompt_tokens: int

    @property
    def rate(self) -> float:
        """Tokens per second after the first one."""
        return (self.tokens - 1) / (self.last_s - self.first_s)


async def one(client: openai.AsyncOpenAI, tokens: int, *, brief: bool = False) -> Streamed:
    """Ask, and read to the end."""
    began, first, last, made, read = time.perf_counter(), 0.0, 0.0, 0, 0
    stream = await client.chat.completions.create(
        model=MODEL, messages=messages(brief), max_tokens=tokens, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            last = time.perf_counter()
            first = first or last
        if getattr(chunk, "usage", None) is not None and chunk.usage:
            made, read = chunk.usage.completion_tokens, chunk.usage.prompt_tokens
    return Streamed(first - began, last - began, made, read)


async def some(client: openai.AsyncOpenAI, brief: bool) -> list[Streamed]:
    """A turn of short answers, without the first."""
    return [await one(client, SHORT_TOKENS, brief=brief) for _ in range(RUN)][1:]


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


def processor_ms(process: int) -> float:
    """What all threads of a process have computed so far, by Linux's count; 0 where it keeps none."""
    spent_ns = 0
    for thread in Path(f"/proc/{process}/task").glob("*/schedstat"):
        with suppress(OSError):  # it has ended since
            spent_ns += int(thread.read_text("ascii").split()[0])
    return spent_ns / 1e6


async def prompt_tokens(clients: Clients, brief: bool) -> float:
    """How many tokens the engine reads for a prompt. Raises RuntimeError when that differs between it and us."""
    read = [(await one(clients[who], SHORT_TOKENS, brief=brief)).prompt_tokens for who in (DIRECT, OURS)]
    if read[0] != read[1]:
        raise RuntimeError(f"not the same prompt: {read[0]} tokens directly, {read[1]} through the gateway")
    return float(read[0])


async def race(
    clients: Clients, processes: dict[str, int], options: argparse.Namespace
) -> dict[str, dict[str, list[float]]]:
    """-> by figure and by whom: the values of all turns. `processes` are those that work for an answer of ours."""
    for client in clients.values():
        for _ in range(WARM_UP):
            await one(client, 16)
    found: dict[str, dict[str, list[float]]] = {
        READ: {what: [await prompt_tokens(clients, what == BRIEF)] for what in (FIRST, BRIEF)}
    }
    spent: dict[str, list[float]] = {name: [] for name in processes}

    async def turn(client: openai.AsyncOpenAI, brief: bool) -> list[Streamed]:
        before = {name: processor_ms(process) for name, process in processes.items()}
        answers = await some(client, brief)
        if client is clients[OURS] and not brief:
            for name, process in processes.items():
                spent[name].append((processor_ms(process) - before[name]) / RUN)
        return answers

    for what, turns in ((FIRST, options.turns), (BRIEF, options.brief)):
        short = await in_turns(clients, turns, lambda client, brief=what == BRIEF: turn(client, brief))
        answers = {who: [answer for run in runs for answer in run] for who, runs in short.items()}
        found[what] = {who: [1e3 * answer.first_s for answer in them] for who, them in answers.items()}
    long = await in_turns(clients, options.long, lambda client: one(client, LONG_TOKENS))
    found["one stream"] = {who: [answer.rate for answer in answers] for who, answers in long.items()}
    found[f"{STREAMS} streams"] = await in_turns(clients, options.many, many)
    return found | {SPENT: spent}


def report(record: Record, found: dict[str, dict[str, list[float]]], versions: dict[str, str]) -> None:
    """Differences and ratios of the same turn first, then what they were taken from."""
    others = [who for who in found[FIRST] if who != DIRECT]
    for what in (FIRST, BRIEF):
        for who in others:
            goal = ADDED_GOAL_MS if who == OURS and what == FIRST else None
            added = [there - here for there, here in zip(found[what][who], found[what][DIRECT], strict=True)]
            told = Figure(
                who, f"added to the {what}", "ms", added, goal, less=True, version=versions[who], turn=RUN - 1
            )
            record.add(told)
    for what in ("one stream", f"{STREAMS} streams"):
        for who in others:
            goal = SHARE_GOAL if who == OURS else None
            shares = [there / here for there, here in zip(found[what][who], found[what][DIRECT], strict=True)]
            told = Figure(who, f"tokens/s, {what}: share of direct", "", shares, goal, version=versions[who], turn=1)
            record.add(told)
    for name, values in found.pop(SPENT).items():
        record.add(Figure(OURS, f"{SPENT}: {name}", "ms", values, less=True, version=versions[OURS]))
    for what, by_whom in found.items():
        unit = "ms" if what in (FIRST, BRIEF) else "tokens/s"
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
    network = stack.enter_context(Network(folder / "net", boxed=not options.unboxed))
    doors[OURS] = await start_gateway(network, model)
    processes = {name: network.member(name).process.pid for name in ("gateway", "steward", "provider")}
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
            processes | {"client": os.getpid()},
            options,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unboxed", action="store_true", help="the worker lives in no box")
    parser.add_argument("--turns", type=int, default=50, help=f"turns of {RUN} short answers, for the first token")
    parser.add_argument("--brief", type=int, default=20, help="the same after a short prompt")
    parser.add_argument("--long", type=int, default=10, help="turns of long answers")
    parser.add_argument("--many", type=int, default=6, help="turns of several long answers together")
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
    prompts = {what: int(read) for what, (read,) in found.pop(READ).items()}
    report(record, found, versions)
    record.write(
        {"tokens_short": SHORT_TOKENS, "tokens_long": LONG_TOKENS, "streams": STREAMS, "threads": THREADS, "run": RUN,
         "prompt_tokens": prompts}
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--play-engine"]:
        play_engine(sys.argv[2])
    else:
        main()
