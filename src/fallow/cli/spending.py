"""From a job's plan to a submitted job: show the price, ask, submit, and follow it to its end."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fallow.cli.output import Output
from fallow.cli.render import estimate_data, estimate_text, job_data, job_text, short
from fallow.errors import fail
from fallow.rules.market import kind_of
from fallow.sdk.client import AsyncFallow
from fallow.sdk.jobs import AsyncJob, ended_well
from fallow.sdk.terms import Terms, capped, fitting
from fallow.units import format_money
from fallow.wire.local import UNCHECKED, Candidate, Estimate, JobSpec, JobView

SHORT_S = 20
TALKATIVE = ("phase", "lease", "check", "caught", "round", "warning", "failed", "paid")


def terms_of(args: argparse.Namespace, workers: int = 1) -> Terms:
    """The terms that `options.add_job_terms` read."""
    terms = Terms(
        budget=format_money(args.budget),
        workers=workers,
        prefer=args.prefer,
        timeout_s=args.timeout,
        name=args.name,
    )
    if args.verify is not None:
        terms["verify"] = args.verify
    if args.max_price is not None:
        terms["max_price"] = format_money(args.max_price)
    return terms


async def submit(client: AsyncFallow, spec: JobSpec, args: argparse.Namespace, out: Output) -> AsyncJob:
    """Price the job, show it, ask unless `--yes`, submit. Raises RejectedError E1201, E1202, E1203, E1301 or E1401, or
    UsageError E2006, all before any money moves."""
    estimate = await client.estimate(spec)
    spec = capped(spec, estimate)
    wallet = await client.wallet()
    if wallet.available_ucr < spec.budget_ucr:
        have, want = format_money(wallet.available_ucr), format_money(spec.budget_ucr)
        raise fail("E1301", f"The wallet holds {have}, the budget is {want}.", next_step="fallow wallet")
    out.say(price_line(spec, estimate))
    out.confirm(f"Spend up to {format_money(spec.budget_ucr)}?", yes=args.yes)
    job = await client.submit(spec)
    name = job.text[:12]
    ways = f"Follow: fallow logs -f {name}; stop: fallow cancel {name}"
    out.when_interrupted = f"Interrupted. Job {job.text} goes on. {ways}"
    out.say(f"Job {job.text} submitted.")
    return job


def price_line(spec: JobSpec, estimate: Estimate) -> str:
    """What it would cost, how long it may take and how it is checked, before anything is spent."""
    fit, budget, unit = fitting(estimate), format_money(spec.budget_ucr), unit_of(spec)
    lines = [f"{len(fit)} of {len(estimate.candidates)} providers fit{_asking(fit, unit)}."]
    if not estimate.units:
        lines.append(f"It runs until cancelled or {budget} is spent.")
    else:
        price = span(format_money(estimate.low_ucr), format_money(estimate.high_ucr))
        checks = "unchecked" if spec.verify == UNCHECKED else "checks included"
        lines.append(
            f"{estimate.units:,} {unit}: about {price}, {checks}; never above {budget}.{_lasting(spec, estimate)}"
        )
    if spec.verify == UNCHECKED:
        lines.append("Nothing is checked (verify none): all is paid as claimed.")
    return "\n".join(lines)


def unit_of(spec: JobSpec) -> str:
    """What the units of a job's work are called."""
    return kind_of(spec).unit


def span(low: str, high: str) -> str:
    """A range, or its one value."""
    return low if low == high else f"{low} to {high}"


def _asking(fit: list[Candidate], unit: str) -> str:
    prices = sorted(candidate.price_ucr for candidate in fit)
    return f", asking {span(format_money(prices[0]), format_money(prices[-1]))} per 1,000 {unit}" if prices else ""


def _lasting(spec: JobSpec, estimate: Estimate) -> str:
    """The time at the speed that the first providers advertise, when it is worth a word."""
    hired = fitting(estimate)[: spec.workers]
    speed = sum(candidate.units_per_s for candidate in hired)
    if not speed or not hired[0].price_ucr:
        return ""
    seconds = estimate.low_ucr * 1_000 // hired[0].price_ucr // speed
    if seconds < SHORT_S:
        return ""
    return f" At their speed that takes {seconds // 60 or 1} min or more."


async def follow(job: AsyncJob, out: Output, title: str) -> JobView:
    """Show progress until the end; -> the final view. Raises as `AsyncJob.wait` does."""
    with out.progress(title) as bar:
        async for note in job.watch():
            if note.kind == "progress" and note.node:  # one worker's task, not the job
                bar.part(short("node", note.node), note.done, note.total, note.text)
            elif note.kind == "progress":
                bar.update(note.done, note.total)
            elif note.kind in TALKATIVE and not out.as_json:
                bar.say(f"  {note.kind}: {note.text}")
                if note.kind == "round" and note.total:
                    bar.update(note.done, note.total)
    return ended_well(await job.settled())


def dry_run(spec: JobSpec, estimate: Estimate, out: Output, more: dict[str, Any] | None = None) -> None:
    """Show what `--dry-run` found: who would take it, and the price, and `more` for programs. Raises what `submit`
    would."""
    capped(spec, estimate)
    out.data(
        estimate_data(estimate) | (more or {}),
        f"{estimate_text(estimate)}\n\n{price_line(spec, estimate)}\nNothing was spent.",
    )


async def end_of(
    job: AsyncJob, args: argparse.Namespace, out: Output, title: str, save: Path | None = None,
    more: dict[str, Any] | None = None,
) -> int:  # fmt: skip
    """Follow a submitted job, save its result folder, and print the final view; or, with `--detach`, its id. `more` is
    for programs."""
    if args.detach:
        out.data({"id": job.text, "phase": "starting"} | (more or {}), job.text)
        return 0
    view = await follow(job, out, title)
    answer: dict[str, Any] = job_data(view) | (more or {})
    text = job_text(view)
    if save is not None:
        await job.save(save)
        answer["saved"] = str(save)
        text += f"\n\nSaved to {save}"
    out.data(answer, text)
    return 0
