"""The roles of one node, taken up over doors that are open already: the same in production and in the simulator."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from fallow.errors import fail
from fallow.node import api
from fallow.node.api_keys import ApiKeys, serve_api_keys
from fallow.node.blobs import serve_blobs
from fallow.node.config import write_ticket
from fallow.node.lanes.session import serve_lanes
from fallow.node.pool import Pool
from fallow.node.router import Router
from fallow.node.services import Services
from fallow.node.steward.holdings import serve_holdings
from fallow.node.steward.receipts import Receipts
from fallow.node.steward.role import Steward
from fallow.rules.steward.events import Timing
from fallow.rules.steward.shapes.registry import shape_of

if TYPE_CHECKING:
    from fallow.node.provider.role import Provider


log = structlog.get_logger()


@dataclass
class Roles:
    """What a node plays, and the two routers that it answers with: `remote` to peers, `owner` to its owner's programs.
    `steward` and `provider` are there once those roles are taken up."""

    names: frozenset[str]
    timing: Timing
    remote: Router
    owner: Router
    steward: Steward | None = None
    provider: Provider | None = None
    ticket: str = ""


async def take_up(roles: Roles, services: Services, pool: Pool, group: asyncio.TaskGroup) -> None:
    """Serve peers, join the pool and begin to work in `group`; returns when the owner can be answered. Raises what
    joining a pool and opening books raise."""
    serve_blobs(roles.remote, services.blobs)
    if "bank" in roles.names:
        group.create_task(pool.open_bank(roles.remote).run(), name="referee")
    if "directory" in roles.names:
        pool.open_directory(roles.remote)
    assert services.rpc.server is not None
    group.create_task(services.rpc.server.run(services.transport, services.rpc), name="serve peers")
    await pool.join()
    if "steward" in roles.names:
        await _steward(roles, services, group)
    if "provider" in roles.names:
        guard = await asyncio.to_thread(services.runner.guard)
        log.info("workers are kept in", by=guard)
        _provider(roles, services, group)
    roles.ticket = write_ticket(services.ticket) if services.ticket is not None else ""
    shown = tuple(sorted(roles.names))
    api.serve_node(roles.owner, services, shown, roles.ticket if "bank" in roles.names else "")
    if services.ticket is not None:
        api.serve_wallet(roles.owner, services)
        api.serve_offers(roles.owner, services)
    api.serve_files(roles.owner, services)


def _provider(roles: Roles, services: Services, group: asyncio.TaskGroup) -> None:
    from fallow.node.provider.calls import serve_provider
    from fallow.node.provider.role import Provider

    roles.provider = Provider(services)
    serve_provider(roles.remote, roles.provider)
    group.create_task(roles.provider.run(), name="provider")


async def _steward(roles: Roles, services: Services, group: asyncio.TaskGroup) -> None:
    if services.ticket is None:
        raise fail("E2001", "A steward needs a pool.", next_step="fallow join TICKET")
    steward, owner = Steward(services, roles.timing), roles.owner

    def known(job: bytes) -> None:
        work = steward.spec(job).work
        shape_of(work).lane(work)

    ready = asyncio.Event()
    group.create_task(steward.run(ready), name="steward")
    await ready.wait()
    roles.steward = steward
    api.serve_jobs(owner, services, steward)
    api.serve_receipts(owner, steward, Receipts(services, steward.records, steward.state))
    serve_holdings(owner, services, steward)
    keys = ApiKeys(services.log, services.clock, services.entropy)
    serve_lanes(owner, steward.lanes, keys, known)
    serve_api_keys(owner, keys)
