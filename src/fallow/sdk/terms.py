"""What a job may cost and how it is done, from words to a `JobSpec`; and whether the market can take it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Required, TypedDict

import msgspec

from fallow.errors import FallowError, PeerFault, fail
from fallow.sdk.model_size import GGUF_MAGIC
from fallow.units import MAX_UCR, Ucr, format_money, format_size, parse_money
from fallow.wire.codec import decode, encode
from fallow.wire.local import CHECKED, UNCHECKED, Candidate, Estimate, JobSpec, Work
from fallow.wire.messages import Shortfall

ANY_SIZE = 1 << 40
PRICE = "price_ucr"
"""The resource that a candidate is short of when it asks more than the limit."""


class Terms(TypedDict, total=False):
    """The named arguments that every kind of job takes. `budget` is the most it may ever cost, `max_price` the most per
    1,000 units, both in credits as text ("0.05", "2 cr"); without `max_price` it is what the dearest provider that fits
    asks now. `workers` work side by side. `verify` is "audit" unless said otherwise, but "none" for the answers of a
    GGUF model (see `checked_by`)."""

    budget: Required[str]
    max_price: str
    workers: int
    prefer: Literal["price", "speed"]
    verify: str
    timeout_s: int
    name: str


def checked_by(model: str | os.PathLike[str]) -> str:
    """How a model's answers are checked when nobody says: "audit" for a folder in Hugging Face's layout, whose answers
    have the same bits on every like machine; "none" for a GGUF file (alone, or in a folder without config.json).
    llama.cpp computes what runs at the same time in one batch, so an answer's last bits depend on its neighbours, and
    comparing bits would accuse honest providers."""
    path = Path(model).expanduser()
    if path.is_dir():
        alone = not (path / "config.json").exists() and any(path.glob("*.gguf"))
        return UNCHECKED if alone else CHECKED
    try:
        with path.open("rb") as file:
            return UNCHECKED if file.read(len(GGUF_MAGIC)) == GGUF_MAGIC else CHECKED
    except OSError:
        return CHECKED


def money(text: str) -> Ucr:
    """Credits as text -> ucr. Raises UsageError E1002."""
    try:
        return parse_money(text)
    except ValueError as error:
        raise fail("E1002", f"{text!r} is not an amount.") from error


def spec_of(work: Work, terms: Terms) -> JobSpec:
    """The job's specification. `max_price_ucr` is still open (MAX_UCR) when the terms name none; `capped` closes it.
    Raises UsageError E1002 for amounts, E2001 for anything else out of range."""
    try:
        budget, cap = money(terms["budget"]), terms.get("max_price")
    except KeyError:
        raise fail("E2001", "A job needs a budget.", next_step='budget="1"') from None
    if budget == 0:
        raise fail("E1401", "The budget is 0.")
    spec = JobSpec(
        work=work,
        budget_ucr=budget,
        max_price_ucr=MAX_UCR if cap is None else money(cap),
        workers=terms.get("workers", 1),
        prefer=terms.get("prefer", "price"),
        verify=terms.get("verify", CHECKED),
        timeout_s=terms.get("timeout_s", 24 * 3600),
        name=terms.get("name", ""),
    )
    try:  # constructors check nothing; decoding does
        return decode(JobSpec, encode(spec), ANY_SIZE)
    except (PeerFault, OverflowError) as error:
        raise fail("E2001", f"The job's terms are out of range: {error}.") from error


def fitting(estimate: Estimate) -> list[Candidate]:
    """The candidates that could take the job."""
    return [candidate for candidate in estimate.candidates if not candidate.shortfalls.shortfalls]


def capped(spec: JobSpec, estimate: Estimate) -> JobSpec:
    """The same job with its price limit set, if the market can take it. Raises RejectedError E1201 when nobody offers
    this work, E1202 when nobody fits, E1203 when all that fit ask more than the limit, E1401 when even the cheapest
    would cost more than the budget. Nothing is spent in any case."""
    problem = _obstacle(spec, estimate)
    if problem is not None:
        raise problem
    dearest = max(candidate.price_ucr for candidate in fitting(estimate))
    return msgspec.structs.replace(spec, max_price_ucr=min(spec.max_price_ucr, dearest))


def _obstacle(spec: JobSpec, estimate: Estimate) -> FallowError | None:
    if not estimate.candidates:
        return fail("E1201", "Nobody on the network offers this kind of work now.", next_step="fallow offers")
    if not fitting(estimate):
        dear = [c.price_ucr for c in estimate.candidates if all(s.resource == PRICE for s in c.shortfalls.shortfalls)]
        if not dear:
            return _misfit(estimate)
        asked, limit = format_money(min(dear)), format_money(spec.max_price_ucr)
        what = f"The cheapest fitting offer asks {asked} per 1,000 units, your limit is {limit}."
        cause = "Every fitting provider asks for more than your limit."
        return fail("E1203", what, cause=cause, next_step=f"Raise --max-price to {asked.removesuffix(' cr')}.")
    if estimate.low_ucr > spec.budget_ucr:
        low, budget = format_money(estimate.low_ucr), format_money(spec.budget_ucr)
        what = f"With its checks the job would cost about {low}, the budget is {budget}."
        return fail("E1401", what, next_step=f"Raise --budget to {low.removesuffix(' cr')} or more.")
    return None


def _misfit(estimate: Estimate) -> FallowError:
    """E1202, naming what the nearest candidate lacks."""
    nearest = min(estimate.candidates, key=lambda candidate: len(candidate.shortfalls.shortfalls))
    lacks = "; ".join(
        f"{s.resource}: {s.note}"
        if s.note
        else f"{s.resource}: wanted {_amount(s, s.wanted)}, has {_amount(s, s.have)}"
        for s in nearest.shortfalls.shortfalls[:3]
    )
    count = len(estimate.candidates)
    return fail("E1202", f"None of {count} providers fits.", cause=f"The nearest lacks {lacks}.")


def _amount(shortfall: Shortfall, amount: int) -> str:
    return format_size(amount) if shortfall.resource.endswith("bytes") else str(amount)
