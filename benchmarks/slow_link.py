"""One training job on two machines that are each behind a link of 10 Mbit/s up and 10 Mbit/s down, beside torch's
DistributedDataParallel (gloo) on the same two: the same Llama of 3.3M parameters, all of them trained, the same text,
the same batches of 8 x 128 tokens, one thread a worker.

Each worker lives in a network namespace of its own; a third one, the hub, joins their links and holds bank, directory
and steward. `tc tbf` limits both ends of both links. Utilisation is the time that a worker spends in optimisation steps
(forward, backward, optimiser; nothing else) by the time that passes:

- `rounds`: from the start of the second round to the end of the last. A round is all that must happen again and again:
  steps, packing, sending the update, fetching the other's, applying both. DDP's is of its steps, in the same way. The
  job runs one round ahead of its log (`fallow train --overlap`), unless --in-step is given.
- `whole job`: from submitting the job to its end, with fetching the model (13 MB) at first and sending the result back.
  DDP's is of its steps only: it has its model already and keeps its result.

DDP's step by itself is measured in the same processes without synchronisation, side by side. The held-out loss is given
for both at equal time on the link (DDP takes as many steps as fit; since the link does not change what is computed,
these are run without it), and with --equal-tokens after as many steps as Fallow took.

    python benchmarks/slow_link.py [--rounds N] [--steps N] [--in-step] [--equal-tokens]    as root, for `ip` and `tc`

Answers are not checked by re-execution here (`verify=none`): DDP checks nothing either, and both providers are busy.
Prints one JSON line per figure; writes `results/slow_link.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _record import OURS, Figure, Player, Record

CLAIM = "a training job over 10 Mbit/s links keeps its workers computing at least 90 % of the time"
DDP = "torch DDP, gloo"
GOAL = 0.90
RATE = "10mbit"
WORKERS = 2
SEED = 1
HUB_ADDRESS = "10.213.0.1"
LENGTH, BATCH, HOLDOUT = 128, 8, 32
LEARNING_RATE, WARM_UP, DECAY, CLIP = "0.001", 20, "0.0", "1.0"
SHAPED_STEPS, ALONE_STEPS = 5, 20
MAX_JOB_S = 3600


# the links ------------------------------------------------------------------------------------------------------------


def sh(command: str) -> None:
    subprocess.run(command.split(), check=True)


@dataclass(frozen=True)
class Links:
    """Namespaces by name, and the commands that run something in them."""

    tag: str

    def space(self, name: str) -> str:
        return f"fallow-{self.tag}-{name}"

    def within(self, name: str) -> tuple[str, ...]:
        return (shutil.which("ip") or "ip", "netns", "exec", self.space(name))

    def address(self, number: int) -> str:
        """Of worker `number`, from 1."""
        return f"10.213.{number}.2"

    def port(self, number: int) -> str:
        """The worker's interface."""
        return f"fb{self.tag}w{number}"

    def sent_bytes(self, number: int) -> int:
        """What the worker has sent over its link so far, headers included."""
        found = subprocess.run(
            [*self.within(f"w{number}"), "cat", "/proc/net/dev"], check=True, capture_output=True, text=True
        )
        return next(int(row.split()[9]) for row in found.stdout.splitlines() if self.port(number) in row)


@contextmanager
def slow_links() -> Generator[Links]:
    """A hub and WORKERS workers, each behind a slow link of its own. Everything is removed afterwards."""
    links = Links(f"{os.getpid() % 100_000}")
    names = ["hub", *(f"w{number}" for number in range(1, WORKERS + 1))]
    with ExitStack() as stack:
        for name in names:
            sh(f"ip netns add {links.space(name)}")
            stack.callback(sh, f"ip netns del {links.space(name)}")
            sh(f"ip -n {links.space(name)} link set lo up")
        hub = links.space("hub")
        sh(f"ip -n {hub} addr add {HUB_ADDRESS}/32 dev lo")
        sh(f"ip netns exec {hub} sysctl -qw net.ipv4.ip_forward=1")
        shape = f"root tbf rate {RATE} burst 32kb latency 50ms"
        for number in range(1, WORKERS + 1):
            far, here, there = links.space(f"w{number}"), f"fb{links.tag}h{number}", links.port(number)
            sh(f"ip -n {hub} link add {here} type veth peer name {there} netns {far}")
            sh(f"ip -n {hub} addr add 10.213.{number}.1/30 dev {here}")
            sh(f"ip -n {far} addr add {links.address(number)}/30 dev {there}")
            sh(f"ip -n {hub} link set {here} up")
            sh(f"ip -n {far} link set {there} up")
            sh(f"ip -n {far} route add default via 10.213.{number}.1")
            sh(f"tc -n {hub} qdisc add dev {here} {shape}")
            sh(f"tc -n {far} qdisc add dev {there} {shape}")
        yield links


