"""What providers sell now, as the directories of your pool know it."""

from __future__ import annotations

import argparse

from fallow.cli.output import Output
from fallow.cli.render import offer_data, offers_text
from fallow.kinds.registry import KINDS
from fallow.sdk.client import AsyncFallow


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow offers [--kind KIND]`."""
    parser.add_argument("--kind", help=f"only this kind of work: {', '.join(KINDS)}")


async def run(args: argparse.Namespace, out: Output) -> None:
    """List them."""
    async with AsyncFallow(args.home) as client:
        offers = await client.offers()
        if args.kind:
            offers = tuple(offer for offer in offers if any(rate.kind == args.kind for rate in offer.rates))
        out.data({"offers": [offer_data(offer) for offer in offers]}, offers_text(offers))
