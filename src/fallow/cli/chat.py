"""Talk to a served model through your own node. With PROMPT one answer; without, a conversation until Ctrl-D.

fallow chat "Why is the sky blue?"
fallow chat -m SmolLM2 --max-tokens 64
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

from fallow.cli.options import positive
from fallow.cli.output import Output
from fallow.errors import fail
from fallow.kinds.generate.tasks import ChatTurn, Generate, GenerateValue
from fallow.sdk.client import AsyncFallow
from fallow.sdk.lanes import Answer, AsyncLane
from fallow.units import to_text
from fallow.wire.codec import decode, encode
from fallow.wire.local import ServedModel
from fallow.wire.tasks import MAX_VALUE_BYTES


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow chat [PROMPT] [-m MODEL]`."""
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to say; left out: a conversation")
    parser.add_argument("-m", "--model", metavar="NAME", help="default: the newest that is ready")
    parser.add_argument("--system", metavar="TEXT", help="how it should behave")
    parser.add_argument("--max-tokens", metavar="N", type=positive, default=256, help="per answer (default 256)")
    parser.add_argument("--temperature", metavar="X", default="0", help="0 (default) always picks the likeliest token")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="for temperatures above 0")


async def run(args: argparse.Namespace, out: Output) -> None:
    """One answer, or a conversation."""
    try:
        good = 0 <= float(args.temperature) <= 2
    except ValueError:
        good = False
    if not good:
        raise fail("E2001", f"{args.temperature!r} is not a temperature from 0 to 2.")
    out.when_interrupted = "Interrupted. The model is still served; nothing more is owed for this answer."
    async with AsyncFallow(args.home) as client:
        model = _choose(await client.models(), args.model)
        turns = [ChatTurn("system", args.system)] if args.system else []
        async with client.lane(model.job, receipts=True) as lane:
            if args.prompt is not None:
                await _turn(lane, [*turns, ChatTurn("user", args.prompt)], args, out)
                return
            out.say(f"Talking to {model.name}. Ctrl-D ends.")
            while (prompt := await asyncio.to_thread(_ask)) is not None:
                turns.append(ChatTurn("user", prompt))
                turns.append(ChatTurn("assistant", await _turn(lane, turns, args, out)))


def _choose(models: tuple[ServedModel, ...], name: str | None) -> ServedModel:
    """Raises UsageError E1901 when nothing by that name is served."""
    named = [model for model in models if name in (None, model.name)]
    if not named:
        known = ", ".join(model.name for model in models) or "not one"
        raise fail(
            "E1901",
            f"{name or 'No model'} is not served here." if name else "No model is served.",
            cause=f"Served: {known}.",
        )
    return max(named, key=lambda model: (model.ready > 0, model.created_ms))


def _ask() -> str | None:
    if sys.stdin.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


async def _turn(lane: AsyncLane, turns: list[ChatTurn], args: argparse.Namespace, out: Output) -> str:
    task = Generate(tuple(turns), "", args.max_tokens, args.temperature)
    async for piece in lane.stream(encode(task), args.seed):
        if isinstance(piece, Answer):
            value = decode(GenerateValue, piece.value, MAX_VALUE_BYTES)
            out.piece("\n")
            if out.as_json:
                out.data(answer_data(value, piece), value.text)
            else:
                out.say(f"[{value.completion_tokens} tokens, receipt {to_text('receipt', piece.receipt)[:12]}]")
            return value.text
        out.piece(piece.decode("utf-8", "replace"))
    raise fail("E1801", "The answer broke off.")


def answer_data(value: GenerateValue, answer: Answer) -> dict[str, Any]:
    """An answer for programs."""
    return {
        "text": value.text,
        "finish": value.finish,
        "prompt_tokens": value.prompt_tokens,
        "completion_tokens": value.completion_tokens,
        "logits": value.logits.hex(),
        "receipt": to_text("receipt", answer.receipt) if answer.receipt else "",
    }