# the model and the text -----------------------------------------------------------------------------------------------


def make_model(folder: Path) -> int:
    """A byte-level Llama with random weights; -> how many parameters."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        [], trainers.BpeTrainer(vocab_size=257, special_tokens=["<end>"], initial_alphabet=letters, show_progress=False)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>")
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=LENGTH, eos_token_id=0, bos_token_id=None,
        tie_word_embeddings=True,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


# DDP ------------------------------------------------------------------------------------------------------------------


class DdpWorker:
    """One rank. Batches, schedule and optimiser are those of Fallow's workers."""

    def __init__(self, rank: int, folder: Path, total: int) -> None:
        import torch
        import torch.distributed as dist
        from transformers import AutoTokenizer, LlamaForCausalLM

        from fallow.numerics.exact.optimizers import ExactSchedule
        from fallow.workloads.data import Rendering, load_dataset

        torch.set_num_threads(1)
        dist.init_process_group("gloo", rank=rank, world_size=WORKERS)
        self._rank, self._at = rank, 0
        loaded: Any = LlamaForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
        self._model: Any = torch.nn.parallel.DistributedDataParallel(loaded)
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        self._data = load_dataset(folder / "data.txt", tokenizer, Rendering(LENGTH), HOLDOUT)
        self._schedule = ExactSchedule(float(LEARNING_RATE), WARM_UP, total)
        self._optimiser = torch.optim.AdamW(self._model.parameters(), betas=(0.9, 0.95), weight_decay=float(DECAY))

    def steps(self, count: int, synced: bool) -> list[float]:
        """Seconds of each step."""
        import torch
        from torch.nn.functional import cross_entropy

        from fallow.workloads.data import BatchPosition, batch

        spent: list[float] = []
        for _ in range(count):
            place = BatchPosition(self._rank, self._rank, WORKERS, self._at)
            tokens = batch(self._data, place, BATCH).sequences().tokens
            model = self._model if synced else self._model.module
            began = time.perf_counter()
            for group in self._optimiser.param_groups:
                group["lr"] = self._schedule.rate(self._at)
            self._optimiser.zero_grad(set_to_none=True)
            logits = model(input_ids=tokens[:, :-1]).logits
            cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), float(CLIP))
            self._optimiser.step()
            spent.append(time.perf_counter() - began)
            self._at += 1
        return spent

    def loss(self) -> float:
        """On the held-out sequences."""
        import torch
        from torch.nn.functional import cross_entropy

        tokens = self._data.holdout.sequences().tokens
        with torch.no_grad():
            logits = self._model.module(input_ids=tokens[:, :-1]).logits
            return float(cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()))


def play_ddp(rank: int, folder: Path, total: int) -> None:
    """For every line `[n, synced]` take n steps; print their seconds, and the held-out loss."""
    worker = DdpWorker(rank, folder, total)
    print(json.dumps(["ready"]), flush=True)
    for line in sys.stdin:
        count, synced = json.loads(line)
        print(json.dumps([worker.steps(count, synced), worker.loss()]), flush=True)
    os._exit(0)  # the group's own farewell would wait for the others


class Ddp:
    """Both ranks, on the slow links or on loopback."""

    def __init__(self, folder: Path, total: int, links: Links | None) -> None:
        self._players: list[Player] = []
        port = 29_500 + os.getpid() % 1000
        for rank in range(WORKERS):
            within = links.within(f"w{rank + 1}") if links is not None else ()
            env = {
                "MASTER_ADDR": links.address(1) if links is not None else "127.0.0.1", "MASTER_PORT": str(port),
                "GLOO_SOCKET_IFNAME": links.port(rank + 1) if links is not None else "lo", "USE_LIBUV": "0",
                "OMP_NUM_THREADS": "1",
            }  # fmt: skip
            command = [*within, sys.executable, __file__, "--play-ddp", str(rank), str(folder), str(total)]
            self._players.append(Player(command, env, quiet=True))
        for player in self._players:
            player.hear()

    def steps(self, count: int, *, synced: bool = True) -> tuple[list[float], float]:
        """-> each step's seconds (of its slower worker), and rank 0's held-out loss."""
        for player in self._players:
            player.say([count, synced])
        heard = [player.hear() for player in self._players]
        return [max(pair) for pair in zip(*(spent for spent, _ in heard), strict=True)], heard[0][1]

    def stop(self) -> None:
        for player in self._players:
            player.process.kill()
            player.process.wait()


