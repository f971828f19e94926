"""What a node answers its owner's programs over the local socket: jobs, files, money, offers, receipts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from fallow import __version__
from fallow.errors import FallowError, RejectedError, fail
from fallow.kinds.registry import kind_named
from fallow.node.directory import find_offers, search_signed
from fallow.node.folders import export_tree, import_path
from fallow.node.router import Caller, Router
from fallow.node.services import Services
from fallow.node.steward.blobs import IMPORTED, take_inputs
from fallow.node.steward.receipts import Receipts
from fallow.node.steward.role import Steward
from fallow.rules import market
from fallow.rules.steward.checks.registry import PolicyError, parse
from fallow.rules.steward.estimate import estimate
from fallow.rules.steward.shape import LaneTerms
from fallow.rules.steward.shapes.registry import shape_of
from fallow.sdk.jobs import money_of
from fallow.units import BlobId, format_money, to_text
from fallow.wire import local
from fallow.wire.codec import encode
from fallow.wire.ledger import Appeal, Rule
from fallow.wire.messages import Message, Offer, Ok
from fallow.wire.tasks import Part, TaskOutput
from fallow.wire.trees import TreeEntry, encode_tree

MAX_OFFERS = 1000


def serve_wallet(router: Router, services: Services) -> None:
    """Balances and moving money."""

    @router.on(local.SeeWallet)
    async def _(_caller: Caller, _request: local.SeeWallet) -> local.Wallet:
        account = services.identity.account
        found = await services.settlement().balance(account)
        return local.Wallet(
            account, services.bank_account, found.available_ucr, found.escrowed_ucr, found.staked_ucr,
            found.bonded_ucr, found.unbonding_ucr, found.earned_ucr, found.slashed_ucr,
        )  # fmt: skip

    @router.on(local.SeeBooks)
    async def _(_caller: Caller, _request: local.SeeBooks) -> local.PoolBooks:
        books = await services.settlement().books()
        return local.PoolBooks(books.minted_ucr, books.sum_ucr, books.accounts, books.open_escrows)

    @router.on(local.MoveMoney)
    async def _(_caller: Caller, request: local.MoveMoney) -> Ok:
        settlement, amount = services.settlement(), request.amount_ucr
        match request.action:
            case "deposit":
                await settlement.deposit(amount)
            case "unbond":
                await settlement.unbond(amount)
            case "transfer":
                await settlement.transfer(request.to, amount)
            case "grant":
                await settlement.grant(request.to, amount)
            case _:
                raise fail("E2001", f"{request.action!r} is no way to move money.")
        return Ok()

    @router.on(local.AnswerCharge)
    async def _(_caller: Caller, request: local.AnswerCharge) -> Ok:
        if request.answer not in ("appeal", "upheld", "overturned"):
            raise fail("E2001", f"{request.answer!r} is no answer to a charge.")
        settlement, lease = services.settlement(), request.lease
        found = await settlement.standing(lease)
        charge = found.charge if found is not None else None
        if charge is None:
            raise fail("E2002", f"Nothing is charged under lease {to_text('lease', lease)}, or it is decided.")
        appeal, ruling = Appeal(lease, charge.task), Rule(lease, charge.task, request.answer == "upheld")
        await settlement.answer(appeal if request.answer == "appeal" else ruling)
        return Ok()


def serve_offers(router: Router, services: Services) -> None:
    """What the market offers."""

    @router.on(local.SeeOffers)
    async def _(_caller: Caller, _request: local.SeeOffers) -> local.OffersSeen:
        signed = await search_signed(services.rpc, services.directories, "", services.clock.now_ms())
        return local.OffersSeen(tuple(encode(one) for one in signed))

    async def live(kind: str) -> list[Offer]:
        return await find_offers(services.rpc, services.directories, kind, services.clock.now_ms())

    @router.on(local.EstimateJob)
    async def _(_caller: Caller, request: local.EstimateJob) -> local.Estimate:
        _refuse_check(request.spec)
        offers = await live(market.kind_of(request.spec).name)
        return estimate(request.spec, services.bank_account, offers[:MAX_OFFERS], services.clock.now_ms())


def serve_files(router: Router, services: Services) -> None:
    """The owner's files in and out of the blob store."""

    @router.on(local.ImportPath)
    async def _(_caller: Caller, request: local.ImportPath) -> local.Imported:
        found = await asyncio.to_thread(import_path, services.blobs, Path(request.path), IMPORTED)
        return local.Imported(found.tree, found.size_bytes, found.files)

    @router.on(local.ExportTree)
    async def _(_caller: Caller, request: local.ExportTree) -> Ok:
        blob, folder = BlobId(request.tree), Path(request.path)
        if request.name:
            await asyncio.to_thread(_export_blob, services, blob, folder, request.name)
        else:
            await asyncio.to_thread(export_tree, services.blobs, blob, folder)
        return Ok()


