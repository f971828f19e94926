from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sdk.fake_node import JOB, ME, OTHER_JOB, PROVIDER, RECEIPT, TREE, FakeNode, running

from fallow import aconnect
from fallow.errors import FallowError, UsageError
from fallow.sdk.client import AsyncFallow
from fallow.wire import local
from fallow.wire.messages import Ok


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    with running(tmp_path / "home") as fake:
        yield fake


@pytest.fixture
def client(node: FakeNode, tmp_path: Path) -> AsyncFallow:
    return aconnect(tmp_path / "home")


async def test_without_a_node_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        await aconnect(tmp_path).wallet()
    assert caught.value.code == "E2004"


async def test_the_home_comes_from_the_environment(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FALLOW_HOME", str(tmp_path / "home"))
    assert (await aconnect().wallet()).account == ME


async def test_offers_are_unpacked(client: AsyncFallow) -> None:
    (offer,) = await client.offers()
    assert offer.account == PROVIDER
    assert [rate.kind for rate in offer.rates] == ["train", "generate"]


async def test_train_imports_both_paths_and_caps_the_price_at_the_dearest_that_fits(
    node: FakeNode, client: AsyncFallow, tmp_path: Path
) -> None:
    (tmp_path / "data.txt").write_text("some text")
    job = await client.train(tmp_path, tmp_path / "data.txt", budget="2", workers=3, verify="none", name="mine")
    (submitted,) = node.requests(local.SubmitJob)
    spec = submitted.spec
    assert job.id == submitted.job and len(job.id) == 32
    assert spec.work.model == spec.work.data == TREE
    assert spec.work.data_bytes == 9
    assert (spec.budget_ucr, spec.max_price_ucr, spec.workers, spec.verify) == (2_000_000, 500, 3, "none")


async def test_a_model_is_served_exactly_where_it_can_be_or_as_one_says(client: AsyncFallow, tmp_path: Path) -> None:
    for form, said, chosen in (("llama", "", "exact"), ("gpt2", "", "fp32"), ("llama", "fp32", "fp32")):
        (tmp_path / "config.json").write_text(f'{{"model_type": "{form}"}}')
        spec = await client.plan_serve("tiny", tmp_path, arithmetic=said, budget="1")
        assert isinstance(spec.work, local.ServeJob)
        assert (spec.work.arithmetic, spec.work.exact) == (chosen, chosen == "exact")


async def test_two_submissions_have_two_ids_and_an_id_of_ones_own_is_kept(
    node: FakeNode, client: AsyncFallow, tmp_path: Path
) -> None:
    spec = await client.plan_serve("tiny", tmp_path, budget="1")
    first, second = await client.submit(spec), await client.submit(spec)
    assert first.id != second.id
    assert (await client.submit(spec, b"\x09" * 32)).id == b"\x09" * 32


async def test_a_job_is_found_by_id_beginning_or_name(client: AsyncFallow) -> None:
    assert (await client.job("j_" + JOB.hex())).id == JOB
    assert (await client.job("j_aaa")).id == JOB
    assert (await client.job("abb")).id == OTHER_JOB
    assert (await client.job("notes")).id == JOB
    assert (await client.job(JOB)).id == JOB


@pytest.mark.parametrize("which", ["j_a", "a", "nothing", "j_ff", ""])
async def test_an_ambiguous_or_unknown_job_is_refused(client: AsyncFallow, which: str) -> None:
    with pytest.raises(FallowError) as caught:
        await client.job(which)
    assert caught.value.code == "E2002"


async def test_a_kind_that_nobody_registered_is_refused_by_name_and_never_reaches_the_node(
    node: FakeNode, client: AsyncFallow
) -> None:
    for asked in (client.run("render", [b"x"], budget="1"), client.open_lane_job("render", budget="1")):
        with pytest.raises(UsageError, match="'render'") as caught:
            await asked
        assert caught.value.code == "E2001"
    assert not node.requests(local.SubmitJob)


async def test_a_missing_file_never_reaches_the_node(node: FakeNode, client: AsyncFallow, tmp_path: Path) -> None:
    with pytest.raises(FallowError) as caught:
        await client.import_path(tmp_path / "nothing")
    assert caught.value.code == "E2003"
    assert not node.asked


async def test_receipts_by_id(node: FakeNode, client: AsyncFallow) -> None:
    assert await client.receipt("r_" + RECEIPT.hex()) == b"a receipt"
    with pytest.raises(FallowError) as caught:
        await client.receipt("r_not hex")
    assert caught.value.code == "E1003"


async def test_money_and_keys(node: FakeNode, client: AsyncFallow) -> None:
    await client.move_money("transfer", "0.5 cr", ME)
    assert node.requests(local.MoveMoney) == [local.MoveMoney("transfer", 500_000, ME)]
    assert await client.make_key("label", "1") == "fallow-secret"
    await client.change_key("fallow-abc", "2")
    await client.change_key("fallow-abc", revoke=True)
    assert node.requests(local.ChangeKey) == [
        local.ChangeKey("fallow-abc", 2_000_000, False),
        local.ChangeKey("fallow-abc", 0, True),
    ]
    assert [key.prefix for key in await client.keys()] == ["fallow-abc"]


async def test_an_answer_of_the_wrong_kind_is_our_bug(client: AsyncFallow) -> None:
    with pytest.raises(FallowError) as caught:
        await client.call(local.SeeWallet(), Ok)
    assert caught.value.code == "E9001"


async def test_explain_asks_for_the_old_job(node: FakeNode, client: AsyncFallow) -> None:
    assert (await client.explain_job(JOB)).units == 6_000
    assert node.requests(local.WhyJob) == [local.WhyJob(JOB)]
