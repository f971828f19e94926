"""The node's own machine as a witness: what it gives, and that it says so when it can give nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.node.steward.steward_net import office

from fallow.errors import FallowError
from fallow.node.own_machine import OwnMachine
from fallow.node.steward.effects import Performer
from fallow.rules.steward import events as t
from fallow.wire.claims import output_hash
from fallow.wire.tasks import Part, TaskOutput, TaskSpec

SPEC = TaskSpec("echo", b"hello", (), 0, 1, 60, 1 << 28)
ANSWER = output_hash(TaskOutput(b"hello", ()))


async def refused(own: OwnMachine, spec: TaskSpec = SPEC, numerics: str = "") -> FallowError:
    with pytest.raises(FallowError) as no:
        await own.answer(spec, numerics, (), "a test")
    return no.value


async def test_a_task_is_done_in_a_worker_and_leaves_nothing(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path, 0) as (desk, _):
        assert await OwnMachine(desk.services).answer(SPEC, "", (), "a test") == ANSWER
        assert not list((desk.services.home / "replay").iterdir())


async def test_inputs_come_from_the_store_or_from_peers_and_what_nobody_has_is_said(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path, 1) as (desk, (seller,)):
        text, there = b"what it reads", b"only there"
        here = Part("one", desk.services.blobs.put(text), len(text))
        away = Part("two", seller.services.blobs.put(there), len(there))
        own, spec = OwnMachine(desk.services), replace(SPEC, inputs=(here, away))
        missing = await refused(own, spec)
        assert (missing.code, "not at hand: two" in missing.what) == ("E1602", True)
        assert await own.answer(spec, "", (seller.services.rpc.address(),), "a test") == ANSWER


async def test_a_machine_of_another_class_or_without_the_programs_is_no_witness(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path, 0) as (desk, _):
        own = OwnMachine(desk.services)
        assert (await refused(own, numerics="another class/t2")).code == "E1504"
        assert (await refused(own, replace(SPEC, kind="telepathy"))).code == "E2001"


async def test_a_steward_hears_what_it_gave_or_that_it_gave_nothing(tmp_path: Path) -> None:
    asked = t.ReplayTask(b"j" * 32, b"l" * 32, b"c" * 32, SPEC, "", ())
    async with asyncio.timeout(60), office(tmp_path, 0) as (desk, _):
        performer = Performer(desk.services, desk.steward.records)
        found = await performer.run(asked)
        nothing = await performer.run(replace(asked, numerics="another class/t2"))
        assert isinstance(found, t.Replayed)
        assert isinstance(nothing, t.NotReplayed)
        assert found.answer == ANSWER
        assert {(one.lease, one.claim_hash) for one in (found, nothing)} == {(asked.lease, asked.claim_hash)}