def _export_blob(services: Services, blob: BlobId, folder: Path, name: str) -> None:
    if not name or "/" in name or name.startswith("."):
        raise fail("E2001", f"{name!r} is no file name.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{name}.part"
        part.write_bytes(services.blobs.path(blob).read_bytes())
        os.replace(part, folder / name)
    except OSError as error:
        raise fail("E2003", f"{folder / name} cannot be written: {error.strerror}.") from error


def result_tree(services: Services, parts: tuple[Part, ...]) -> bytes:
    """The output parts of a finishing task ("adapter/<file>" or "model/<file>") as one tree."""
    files = [part for part in parts if part.name.startswith(("adapter/", "model/"))]
    entries = tuple(
        TreeEntry(part.name.split("/", 1)[1], part.blob, part.size_bytes, False)
        for part in sorted(files, key=lambda part: part.name.split("/", 1)[1])
    )
    return services.blobs.put(encode_tree(entries)) if entries else b""


def serve_jobs(router: Router, services: Services, steward: Steward) -> None:
    """Jobs: submit, look, wait, cancel, results."""

    async def pay_in_advance(spec: local.JobSpec) -> None:
        """A job whose budget is not in the wallet is refused before anything starts."""
        found = await services.settlement().balance(services.identity.account)
        if found.available_ucr < spec.budget_ucr:
            have, want = format_money(found.available_ucr), format_money(spec.budget_ucr)
            raise fail("E1301", f"The budget is {want}; your account holds {have}.")

    @router.on(local.SubmitJob)
    async def _(_caller: Caller, request: local.SubmitJob) -> local.Submitted:
        if request.job not in steward.jobs():
            await pay_in_advance(request.spec)
            _refuse(request.spec, steward)
            await asyncio.to_thread(take_inputs, services.blobs, request.job, request.spec.work)
            await steward.submit(request.job, request.spec)
        return local.Submitted(request.job)

    @router.on(local.ListJobs)
    async def _(_caller: Caller, _request: local.ListJobs) -> local.JobList:
        async with steward.deciding:
            return local.JobList(tuple(steward.view(job) for job in reversed(steward.jobs())))

    @router.on(local.GetJob)
    async def _(_caller: Caller, request: local.GetJob) -> local.JobOf:
        found = [job for job in steward.jobs() if job.startswith(request.prefix)]
        if len(found) != 1:
            raise fail("E2002", f"{len(found) or 'No'} jobs begin with j_{request.prefix.hex()}.")
        async with steward.deciding:
            return local.JobOf(steward.view(found[0]))

    @router.stream(local.WatchJob)
    async def _(
        _caller: Caller, request: local.WatchJob, _inputs: AsyncIterator[Message]
    ) -> AsyncIterator[local.JobNote]:
        steward.view(request.job)
        if not request.follow:
            for note in steward.records.notes(request.job, request.after):
                yield note
            return
        async for note in steward.records.watch(request.job, request.after):
            yield note

    @router.on(local.CancelJob)
    async def _(_caller: Caller, request: local.CancelJob) -> Ok:
        await steward.cancel(request.job)
        return Ok()

    @router.on(local.GetResults)
    async def _(_caller: Caller, request: local.GetResults) -> local.JobResults:
        outputs = believed(steward, request.job)
        parts = tuple(part for output in outputs for part in output.parts)
        return local.JobResults(outputs, await asyncio.to_thread(result_tree, services, parts))

    @router.on(local.WhyJob)
    async def _(_caller: Caller, request: local.WhyJob) -> local.Estimate:
        spec = steward.spec(request.job)
        kind = market.kind_of(spec).name
        offers = await find_offers(services.rpc, services.directories, kind, services.clock.now_ms())
        numerics = steward.state.jobs[request.job].market.numerics
        return estimate(spec, services.bank_account, offers[:MAX_OFFERS], services.clock.now_ms(), numerics)


def believed(steward: Steward, job: bytes) -> tuple[TaskOutput, ...]:
    """The final outputs of a job that has ended. Raises RejectedError E1403, or the job's own, when there are none;
    the error says what was paid."""
    view, ended = steward.view(job), steward.records.outcome(job)
    if ended is None:
        what, paid = f"The job is still {view.phase}.", f"{format_money(view.spent_ucr)} was paid so far."
        next_step = f"fallow logs -f {_short(view)}"
        raise fail("E1403", what, cause="It has not finished.", money=paid, next_step=next_step)
    outputs = tuple(output for output in ended.outputs if output is not None)
    if ended.code and not outputs:
        code = ended.code if issubclass(_family(ended.code), RejectedError) else "E1403"
        raise fail(
            code,
            f"There are no outputs: {ended.what}.",
            money=money_of(view),
            next_step=f"fallow logs {_short(view)}",
        )
    return outputs


def _short(view: local.JobView) -> str:
    return to_text("job", view.job)[:12]


def _refuse_check(spec: local.JobSpec) -> None:
    """Raises UsageError E2001 for a way to verify that nobody knows."""
    check = parse(spec.verify)
    if isinstance(check, PolicyError):
        raise fail("E2001", f"{check.what}.", next_step="fallow run --help")


def _refuse(spec: local.JobSpec, steward: Steward) -> None:
    """Raises UsageError E2001 for a job that cannot be meant, before it is written down."""
    kind, shape = kind_named(spec.work.workload), shape_of(spec.work)
    if wrong := shape.refuse(spec):
        raise fail("E2001", f"This cannot be meant: {wrong}.")
    _refuse_check(spec)
    name = shape.lane(spec.work).served_as if shape.on_lanes else ""
    if name and any(model.name == name for model in models(steward)):
        raise fail("E2001", f"A model named {name!r} is served already.", next_step="Choose another with --as.")
    metered = shape.volume(spec).largest
    for number, params in enumerate(shape.params(spec.work)):
        try:
            units = kind.units(params)
        except FallowError as error:
            raise fail("E2001", f"Task {number} is no {kind.name}: {error.what}") from error
        if units > metered:
            raise fail("E2001", f"Task {number} is {units} units of {kind.name}; the job meters {metered}.")


def _family(code: str) -> type[FallowError]:
    from fallow.errors import CODES

    return CODES[code].family


def models(steward: Steward) -> tuple[local.ServedModel, ...]:
    """The serve jobs that are running."""
    found: list[local.ServedModel] = []
    for job in steward.state.jobs.values():
        shape = shape_of(job.spec.work)
        terms = shape.lane(job.spec.work) if shape.on_lanes else LaneTerms()
        if terms.served_as and not job.over and job.ending is None:
            ready = sum(seat.usable and seat.lane.ready for seat in job.seats)
            name, tokens, price = terms.served_as, terms.context_tokens, job.spec.max_price_ucr
            found.append(local.ServedModel(name, job.id, tokens, ready, job.created_ms, price))
    return tuple(found)


def serve_receipts(router: Router, steward: Steward, receipts: Receipts) -> None:
    """Receipts, and the list of served models."""

    @router.on(local.ListReceipts)
    async def _(_caller: Caller, request: local.ListReceipts) -> local.ReceiptList:
        steward.view(request.job)
        return local.ReceiptList(receipts.of_job(request.job))

    @router.on(local.GetReceipt)
    async def _(_caller: Caller, request: local.GetReceipt) -> local.ReceiptBytes:
        return local.ReceiptBytes(await receipts.sealed(request.prefix))

    @router.on(local.ListModels)
    async def _(_caller: Caller, _request: local.ListModels) -> local.ModelList:
        return local.ModelList(models(steward))


def serve_node(router: Router, services: Services, roles: tuple[str, ...], ticket: str) -> None:
    """What this node is."""

    @router.on(local.SeeNode)
    async def _(_caller: Caller, _request: local.SeeNode) -> local.NodeView:
        bank = services.ticket.bank_account if services.ticket is not None else bytes(20)
        return local.NodeView(
            __version__, services.identity.account, services.rpc.address(), roles, bank, ticket, "", os.getpid()
        )  # fmt: skip
