"""Keep a model answering on other people's machines, behind an OpenAI-compatible door on yours.

  fallow serve ./SmolLM2 --budget 1                   serve a model folder or GGUF file
  fallow serve ./SmolLM2 --adapter tuned/ --budget 1  serve it with what `fallow train` made
  fallow serve --new-key --budget 0.5                 another API key, with a budget of its own
  fallow serve --top-up KEY --budget 0.5              add to a key's budget (KEY: its first letters)
  fallow serve --keys                                 list keys
  fallow serve --revoke KEY

The two lines that it prints are what OpenAI's clients read from the environment. Stop serving with `fallow cancel`.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

from fallow.cli.models import NO_AUDIT, trainable
from fallow.cli.options import add_job_terms, existing_path, positive
from fallow.cli.output import Output, table
from fallow.cli.render import data_of
from fallow.cli.spending import submit, terms_of
from fallow.errors import fail
from fallow.node.config import load_config
from fallow.sdk.client import AsyncFallow
from fallow.sdk.home import socket_path
from fallow.sdk.jobs import AsyncJob, ended_well
from fallow.units import format_money
from fallow.wire.local import UNCHECKED
from fallow.workloads.model_files import inspect_model

DOOR = "gateway"
"""The file in a home that says where its HTTP door is."""
READY_EVERY_S = 0.2


def options(parser: argparse.ArgumentParser) -> None:
    """A model to serve, or a key to look after."""
    parser.add_argument("model", nargs="?", metavar="MODEL", type=existing_path, help="a model folder or GGUF file")
    parser.add_argument("--adapter", metavar="DIR", type=existing_path, help="a PEFT adapter, as `fallow train` makes")
    parser.add_argument(
        "--as", dest="served_as", metavar="NAME", help="what clients call it (default: its folder's or file's name)"
    )
    parser.add_argument("--replicas", metavar="N", type=positive, default=1, help="machines side by side (default 1)")
    parser.add_argument("--context", metavar="N", type=positive, help="most tokens of prompt and answer (default 2048)")
    parser.add_argument(
        "--arithmetic", choices=("fp32", "exact", "auto"), default="auto",
        help="exact: any machine checks any other; fp32: like ones do; auto: exact where it can be (default auto)",
    )  # fmt: skip
    parser.add_argument("--port", metavar="N", type=positive, help="open a door of its own here, until Ctrl-C")
    keys = parser.add_argument_group("API keys")
    keys.add_argument("--new-key", action="store_true", help="make another key")
    keys.add_argument("--keys", action="store_true", help="list keys")
    keys.add_argument("--top-up", metavar="KEY", help="add --budget to this key's")
    keys.add_argument("--revoke", metavar="KEY", help="end this key")
    add_job_terms(parser)
    for action in parser._actions:
        if action.dest == "budget":
            action.required = False


def run(args: argparse.Namespace, out: Output) -> int:
    """Serve, or look after keys."""
    chosen = [args.model is not None, args.new_key, args.keys, args.top_up is not None, args.revoke is not None]
    if sum(chosen) != 1:
        raise fail("E2001", "Give a model to serve, or one thing to do with keys.", next_step="fallow serve --help")
    if args.budget is None and not (args.keys or args.revoke):
        raise fail("E2001", "--budget is missing.", next_step="fallow serve --help")
    if args.model is None:
        return asyncio.run(_keys(args, out))
    facts = inspect_model(args.model)
    client = AsyncFallow(args.home)
    if args.adapter is not None:
        if not (args.adapter / "adapter_config.json").is_file():
            raise fail("E1701", f"{args.adapter.name} is not an adapter: it has no adapter_config.json.")
        asyncio.run(client.node())  # else a conversion is waited for only to learn that none runs
        args.model = trainable(args.model, client.home, out)
    args.served_as = args.served_as or name_of(facts.weights[0] if facts.layout == "gguf" else facts.folder)
    return asyncio.run(_serve(client, args, out))


def name_of(path: Path) -> str:
    """What a model is called when nobody says: its folder's or file's name, in the letters that fit a URL."""
    stem = path.name.removesuffix(".gguf")
    return "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in stem)[:100] or "model"


def door_of(home: Path) -> str:
    """The base URL of the home's HTTP door: what `fallow up` noted, else what the configuration says."""
    try:
        return (home / DOOR).read_text("utf-8").strip()
    except OSError:
        config = load_config(home)
        return f"http://{config.gateway_host}:{config.gateway_port}/v1"


async def _serve(client: AsyncFallow, args: argparse.Namespace, out: Output) -> int:
    with ExitStack() as stack:
        door = _own_door(args.port, stack) if args.port else None  # a taken port is found before money moves
        terms = terms_of(args, args.replicas)
        how = "" if args.arithmetic == "auto" else args.arithmetic
        spec = await client.plan_serve(args.served_as, args.model, args.adapter, args.context or 2048, how, **terms)
        if spec.verify == UNCHECKED and args.verify is None:
            out.say(NO_AUDIT)
        job = await submit(client, spec, args, out)
        secret = await client.make_key(args.served_as, format_money(args.budget))
        if not args.detach:
            await wait_until_ready(client, job, out)
        url = f"http://127.0.0.1:{args.port}/v1" if door else door_of(client.home)
        answer = {"id": job.text, "model": args.served_as, "base_url": url, "api_key": secret, "ready": not args.detach}
        out.data(answer, f"export OPENAI_BASE_URL={url}\nexport OPENAI_API_KEY={secret}")
        out.say(f"Talk: fallow chat -m {args.served_as}\nStop: fallow cancel {job.text[:12]}")
        if door is not None:
            out.when_interrupted = f"The door is closed. Job {job.text} goes on; stop it: fallow cancel {job.text[:12]}"
            await door(socket_path(client.home))
    return 0


def _own_door(port: int, stack: ExitStack) -> Callable[[Path], Awaitable[None]]:
    from fallow.gateway.server import claim_port, run_gateway  # an HTTP server takes half a second to load

    listener = stack.enter_context(claim_port("127.0.0.1", port))
    return lambda steward_socket: run_gateway(steward_socket, listener)


async def wait_until_ready(client: AsyncFallow, job: AsyncJob, out: Output) -> None:
    """Return once a provider has loaded the model. Raises as `AsyncJob.wait` does when the job ends before."""
    out.say("Waiting for a provider to fetch and load the model...")
    while not any(model.job == job.id and model.ready for model in await client.models()):
        view = await job.view()
        if view.phase in ("failed", "cancelled", "done"):
            ended_well(view)
        await asyncio.sleep(READY_EVERY_S)


# keys -----------------------------------------------------------------------------------------------------------------


async def _keys(args: argparse.Namespace, out: Output) -> int:
    async with AsyncFallow(args.home) as client:
        if args.new_key:
            secret = await client.make_key(args.name or "key", format_money(args.budget))
            url = door_of(client.home)
            text = f"export OPENAI_BASE_URL={url}\nexport OPENAI_API_KEY={secret}"
            out.data({"base_url": url, "api_key": secret}, text)
            return 0
        if args.top_up is not None:
            await client.change_key(args.top_up, format_money(args.budget))
        if args.revoke is not None:
            await client.change_key(args.revoke, revoke=True)
        keys = await client.keys()
        rows = [
            (k.prefix, k.label, format_money(k.budget_ucr), format_money(k.spent_ucr), "revoked" if k.revoked else "ok")
            for k in keys
        ]
        text = table(("KEY", "LABEL", "BUDGET", "SPENT", "STATE"), rows) if rows else "No keys yet."
        out.data({"keys": [data_of(key) for key in keys]}, text)
    return 0