# Fallow ---------------------------------------------------------------------------------------------------------------


async def start_network(network: Any, links: Links) -> Any:
    """Bank, directory and steward at the hub, a provider on each slow link; -> the steward's client."""
    from fallow.cli.demo_net import HONEST
    from fallow.sdk.client import AsyncFallow

    hub, bind = links.within("hub"), ("--bind", f"{HUB_ADDRESS}:0")
    directory = network.start("directory", "up", "--roles", "directory", *bind, within=hub)
    await directory.wait_until_ready()
    bank = network.start(
        "bank",
        "up",
        "--roles",
        "bank",
        "--welcome",
        "1000",
        "--directory",
        directory.announced["address"],
        *bind,
        within=hub,
    )
    await bank.wait_until_ready()
    ticket = bank.announced["ticket"]
    steward = network.start("steward", "up", "--roles", "steward", "--ticket", ticket, *bind, within=hub)
    await steward.wait_until_ready()
    for number in range(1, WORKERS + 1):
        there = ("--bind", f"{links.address(number)}:0")
        member = network.start(
            f"w{number}", "provide", ticket, *there, config=HONEST, within=links.within(f"w{number}")
        )
        await member.wait_until_ready()
    client = AsyncFallow(steward.home)
    async with asyncio.timeout(120):
        while len(await client.offers()) < WORKERS:
            await asyncio.sleep(0.2)
    return client


@dataclass(frozen=True)
class Job:
    """What is known of the job afterwards. Per worker and round: when its task was given to it and when it was done, in
    seconds, and what it measured."""

    whole_s: float
    losses: list[float]
    sent_bytes: list[int]
    rounds: list[list[dict[str, float]]]

    def steady(self, steps: int) -> list[float]:
        """Each worker's utilisation from the start of the second round to the end of the last."""
        last = max(worker[-1]["ended_s"] for worker in self.rounds)
        return [
            sum(steps * one["step_ms"] / 1e3 for one in worker[1:]) / (last - worker[1]["began_s"])
            for worker in self.rounds
        ]

    def whole(self, steps: int) -> list[float]:
        """Each worker's utilisation from the submission to the end."""
        return [sum(steps * one["step_ms"] / 1e3 for one in worker) / self.whole_s for worker in self.rounds]


def rounds_of(home: Path) -> list[dict[str, float]]:
    """A provider's training rounds, from its own log."""
    import msgspec
    from fallow.rules.node import provider_types as t

    from fallow.adapters.event_log import SqliteEventLog
    from fallow.kinds.train.tasks import TrainParams, TrainRound

    log = SqliteEventLog(home / "log.db")
    decoder = msgspec.msgpack.Decoder(t.ProviderEvent)
    found: dict[bytes, dict[str, float]] = {}
    for _, raw in log.read("provider"):
        event = decoder.decode(raw)
        if isinstance(event, t.PeerAssigned):
            params = msgspec.msgpack.decode(event.spec.params, type=TrainParams)
            if isinstance(params, TrainRound):
                found[event.task] = {"round": params.round, "began_s": event.at_ms / 1e3}
        elif isinstance(event, t.WorkerFinished) and event.task in found:
            found[event.task] |= {"ended_s": event.at_ms / 1e3, **event.metrics}
    log.close()
    return sorted((one for one in found.values() if "ended_s" in one), key=lambda one: one["round"])


