"""The asynchronous client of a node of one's own: every call of `wire/local.py` as a typed method.

`AsyncFallow` is the only implementation; `sdk/blocking.py` derives the synchronous `Fallow` from it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, Unpack

from fallow.data.carry import portable
from fallow.errors import fail
from fallow.kinds.registry import kind_named, lane_side
from fallow.sdk.home import resolve_home, socket_path
from fallow.sdk.jobs import AsyncJob
from fallow.sdk.lanes import AsyncLane
from fallow.sdk.link import NodeSocket
from fallow.sdk.model_size import measure
from fallow.sdk.programs import RunPlan, guest_of, runs_of, settings_of
from fallow.sdk.recipes import Arithmetic, arithmetic_for, settled
from fallow.sdk.terms import Terms, capped, checked_by, money, spec_of
from fallow.units import from_text
from fallow.wire import local
from fallow.wire.codec import decode
from fallow.wire.messages import Message, Offer, Ok, SignedOffer
from fallow.wire.tasks import Part, Recipe

CALL_S = 30.0
"""How long an ordinary call may take."""
LONG_CALL_S = 3600.0
"""Importing and exporting take as long as the disk and the network need."""
MAX_OFFER_BYTES = 32 << 10

M = TypeVar("M", bound=Message)


class AsyncFallow:
    """A connection to the node of one home folder. Cheap: each call opens its own socket, so one client may be used
    from many tasks. Every method raises UsageError E2004 when no node runs there, UnavailableError E1801 or E1802 when
    it goes away or is slow, and the errors that it documents."""

    def __init__(self, home: str | os.PathLike[str] | None = None) -> None:
        self.home = resolve_home(home)
        self.link = NodeSocket(socket_path(self.home))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing stays open between calls."""

    async def call(self, request: Message, reply: type[M], timeout_s: float = CALL_S) -> M:
        """One request of `wire/local.py`. Raises InternalError E9001 when the node answers something else."""
        answer = await self.link.call(request, timeout_s)
        if not isinstance(answer, reply):
            raise fail("E9001", f"The node answered {type(answer).__name__} where {reply.__name__} was due.")
        return answer

    # the node ---------------------------------------------------------------------------------------------------------

    async def node(self) -> local.NodeView:
        """What the node is and does."""
        return await self.call(local.SeeNode(), local.NodeView)

    async def offers(self) -> tuple[Offer, ...]:
        """The live offers that the node's directories know, already checked by the node."""
        seen = await self.call(local.SeeOffers(), local.OffersSeen)
        signed = (decode(SignedOffer, raw, MAX_OFFER_BYTES) for raw in seen.offers)
        return tuple(decode(Offer, offer.body) for offer in signed)

    async def models(self) -> tuple[local.ServedModel, ...]:
        """The models served by running serve jobs."""
        return (await self.call(local.ListModels(), local.ModelList)).models

    # money ------------------------------------------------------------------------------------------------------------

    async def wallet(self) -> local.Wallet:
        """The account's balances."""
        return await self.call(local.SeeWallet(), local.Wallet)

    async def move_money(self, action: str, amount: str, to: bytes = b"") -> None:
        """`action` "deposit" (into stake), "unbond" (out of it), "transfer" or "grant" (to the account `to`);
        `amount` in credits as text. Raises RejectedError E1301 or E1303."""
        await self.call(local.MoveMoney(action, money(amount), to), Ok)

    async def answer_charge(self, lease: bytes, answer: str) -> None:
        """`answer` "appeal" says no to what is charged under a lease of this account's; "upheld" and "overturned" are
        the referee's. Raises UsageError E2002 where nothing is charged, RejectedError E1303."""
        await self.call(local.AnswerCharge(lease, answer), Ok)

    # files ------------------------------------------------------------------------------------------------------------

    async def import_path(self, path: str | os.PathLike[str]) -> local.Imported:
        """Take a file or folder into the node's blob store. Raises UsageError E2003 when it is not there."""
        full = Path(path).expanduser().absolute()
        if not full.exists():
            raise fail("E2003", f"{path} does not exist.")
        return await self.call(local.ImportPath(str(full)), local.Imported, LONG_CALL_S)

    async def export(self, tree: bytes, path: str | os.PathLike[str], name: str = "") -> None:
        """Write a tree, or with `name` a single blob under that name, into the folder `path`; fetches what is
        missing."""
        full = Path(path).expanduser().absolute()
        await self.call(local.ExportTree(tree, str(full), name), Ok, LONG_CALL_S)

    # jobs -------------------------------------------------------------------------------------------------------------

    async def train(
        self,
        model: str | os.PathLike[str],
        data: str | os.PathLike[str],
        recipe: Recipe | None = None,
        arithmetic: Arithmetic = "auto",
        **terms: Unpack[Terms],
    ) -> AsyncJob:
        """Fine-tune the model folder `model` on `data` (docs/reference/data.md), in exact `arithmetic` where the model
        has an exact form (`sdk/recipes.py`). Returns once the job is on disk."""
        return await self.submit(await self.price(await self.plan_train(model, data, recipe, arithmetic, **terms)))

    async def plan_train(
        self,
        model: str | os.PathLike[str],
        data: str | os.PathLike[str],
        recipe: Recipe | None = None,
        arithmetic: Arithmetic = "auto",
        **terms: Unpack[Terms],
    ) -> local.JobSpec:
        """What `train` would submit; checks the data, imports the files, spends nothing. Errors: as
        `data.read.rows_of`."""
        ready = await asyncio.to_thread(portable, Path(data).expanduser(), self.home / "data")
        weights, text = await self.import_path(model), await self.import_path(ready)
        recipe, size = await asyncio.to_thread(settled, recipe, model, arithmetic)
        return spec_of(local.TrainJob(weights.tree, text.tree, recipe, text.size_bytes, size), terms)

    async def run(
        self,
        workload: str,
        params: list[bytes],
        inputs: tuple[Part, ...] = (),
        units_each: int = 0,
        **terms: Unpack[Terms],
    ) -> AsyncJob:
        """Independent tasks of one kind of work; each of `params` is that kind's own message, and metered at the most
        that any of them comes to, or at `units_each`. Raises UsageError E2001 for an unknown kind, what
        `Kind.units` raises for parameters that are none of it."""
        units = max((kind_named(workload).units(one) for one in params), default=1)
        work = local.BatchJob(workload, tuple(params), inputs, units_each or units)
        return await self.submit(await self.price(spec_of(work, terms)))

    async def run_program(
        self,
        workload: str,
        program: str | os.PathLike[str],
        plan: RunPlan | None = None,
        settings: Mapping[str, int] | None = None,
        **terms: Unpack[Terms],
    ) -> AsyncJob:
        """A program of one's own, once for each of the plan's inputs; `settings` are the kind's. Raises UsageError
        E1721, with the remedy, for a program that could not run."""
        return await self.submit(await self.price(await self.plan_program(workload, program, plan, settings, **terms)))

    async def plan_program(
        self,
        workload: str,
        program: str | os.PathLike[str],
        plan: RunPlan | None = None,
        settings: Mapping[str, int] | None = None,
        **terms: Unpack[Terms],
    ) -> local.JobSpec:
        """What `run_program` would submit; imports the files, spends nothing."""
        chosen = settings_of(guest_of(workload)[0], settings or {})
        runs = await runs_of(self, workload, program, plan or RunPlan(), chosen)
        return spec_of(local.BatchJob(workload, *runs), terms)

    async def serve(
        self,
        served_as: str,
        model: str | os.PathLike[str],
        adapter: str | os.PathLike[str] | None = None,
        context_tokens: int = 2048,
        arithmetic: str = "",
        **terms: Unpack[Terms],
    ) -> AsyncJob:
        """Keep `workers` providers answering under `served_as` until cancelled or out of budget. `arithmetic` is
        "exact" (any machine checks any other), "fp32" (like ones do), or "" for exact where it can be."""
        spec = await self.plan_serve(served_as, model, adapter, context_tokens, arithmetic, **terms)
        return await self.submit(await self.price(spec))

    async def plan_serve(
        self,
        served_as: str,
        model: str | os.PathLike[str],
        adapter: str | os.PathLike[str] | None = None,
        context_tokens: int = 2048,
        arithmetic: str = "",
        **terms: Unpack[Terms],
    ) -> local.JobSpec:
        """What `serve` would submit; imports the files, spends nothing."""
        terms.setdefault("verify", checked_by(model))
        weights = await self.import_path(model)
        extra = (await self.import_path(adapter)).tree if adapter is not None else b""
        size = await asyncio.to_thread(measure, model)
        replicas, how = terms.get("workers", 1), arithmetic or arithmetic_for(model)
        work = local.ServeJob(served_as, weights.tree, extra, replicas, context_tokens, how, size)
        return spec_of(work, terms)

    async def open_lane_job(self, workload: str, **terms: Unpack[Terms]) -> AsyncJob:
        """Keep `workers` providers ready for many small tasks; send them through `lane`. Raises UsageError E2001 for a
        kind that has no lanes."""
        lane_side(workload)
        work = local.LaneJob(workload, terms.get("workers", 1))
        return await self.submit(await self.price(spec_of(work, terms)))

    async def estimate(self, spec: local.JobSpec) -> local.Estimate:
        """Who would take the job and what it would cost; spends nothing."""
        return await self.call(local.EstimateJob(spec), local.Estimate)

    async def price(self, spec: local.JobSpec) -> local.JobSpec:
        """The job with its price limit set from the market. Raises RejectedError E1201, E1202, E1203 or E1401."""
        return capped(spec, await self.estimate(spec))

    async def submit(self, spec: local.JobSpec, job: bytes = b"") -> AsyncJob:
        """Hand a job in; returns once it is on disk. `job` is a 32-byte id of one's own choice: submitting the same one
        again is harmless. Raises RejectedError E1301 when the wallet does not hold the budget."""
        chosen = job or os.urandom(32)  # noqa: TID251 - an id nobody can guess; the sdk has no ports
        return AsyncJob(self, (await self.call(local.SubmitJob(chosen, spec), local.Submitted)).job)

    async def jobs(self) -> tuple[local.JobView, ...]:
        """All jobs, newest first."""
        return (await self.call(local.ListJobs(), local.JobList)).jobs

    async def job(self, which: str | bytes) -> AsyncJob:
        """A job by its id (bytes, or text as people see it, or the text's unique beginning) or by its name. Raises
        UsageError E2002."""
        if isinstance(which, bytes):
            return AsyncJob(self, (await self.call(local.GetJob(which), local.JobOf)).job.job)
        digits = which.removeprefix("j_").lower()
        views = await self.jobs()
        found = [view for view in views if digits and view.job.hex().startswith(digits)]
        found = found or [view for view in views if which and view.name == which][:1]
        if len(found) != 1:
            raise fail("E2002", f"{len(found) or 'No'} jobs of yours are called {which!r}.")
        return AsyncJob(self, found[0].job)

    async def explain_job(self, job: bytes) -> local.Estimate:
        """Who would take the tasks of a job that was submitted before, now. Raises UsageError E2002."""
        return await self.call(local.WhyJob(job), local.Estimate)

    def lane(self, job: AsyncJob | bytes, *, receipts: bool = False) -> AsyncLane:
        """The lane of a lane or serve job: `async with client.lane(job) as lane`."""
        return AsyncLane(self.link, job if isinstance(job, bytes) else job.id, receipts=receipts)

    async def receipt(self, which: str | bytes) -> bytes:
        """A sealed receipt by its id or the id's unique beginning, as `wire/receipts.py` reads it. Raises UsageError
        E1003 for text that is no id, E2002 for an unknown one."""
        if isinstance(which, str):
            try:
                which = from_text("receipt", which)
            except ValueError:
                raise fail("E1003", f"{which!r} is neither a file nor a receipt's id.") from None
        return (await self.call(local.GetReceipt(which), local.ReceiptBytes)).body

    # gateway keys -----------------------------------------------------------------------------------------------------

    async def make_key(self, label: str, budget: str) -> str:
        """A new key for the gateway that may spend `budget` in all; -> the secret, shown this once."""
        return (await self.call(local.MakeKey(label, money(budget)), local.KeyMade)).secret

    async def keys(self) -> tuple[local.KeyView, ...]:
        """The gateway's keys, without their secrets."""
        return (await self.call(local.ListKeys(), local.KeyList)).keys

    async def change_key(self, prefix: str, add: str = "0", *, revoke: bool = False) -> None:
        """Add to the budget of the key that starts with `prefix`, or revoke it."""
        await self.call(local.ChangeKey(prefix, money(add), revoke), Ok)
