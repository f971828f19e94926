"""A check that only this test knows: whole jobs through the real node room and the command line with it, as
docs/explanation/architecture.md says that one is added. It looks at the answer itself and has nothing done twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.node.steward.steward_net import Desk, batch, office

from fallow.cli.main import main
from fallow.errors import FallowError
from fallow.rules.steward.check import Check, PolicyError
from fallow.rules.steward.checks.registry import CHECKS
from fallow.rules.steward.claims import Finding, finalise, refute
from fallow.rules.steward.state import Claim, Job, Seat, Turn
from fallow.wire.documents import Order
from fallow.wire.local import EstimateJob, SubmitJob
from fallow.wire.messages import Declined, RequestQuote

JOB = b"j" * 32


class Toy(Check):
    """Believes an answer whose bytes are in order."""

    name = "toy"
    proves = "that the bytes of the answer are in order"
    leaves_open = "they may be the wrong bytes"

    def parse(self, settings: str, *, in_links: bool) -> Check | PolicyError:
        return PolicyError("toy has no settings") if settings else self

    def begin(self, turn: Turn, job: Job, seat: Seat, claim: Claim) -> None:
        assert claim.slot is not None, "this test has no lanes"
        run = job.slots[claim.slot].leading()
        assert run is not None
        assert run.output is not None
        if list(run.output.value) == sorted(run.output.value):
            finalise(turn, job, seat, claim, Finding("checked", "its bytes are in order"))
        else:
            refute(turn, job, seat, claim, "An answer whose bytes are not in order.")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECKS, "toy", Toy())


async def fallow(desk: Desk, *words: str) -> int:
    """A command of the owner's, beside the node."""
    return await asyncio.to_thread(main, [*words, "--home", str(desk.services.home)])


async def test_a_job_goes_from_the_command_line_to_verified_receipts(
    tmp_path: Path, toy: None, capsys: pytest.CaptureFixture[str]
) -> None:
    async with asyncio.timeout(60), office(tmp_path) as (desk, _):
        assert await fallow(desk, "run", "echo", "abc", "xyz", "--verify", "toy", "--budget", "1", "--yes") == 0
        assert "abc\nxyz\n" in capsys.readouterr().out
        (job,) = desk.steward.state.jobs
        name = f"j_{job.hex()}"
        view = await desk.settled(job)
        assert (view.phase, view.done, sum(lease.units_final for lease in view.leases)) == ("done", 2, 2)
        assert await fallow(desk, "results", name) == 0
        assert "abc\nxyz\n" in capsys.readouterr().out
        assert await fallow(desk, "results", name, "--out", str(tmp_path / "out"), "--receipts") == 0
        assert len(list((tmp_path / "out" / "receipts").iterdir())) == 2
        capsys.readouterr()
        assert await fallow(desk, "verify", name) == 0
        said = capsys.readouterr().out
        assert said.count(f"That it was checked by toy proves {Toy.proves}.") == 2
        assert said.count("its bytes are in order") == 2


async def test_an_answer_that_it_refutes_is_not_paid_and_its_account_gets_no_more_work(
    tmp_path: Path, toy: None
) -> None:
    async with asyncio.timeout(60), office(tmp_path) as (desk, (seller,)):
        await desk.steward.submit(JOB, batch(b"cba", verify="toy"))
        view = await desk.view(JOB, lambda view: any(lease.state == "banned" for lease in view.leases))
        assert sum(lease.units_final for lease in view.leases) == 0
        assert desk.steward.state.standing(seller.services.identity.account).banned
        assert not desk.steward.records.receipts(JOB)


async def test_without_it_every_door_refuses_it_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with asyncio.timeout(60), office(tmp_path) as (desk, (seller,)):
        assert await fallow(desk, "run", "echo", "abc", "--verify", "toy", "--budget", "1", "--yes") != 0
        assert "toy" in capsys.readouterr().err
        for request in (SubmitJob(JOB, batch(b"abc", verify="toy")), EstimateJob(batch(b"abc", verify="toy"))):
            with pytest.raises(FallowError) as caught:
                await desk.link.call(request)
            assert (caught.value.code, "'toy'" in caught.value.what) == ("E2001", True)
        s = desk.services
        order = Order(
            requester=s.identity.account, node=s.identity.node, job=JOB, kind="echo", numerics="", cpu_millis=1_000,
            ram_bytes=0, disk_bytes=0, gpus=0, gpu_ram_bytes=0, units=1, max_price_ucr=5_000_000, min_stake_ucr=0,
            verify="toy", ends_ms=s.clock.now_ms() + 60_000, bank=s.bank_account, nonce=bytes(32),
        )  # fmt: skip
        asked = RequestQuote(
            s.identity.sign(order, s.bank_account), s.identity.certificate(s.clock.now_ms()), s.rpc.address()
        )
        answer = await s.rpc.call(seller.services.rpc.address(), asked, 10)
        assert isinstance(answer, Declined)
        assert ("verify", True) in [(lack.resource, "'toy'" in lack.note) for lack in answer.shortfalls]


async def test_a_receipt_of_a_check_that_this_fallow_does_not_know_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as known:
        known.setitem(CHECKS, "toy", Toy())
        async with asyncio.timeout(60), office(tmp_path) as (desk, _):
            await desk.steward.submit(JOB, batch(b"abc", verify="toy"))
            await desk.settled(JOB)
            assert await fallow(desk, "results", f"j_{JOB.hex()}", "--out", str(tmp_path / "out"), "--receipts") == 0
    (file,) = (tmp_path / "out" / "receipts").iterdir()
    capsys.readouterr()
    assert await asyncio.to_thread(main, ["verify", str(file), "--home", str(desk.services.home)]) == 6
    assert "unknown way to verify 'toy'" in capsys.readouterr().out