async def train(network: Any, links: Links, folder: Path, options: argparse.Namespace) -> Job:
    """The job, from the empty network to its end."""
    from fallow.wire.tasks import Recipe

    recipe = Recipe(
        method="full", sequence_tokens=LENGTH, batch_sequences=BATCH, inner_steps=options.steps, rounds=options.rounds,
        learning_rate=LEARNING_RATE, warmup_steps=WARM_UP, weight_decay=DECAY, clip_norm=CLIP,
        holdout_sequences=HOLDOUT, ahead=int(not options.in_step),
    )  # fmt: skip
    client = await start_network(network, links)
    before = [links.sent_bytes(number + 1) for number in range(WORKERS)]
    began = time.perf_counter()
    job = await client.train(
        folder / "model", folder / "data.txt", recipe, "fp32", budget="900", workers=WORKERS, verify="none",
        timeout_s=MAX_JOB_S,
    )  # fmt: skip
    async for note in job.watch():
        if note.kind in ("round", "failed", "warning"):
            print(f"{time.perf_counter() - began:7.1f} s  {note.text}", file=sys.stderr, flush=True)
    view = await job.wait()
    whole_s = time.perf_counter() - began
    sent = [links.sent_bytes(number + 1) - before[number] for number in range(WORKERS)]
    losses = [float(one.loss) for one in view.rounds if one.loss]
    network.stop()  # so that the providers' logs can be read
    return Job(whole_s, losses, sent, [rounds_of(network.member(f"w{n + 1}").home) for n in range(WORKERS)])


# the comparison -------------------------------------------------------------------------------------------------------


def report(record: Record, job: Job, options: argparse.Namespace) -> None:
    """Fallow's figures."""
    version, steps = importlib.metadata.version(OURS), options.steps
    per_round = [sent / 1e6 / options.rounds for sent in job.sent_bytes]
    record.add(Figure(OURS, "utilisation, rounds", "", job.steady(steps), GOAL, version=version))
    record.add(Figure(OURS, "utilisation, whole job", "", job.whole(steps), version=version))
    record.add(Figure(OURS, "whole job", "s", [job.whole_s], less=True, version=version))
    record.add(Figure(OURS, f"sent per round of {steps} steps and worker", "MB", per_round, less=True, version=version))
    record.add(Figure(OURS, "held-out loss, before", "", job.losses[:1], less=True, version=version))
    record.add(Figure(OURS, "held-out loss, after", "", job.losses[-1:], less=True, version=version))


def compare(record: Record, links: Links, folder: Path, job: Job, options: argparse.Namespace) -> None:
    """DDP's figures."""
    import torch

    total, version = options.steps * options.rounds, str(torch.__version__)
    shaped = Ddp(folder, total, links)
    try:
        shaped.steps(2, synced=False)
        alone, _ = shaped.steps(ALONE_STEPS, synced=False)
        shaped.steps(1)
        before = links.sent_bytes(1)
        times, _ = shaped.steps(SHAPED_STEPS)
        sent = (links.sent_bytes(1) - before) / 1e6 / SHAPED_STEPS
    finally:
        shaped.stop()
    step, share = statistics.median(times), [statistics.median(alone) / one for one in times]
    record.add(Figure(DDP, "utilisation, steps", "", share, version=version))
    record.add(Figure(DDP, "step without synchronisation", "s", alone, less=True, version=version))
    record.add(Figure(DDP, "step", "s", times, less=True, version=version))
    record.add(Figure(DDP, "sent per step and worker", "MB", [sent], less=True, version=version))
    free = Ddp(folder, total, None)
    try:
        fit = max(1, int(job.whole_s / step))
        _, loss = free.steps(fit)
        record.add(Figure(DDP, f"held-out loss, in the same time ({fit} steps)", "", [loss], version=version))
        if options.equal_tokens:
            _, loss = free.steps(total - fit)
            record.add(Figure(DDP, f"held-out loss, after as many tokens ({total} steps)", "", [loss], version=version))
    finally:
        free.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50, help="per round and worker")
    parser.add_argument("--in-step", action="store_true", help="wait for each manifest: no overlap")
    parser.add_argument("--equal-tokens", action="store_true", help="train DDP for as many steps, too")
    options = parser.parse_args()
    if os.getuid() != 0 or shutil.which("ip") is None or shutil.which("tc") is None:
        print("left out: network namespaces take root, `ip` and `tc`", file=sys.stderr)
        return
    from fallow.cli.demo import demo_text
    from fallow.cli.demo_net import Network

    record = Record(__file__, CLAIM, SEED)
    folder = Path(tempfile.mkdtemp(prefix="fallow-bench-slow-"))
    try:
        count = make_model(folder / "model")
        shutil.copy(demo_text(), folder / "data.txt")
        with slow_links() as links:
            with Network(folder / "net") as network:
                job = asyncio.run(train(network, links, folder, options))
            report(record, job, options)
            compare(record, links, folder, job, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    record.write({"parameters": count, "steps": options.steps, "rounds": options.rounds, "workers": job.rounds})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--play-ddp"]:
        play_ddp(int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
