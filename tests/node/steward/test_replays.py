"""The steward's own machine as a witness: what it gives, and that it says so when it can give nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from msgspec.structs import replace
from tests.node.steward.steward_net import office

from fallow.node.steward.replays import Replays
from fallow.rules.steward import events as t
from fallow.wire.claims import output_hash
from fallow.wire.tasks import Part, TaskOutput, TaskSpec

SPEC = TaskSpec("echo", b"hello", (), 0, 1, 60, 1 << 28)
ASKED = t.Replay(b"j" * 32, b"l" * 32, b"c" * 32, SPEC, "", ())


async def test_a_task_is_done_again_in_a_worker_and_leaves_nothing(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path, 0) as (desk, _):
        found = await Replays(desk.services).run(ASKED)
        assert isinstance(found, t.Replayed)
        assert (found.lease, found.claim_hash) == (ASKED.lease, ASKED.claim_hash)
        assert found.answer == output_hash(TaskOutput(b"hello", ()))
        assert not list((desk.services.home / "replay").iterdir())


async def test_inputs_come_from_the_store_or_the_provider_and_what_nobody_has_is_said(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path, 1) as (desk, (seller,)):
        text = b"what it reads"
        here, there = Part("one", desk.services.blobs.put(text), len(text)), b"only there"
        away = Part("two", seller.services.blobs.put(there), len(there))
        asked = replace(ASKED, spec=replace(SPEC, inputs=(here, away)))
        replays = Replays(desk.services)
        missing = await replays.run(asked)
        assert isinstance(missing, t.NotReplayed)
        assert "not at hand: two" in missing.what
        found = await replays.run(replace(asked, sources=(seller.services.rpc.address(),)))
        assert isinstance(found, t.Replayed)


async def test_a_machine_of_another_class_or_without_the_programs_is_no_witness(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path, 0) as (desk, _):
        replays = Replays(desk.services)
        other = await replays.run(replace(ASKED, numerics="another class/t2"))
        nothing = await replays.run(replace(ASKED, spec=replace(SPEC, kind="telepathy")))
        assert isinstance(other, t.NotReplayed)
        assert isinstance(nothing, t.NotReplayed)
        assert (other.lease, other.claim_hash) == (nothing.lease, nothing.claim_hash) == (b"l" * 32, b"c" * 32)
        assert "class" in other.what
        assert "telepathy" in nothing.what
