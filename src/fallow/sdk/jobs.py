"""A submitted job as an object."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from typing import Protocol, TypeVar

from fallow.errors import FallowError, UnavailableError, fail
from fallow.sdk.lanes import AsyncLane
from fallow.sdk.link import NodeSocket
from fallow.units import format_money, to_text
from fallow.wire import local
from fallow.wire.messages import Message, Ok

RECONNECT_TRIES = 120
RECONNECT_EVERY_S = 0.5
SETTLE_TRIES = 50
SETTLE_EVERY_S = 0.1
ENDED = ("done", "failed", "cancelled")

M = TypeVar("M", bound=Message)


class JobClient(Protocol):
    """The part of `AsyncFallow` that a job needs."""

    link: NodeSocket

    async def call(self, request: Message, reply: type[M], timeout_s: float = ...) -> M: ...

    async def export(self, tree: bytes, path: str | os.PathLike[str], name: str = "") -> None: ...


class AsyncJob:
    """One job of the node's owner. It lives in the node: dropping this object, or ending the program, changes
    nothing."""

    def __init__(self, client: JobClient, job: bytes) -> None:
        self._client = client
        self.id = job

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.text}>"

    @property
    def text(self) -> str:
        """The id as people see it."""
        return to_text("job", self.id)

    async def view(self) -> local.JobView:
        """How it stands."""
        return (await self._client.call(local.GetJob(self.id), local.JobOf)).job

    async def watch(self, after: int = 0, *, follow: bool = True) -> AsyncGenerator[local.JobNote, None]:
        """Everything that happened, from the note after number `after`, and (with `follow`) then as it happens;
        ends with the job. Goes on by itself when the node is restarted, for about a minute."""
        tries = 0
        while True:
            try:
                async with self._client.link.open(local.WatchJob(self.id, after, follow)) as stream:
                    async for note in stream:
                        if isinstance(note, local.JobNote):
                            after, tries = max(after, note.number), 0
                            yield note
                    return
            except FallowError as error:
                tries += 1
                if not _may_pass(error) or tries > RECONNECT_TRIES:
                    raise
            await asyncio.sleep(RECONNECT_EVERY_S)

    async def wait(self) -> local.JobView:
        """Wait for the end; -> the final view. Raises RejectedError with the job's own code when it failed, E1402 when
        it was cancelled; the error says what was paid."""
        async for _ in self.watch():
            pass
        return ended_well(await self.settled())

    async def settled(self) -> local.JobView:
        """The view of a job that has ended, once its leases are closed and the money is where it stays; waits a few
        seconds for that, since a provider may be away until its lease ends."""
        view = await self.view()
        for _ in range(SETTLE_TRIES):
            if view.phase in ENDED:
                break
            await asyncio.sleep(SETTLE_EVERY_S)
            view = await self.view()
        return view

    async def results(self) -> local.JobResults:
        """The final outputs. Raises RejectedError E1403 while there are none."""
        return await self._client.call(local.GetResults(self.id), local.JobResults)

    async def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result folder of a training job to `path`. Raises RejectedError E1403 when there is none."""
        tree = (await self.results()).tree
        if not tree:
            raise fail("E1403", f"{self.text} has no result folder.", next_step=f"fallow results {self.text}")
        await self._client.export(tree, path)

    async def cancel(self) -> None:
        """Stop it; what was done until now is paid, the rest comes back."""
        await self._client.call(local.CancelJob(self.id), Ok)

    async def receipts(self) -> tuple[bytes, ...]:
        """The ids of its receipts."""
        return (await self._client.call(local.ListReceipts(self.id), local.ReceiptList)).receipts

    def lane(self, *, receipts: bool = False) -> AsyncLane:
        """Its lane, when it is a lane or serve job."""
        return AsyncLane(self._client.link, self.id, receipts=receipts)


def ended_well(view: local.JobView) -> local.JobView:
    """The view itself when the job is done, or done but for closing its leases. Raises as `AsyncJob.wait` does
    otherwise."""
    text = to_text("job", view.job)
    if view.phase == "cancelled" or view.failure_code == "E1402":
        raise fail("E1402", f"Job {text} was cancelled.", money=money_of(view), next_step=f"fallow logs {text[:12]}")
    if view.phase == "failed" or view.failure_code:
        code = view.failure_code or "E1403"
        what = f"Job {text} failed: {view.failure}"
        raise fail(code, what, money=money_of(view), next_step=f"fallow logs {text[:12]}")
    return view


def money_of(view: local.JobView) -> str:
    """Where a job's money is, in a sentence."""
    paid = f"{format_money(view.spent_ucr)} was paid for finished work"
    if view.phase in ENDED or not view.locked_ucr:
        return f"{paid}; the rest of the budget is yours again."
    return f"{paid}; {format_money(view.locked_ucr)} is locked until the leases are closed, and then yours again."


def _may_pass(error: FallowError) -> bool:
    """A node that is being restarted is unreachable or not there at all."""
    return isinstance(error, UnavailableError) or error.code == "E2004"
