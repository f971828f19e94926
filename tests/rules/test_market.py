"""Fitting, ranking, volumes, caps."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.rules import market
from fallow.rules.market import Bid, Needs
from fallow.units import GIB, cost_ucr
from fallow.wire.documents import Signed
from fallow.wire.local import BatchJob, JobSpec, LaneJob, ServeJob, TrainJob
from fallow.wire.messages import EXACT, Gpu, Hardware, NodeAddress, Offer, Rate, Shortfall
from fallow.wire.tasks import Recipe

BANK = b"b" * 20
RECIPE = Recipe("lora", sequence_tokens=10, batch_sequences=2, inner_steps=4, rounds=3, holdout_sequences=5)
TRAIN = JobSpec(TrainJob(bytes(32), bytes(32), RECIPE, 77), 10, 5, 2)
BATCH = JobSpec(BatchJob("echo", (b"1", b"2", b"3"), (), 7), 10, 0, 2)
SERVE = JobSpec(ServeJob("m", bytes(32), b"", 2, 512), 10, 0, 1)
LANE = JobSpec(LaneJob("echo", 2), 10, 0, 1)


def offer(node: int = 1, price: int = 10, speed: int = 5, numerics: str = "x86", **changes: object) -> Offer:
    hardware = Hardware("cpu", 4_000, 8 * GIB, 10 * GIB, (Gpu("0", "T4", 16 * GIB),), numerics)
    made = Offer(
        bytes([node]) * 20, NodeAddress(bytes([node]) * 32), Signed(b"", bytes(65)), hardware,
        (Rate("train", price, speed), Rate("echo", price, speed)), BANK, 100, "", 1_000, 60,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def test_an_offer_that_fits_has_no_shortfalls() -> None:
    assert market.fit(market.needs_of(TRAIN, BANK), offer(price=5), 2_000) == ()


@pytest.mark.parametrize(
    ("needs", "shortfall"),
    [
        (Needs("bake", BANK), Shortfall("kind", 0, 0, "does not offer bake")),
        (Needs("echo", b"c" * 20), Shortfall("bank", 0, 0, "settles at another bank")),
        (Needs("echo", BANK, numerics="arm"), Shortfall("numerics", 0, 0, "computes as x86, this job as arm")),
        (Needs("echo", BANK, cpu_millis=9_000), Shortfall("cpu_millis", 9_000, 4_000)),
        (Needs("echo", BANK, ram_bytes=9 * GIB), Shortfall("ram_bytes", 9 * GIB, 8 * GIB)),
        (Needs("echo", BANK, disk_bytes=11 * GIB), Shortfall("disk_bytes", 11 * GIB, 10 * GIB)),
        (Needs("echo", BANK, gpus=2), Shortfall("gpus", 2, 1)),
        (Needs("echo", BANK, gpus=1, gpu_ram_bytes=20 * GIB), Shortfall("gpus", 1, 0)),
        (Needs("echo", BANK, max_price_ucr=9), Shortfall("price_ucr", 9, 10, "asks more than the limit")),
        (Needs("echo", BANK, min_stake_ucr=101), Shortfall("stake_ucr", 101, 100)),
    ],
)
def test_each_shortfall_has_true_figures(needs: Needs, shortfall: Shortfall) -> None:
    assert market.fit(needs, offer(), 2_000) == (shortfall,)


def test_an_old_offer_does_not_fit_and_all_shortfalls_are_told() -> None:
    assert market.fit(Needs("echo", BANK), offer(), 60_999) == ()
    found = market.fit(Needs("bake", b"c" * 20, gpus=3), offer(), 61_000)
    assert [s.resource for s in found] == ["kind", "bank", "offer", "gpus"]


def test_ranking_never_depends_on_the_order_of_answers() -> None:
    cheap, fast, slow = Bid(b"1", b"", 5, 1), Bid(b"2", b"", 9, 9), Bid(b"3", b"", 9, 1)
    twin = Bid(b"0", b"", 5, 1)
    for bids in ([cheap, fast, slow, twin], [twin, slow, fast, cheap]):
        assert market.rank(bids, "price") == [twin, cheap, fast, slow]
        assert market.rank(bids, "speed") == [fast, twin, cheap, slow]


def test_bids_of_offers() -> None:
    assert market.bid_of(offer(3, 7, 9), "echo") == Bid(bytes([3]) * 32, bytes([3]) * 20, 7, 9)
    assert market.bid_of(offer(), "generate") is None


def test_the_class_with_the_most_accounts_is_taken() -> None:
    offers = [offer(1, 1, numerics="arm"), offer(2, 9), offer(3, 9)]
    assert market.common_numerics(offers, "price", "echo") == "x86"
    assert market.common_numerics(offers[:2], "price", "echo") == "arm"
    same_account = [offer(1, 1, numerics="arm"), offer(2, 9), offer(4, 9, account=bytes([2]) * 20)]
    assert market.common_numerics(same_account, "price", "echo") == "arm"
    assert market.common_numerics([], "price", "echo") == ""


def test_kinds_and_needs() -> None:
    assert [market.kind_of(spec).name for spec in (TRAIN, BATCH, SERVE, LANE)] == ["train", "echo", "generate", "echo"]
    assert market.needs_of(TRAIN, BANK, "x86") == Needs(
        "train", BANK, "x86", ram_bytes=3 * GIB, disk_bytes=77, max_price_ucr=5
    )


def test_exact_training_asks_for_the_room_of_its_commitments() -> None:
    recipe = msgspec.structs.replace(RECIPE, arithmetic="exact", trace_bytes=5 * GIB)
    spec = msgspec.structs.replace(TRAIN, work=TrainJob(bytes(32), bytes(32), recipe, 77))
    needs = market.needs_of(spec, BANK)
    assert needs.disk_bytes == 77 + 3 * 5 * GIB
    shortfalls = market.fit(needs, offer(price=5), 2_000)
    assert Shortfall("disk_bytes", needs.disk_bytes, 10 * GIB) in shortfalls


def test_estimates_round_up() -> None:
    assert market.estimate_ucr(1_000, 1_500_000, 10) == 15
    assert market.estimate_ucr(1, 1_000_001, 1) == 1


@given(st.integers(0, 10**9), st.integers(1, 50), st.integers(0, 10**6), st.integers(0, 10**7), st.integers(0, 10**6))
def test_caps_of_all_missing_leases_stay_within_the_budget(
    budget: int, missing: int, price: int, fair: int, largest: int
) -> None:
    left = budget
    for free in range(missing, 0, -1):
        cap = market.cap_for(left, free, price, fair, largest)
        assert 0 <= cap <= left
        assert cap == 0 or cap >= cost_ucr(largest, price)
        left -= cap
    assert left >= 0


@given(st.integers(0, 10**9), st.integers(0, 10**5), st.integers(0, 10**5))
def test_room_is_exact(cap: int, price: int, taken: int) -> None:
    room = market.room_units(cap, price, taken)
    if room and price:
        assert cost_ucr(taken + room, price) <= cap
    if price:
        assert cost_ucr(taken + room + 1, price) > cap or cost_ucr(taken, price) > cap


@pytest.mark.parametrize(
    ("left", "cap"), [(1_000, 500), (400, 200), (300, 150), (200, 100), (199, 199), (100, 100), (25, 25), (24, 0)]
)
def test_the_last_of_a_lanes_budget_is_one_lease(left: int, cap: int) -> None:
    assert market.cap_for(left, 1, 1_000, 1_000_000, 1, smallest_ucr=100) == cap


def test_exact_answers_are_asked_of_whoever_computes_exactly_and_are_checked_whole() -> None:
    exact = msgspec.structs.replace(SERVE, work=msgspec.structs.replace(SERVE.work, arithmetic="exact"))  # pyright: ignore[reportArgumentType]
    assert market.needs_of(exact, BANK, "x86").numerics == EXACT
    assert market.needs_of(SERVE, BANK, "x86").numerics == "x86"
    assert market.check_ppm(exact, 2) == 1_000_000
