"""The synchronous client: `AsyncFallow` behind an event loop in a thread of its own. Every method here is derived from
its asynchronous twin, signature and docstring included; nothing is written twice."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from fallow.sdk.client import AsyncFallow
from fallow.sdk.jobs import AsyncJob
from fallow.sdk.lanes import Answer, AsyncLane

P = ParamSpec("P")
T = TypeVar("T")
Inner = TypeVar("Inner")
RUN_AHEAD = 256


class Portal:
    """An event loop in a daemon thread, and ways to run things in it from other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fallow", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it to its end; -> what it returns, or raise what it raises. An interrupt cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def iterate(self, source: AsyncGenerator[T, None]) -> Iterator[T]:
        """The items as they come. The source runs ahead by at most RUN_AHEAD items; leaving the loop closes it."""
        queue = asyncio.Queue[tuple[T] | None](RUN_AHEAD)

        async def pump() -> None:
            try:
                async for item in source:
                    await queue.put((item,))
            except Exception:
                await queue.put(None)
                raise
            else:
                await queue.put(None)
            finally:
                await source.aclose()

        pumping = asyncio.run_coroutine_threadsafe(pump(), self._loop)
        try:
            while (item := self.call(queue.get())) is not None:
                yield item[0]
            pumping.result()
        finally:
            pumping.cancel()

    @contextmanager
    def hold(self, manager: AbstractAsyncContextManager[T]) -> Generator[T, None, None]:
        """Enter an asynchronous context for the length of a `with` block. One task enters and leaves it."""
        opened: Future[T] = Future()
        closing = asyncio.Event()

        async def keep() -> None:
            try:
                async with manager as value:
                    opened.set_result(value)
                    await closing.wait()
            except BaseException as error:
                if not opened.done():
                    opened.set_exception(error)
                raise

        keeping = asyncio.run_coroutine_threadsafe(keep(), self._loop)
        try:
            yield opened.result()
            self._loop.call_soon_threadsafe(closing.set)
            keeping.result()
        finally:
            keeping.cancel()

    def close(self) -> None:
        """Cancel what still runs and end the thread. Harmless when repeated."""
        if self._loop.is_closed():
            return

        async def drain() -> None:
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            await self._loop.shutdown_asyncgens()
            await asyncio.sleep(0)  # aborted sockets are closed in the round after

        self.call(drain())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Shell(Generic[Inner]):
    """A synchronous face of `inner`, which lives in the portal's loop."""

    def __init__(self, portal: Portal, inner: Inner) -> None:
        self.portal, self.inner = portal, inner


def _blocking(
    method: Callable[Concatenate[Inner, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[_Shell[Inner], P], T]:
    """A coroutine method as one that waits."""

    @functools.wraps(method)
    def run(shell: _Shell[Inner], /, *args: P.args, **options: P.kwargs) -> T:
        return shell.portal.call(method(shell.inner, *args, **options))

    return run


def _blocking_job(
    method: Callable[Concatenate[Inner, P], Coroutine[Any, Any, AsyncJob]],
) -> Callable[Concatenate[_Shell[Inner], P], Job]:
    """The same for methods that give a job."""

    @functools.wraps(method)
    def run(shell: _Shell[Inner], /, *args: P.args, **options: P.kwargs) -> Job:
        return Job(shell.portal, shell.portal.call(method(shell.inner, *args, **options)))

    return run


def _blocking_iterator(
    method: Callable[Concatenate[Inner, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[_Shell[Inner], P], Iterator[T]]:
    """The same for methods that stream."""

    @functools.wraps(method)
    def run(shell: _Shell[Inner], /, *args: P.args, **options: P.kwargs) -> Iterator[T]:
        return shell.portal.iterate(method(shell.inner, *args, **options))

    return run


class Lane(_Shell[AsyncLane]):
    """`with job.lane() as lane: lane.map(params)`; see AsyncLane."""

    run = _blocking(AsyncLane.run)
    stream = _blocking_iterator(AsyncLane.stream)

    def map(self, params: Iterable[bytes], seed: int = 0) -> list[Answer]:
        """All of them, pipelined; answers in the order of `params`. The first error ends it."""
        return self.portal.call(self.inner.map(params, seed))


class Job(_Shell[AsyncJob]):
    """One job of the node's owner; see AsyncJob."""

    view = _blocking(AsyncJob.view)
    watch = _blocking_iterator(AsyncJob.watch)
    wait = _blocking(AsyncJob.wait)
    settled = _blocking(AsyncJob.settled)
    results = _blocking(AsyncJob.results)
    save = _blocking(AsyncJob.save)
    cancel = _blocking(AsyncJob.cancel)
    receipts = _blocking(AsyncJob.receipts)

    @property
    def id(self) -> bytes:
        """The job's id."""
        return self.inner.id

    @property
    def text(self) -> str:
        """The id as people see it."""
        return self.inner.text

    def __repr__(self) -> str:
        return f"<Job {self.text}>"

    @contextmanager
    def lane(self, *, receipts: bool = False) -> Generator[Lane, None, None]:
        """Its lane, when it is a lane or serve job: `with job.lane() as lane`."""
        with self.portal.hold(self.inner.lane(receipts=receipts)) as lane:
            yield Lane(self.portal, lane)


class Fallow(_Shell[AsyncFallow]):
    """A connection to the node of one home folder; see AsyncFallow. Use it in `with`, or `close` it."""

    def __init__(self, home: str | os.PathLike[str] | None = None) -> None:
        super().__init__(Portal(), AsyncFallow(home))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End calls in progress. Jobs go on: they live in the node."""
        self.portal.close()

    node = _blocking(AsyncFallow.node)
    offers = _blocking(AsyncFallow.offers)
    models = _blocking(AsyncFallow.models)
    wallet = _blocking(AsyncFallow.wallet)
    move_money = _blocking(AsyncFallow.move_money)
    answer_charge = _blocking(AsyncFallow.answer_charge)
    import_path = _blocking(AsyncFallow.import_path)
    export = _blocking(AsyncFallow.export)
    train = _blocking_job(AsyncFallow.train)
    plan_train = _blocking(AsyncFallow.plan_train)
    run = _blocking_job(AsyncFallow.run)
    run_program = _blocking_job(AsyncFallow.run_program)
    plan_program = _blocking(AsyncFallow.plan_program)
    serve = _blocking_job(AsyncFallow.serve)
    plan_serve = _blocking(AsyncFallow.plan_serve)
    open_lane_job = _blocking_job(AsyncFallow.open_lane_job)
    estimate = _blocking(AsyncFallow.estimate)
    price = _blocking(AsyncFallow.price)
    submit = _blocking_job(AsyncFallow.submit)
    jobs = _blocking(AsyncFallow.jobs)
    job = _blocking_job(AsyncFallow.job)
    explain_job = _blocking(AsyncFallow.explain_job)
    receipt = _blocking(AsyncFallow.receipt)
    make_key = _blocking(AsyncFallow.make_key)
    keys = _blocking(AsyncFallow.keys)
    change_key = _blocking(AsyncFallow.change_key)
