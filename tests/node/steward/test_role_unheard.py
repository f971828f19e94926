"""A steward that is started without what a job under way takes: the job ends with a code, its escrow comes back, and
the steward goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.e2e import toy_kind
from tests.e2e.test_toy_kind import COMMAND
from tests.e2e.toy_form import Pair, PairJob
from tests.node.provider import provider_net
from tests.node.steward.steward_net import Desk, batch, office

from fallow.adapters.event_log import SqliteEventLog
from fallow.adapters.runners.process import ProcessRunner
from fallow.kinds.registry import KINDS
from fallow.node.config import Config, ProviderConfig
from fallow.node.steward import role
from fallow.node.steward.role import SNAPSHOT, STREAM
from fallow.rules.steward.checks.none import Unchecked
from fallow.rules.steward.checks.registry import CHECKS
from fallow.rules.steward.shapes.registry import SHAPES
from fallow.wire.local import BatchJob, JobSpec, SeeWallet, Wallet

JOB, LATER = b"j" * 32, b"l" * 32
MANY = tuple(b"%d" % number for number in range(300))


class Toy(Unchecked):
    """Believes everything, under a name of its own."""

    name = "toy"


SOCKETS: dict[str, tuple[dict[Any, Any], Any, Any, JobSpec]] = {
    "form": (SHAPES, PairJob, Pair(), msgspec.structs.replace(batch(), work=PairJob("echo", MANY, 1))),
    "check": (CHECKS, "toy", Toy(), batch(*MANY, verify="toy")),
    "kind": (KINDS, "shout", toy_kind.Shout(), msgspec.structs.replace(batch(), work=BatchJob("shout", MANY, (), 3))),
}


def rename_the_form(path: Path) -> None:
    """The log of a steward that knew a form which no module here has at all."""
    log = SqliteEventLog(path)
    rows, saved = log.read(STREAM), log.get(SNAPSHOT)
    assert saved is not None
    old, new = b"\xa4pair\xa4echo", b"\xa4pear\xa4echo"
    assert any(old in raw for raw in (saved, *(raw for _, raw in rows)))
    log.cut(STREAM, rows[-1][0], {SNAPSHOT: saved.replace(old, new)})
    log.append(STREAM, [raw.replace(old, new) for _, raw in rows])
    log.close()


@pytest.mark.parametrize("compact_bytes", [1, 1 << 30], ids=["snapshot", "log"])
@pytest.mark.parametrize("what", [*SOCKETS, "unreadable form"])
async def test_it_ends_with_a_code_and_its_money_comes_back(
    what: str, compact_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, name, member, spec = SOCKETS["form" if what == "unreadable form" else what]
    monkeypatch.setitem(registry, name, member)
    monkeypatch.setattr(role, "COMPACT_BYTES", compact_bytes)
    monkeypatch.setattr(provider_net, "ProcessRunner", lambda: ProcessRunner(COMMAND, boxed=False))
    sells = ProviderConfig(cpus=2, ram="2G", disk="1G", stake="10")
    async with asyncio.timeout(90), office(tmp_path, config=Config(provider=sells)) as (desk, _):
        await desk.steward.submit(JOB, spec)
        await desk.view(JOB, lambda view: sum(lease.units_claimed for lease in view.leases) > 0)
        assert desk.steward.view(JOB).phase == "running"
        await desk.kill()
        if what == "unreadable form":
            rename_the_form(desk.services.home / "log.db")
        else:
            monkeypatch.delitem(registry, name)
        desk = await Desk(desk.pool).start()
        view = desk.steward.view(JOB)
        assert (view.phase, view.failure_code, len(view.leases)) == ("failed", "E1405", 1)
        assert view.kind == ("" if "form" in what else "batch")
        async with asyncio.timeout(40):
            while desk.steward.state.leftovers:
                await asyncio.sleep(0.05)
        wallet = await desk.link.call(SeeWallet())
        assert isinstance(wallet, Wallet)
        assert wallet.escrowed_ucr == 0
        await desk.steward.submit(LATER, batch(b"after"))
        assert (await desk.settled(LATER)).phase == "done"
