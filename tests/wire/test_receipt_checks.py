from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.parties import (
    AUDITORS,
    BANK,
    HOUR_MS,
    NOW_MS,
    ORDER,
    PROVIDER,
    REQUESTER,
    RIGHT,
    TASK,
    WRONG,
    Party,
    changed,
    cheats_receipt,
    claim_of,
    deal,
    evidence,
    lane_receipt,
    receipt,
    sealed,
)

from fallow.wire.certificates import certify
from fallow.wire.claims import MerkleTree, output_hash, task_id, task_leaf, value_hash
from fallow.wire.codec import encode
from fallow.wire.documents import ClaimRoot, ReceiptSeal, Settlement, Verdict, Voucher
from fallow.wire.eip712 import sign
from fallow.wire.receipt_checks import CHECKS, intact, verify
from fallow.wire.receipts import LaneWork, Receipt, SealedReceipt, TaskWork
from fallow.wire.tasks import TaskSpec

replace = msgspec.structs.replace
DEAL = deal(PROVIDER)
RIGHT_HASH, WRONG_HASH = output_hash(RIGHT), output_hash(WRONG)


def failing(made: Receipt) -> set[str]:
    """The names of the checks that fail on this receipt, properly sealed."""
    return {check.name for check in verify(sealed(made)) if not check.ok}


@pytest.mark.parametrize("made", [receipt(), cheats_receipt(), lane_receipt()], ids=["paid", "cheat", "lane"])
def test_a_true_receipt_holds(made: Receipt) -> None:
    checks = verify(sealed(made))
    assert [check.name for check in checks if not check.ok] == []
    assert tuple(check.name for check in checks) == CHECKS
    assert intact(checks)


def test_a_cheats_receipt_says_what_happened() -> None:
    details = {check.name: check.detail for check in verify(sealed(cheats_receipt()))}
    assert "0.00 cr paid" in details["settlement"]
    assert "0.0005 cr slashed" in details["settlement"]
    assert details["auditors"].startswith("2 agree on another output")


@pytest.mark.parametrize("made", [cheats_receipt(), lane_receipt()], ids=["cheat", "lane"])
def test_every_byte_matters(made: Receipt) -> None:
    whole = sealed(made)
    for at in range(len(whole)):
        touched = whole[:at] + bytes((whole[at] ^ (1 << at % 8),)) + whole[at + 1 :]
        assert not intact(verify(touched)), at


@settings(max_examples=60)
@given(st.data())
def test_no_byte_of_a_large_receipt_can_change(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(LARGE) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != LARGE[at]))
    assert not intact(verify(LARGE[:at] + bytes((value,)) + LARGE[at + 1 :]))


def large_receipt() -> bytes:
    work = TaskWork(replace(TASK, params=bytes(range(256)) * 2000), RIGHT)
    claim, index, path = claim_of(DEAL, task_leaf(task_id(work.task), RIGHT_HASH, TASK.units), 25)
    made = changed(receipt(), work=work, claim=claim, index=index, path=path, evidence=(), verdict="cleared")
    assert not failing(made)
    return sealed(made)


LARGE = large_receipt()


@given(st.binary(max_size=400))
def test_noise_fails_and_never_raises(data: bytes) -> None:
    checks = verify(data)
    assert not intact(checks)
    assert tuple(check.name for check in checks) == CHECKS


@given(st.integers(0, 2000), st.binary(max_size=8), st.integers(0, 8))
def test_cut_and_stretched_receipts_fail_and_never_raise(at: int, inserted: bytes, dropped: int) -> None:
    whole = sealed(lane_receipt())
    touched = whole[:at] + inserted + whole[at + dropped :]
    assert intact(verify(touched)) == (touched == whole)


@given(st.data())
def test_a_body_that_was_changed_before_sealing_is_found_out(data: st.DataObject) -> None:
    """A requester cannot put words into anybody's mouth: it can seal anything, but sign for itself only."""
    body = bytearray(encode(receipt()))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    unsigned = changed_fields(bytes(body))
    made = SealedReceipt(bytes(body), REQUESTER.sign(ReceiptSeal(blake3(bytes(body)).digest())))
    assert unsigned or not intact(verify(encode(made)))


def changed_fields(body: bytes) -> bool:
    """Whether only what the requester alone says was changed: when it was made, its notes; or the bank's word, which
    is looked at where a bank is known."""
    try:
        found = msgspec.msgpack.decode(body, type=Receipt)
    except ValueError:
        return False
    true = receipt()
    same = {name: getattr(true, name) for name in ("made_ms", "notes", "standings", "draw", "undrawn")}
    return replace(found, **same) == true


CHEAT = Party.named("c")
OTHER_DEAL = deal(PROVIDER, replace(ORDER, nonce=b"m" * 32))
PAID = 50

LIES: dict[str, tuple[Callable[[], Receipt], set[str]]] = {
    "another job": (lambda: changed(receipt(), job=b"k" * 32), {"order"}),
    "an order that the requester did not sign": (
        lambda: changed(receipt(), order=CHEAT.sign(ORDER)),
        {"order", "quote", "lease"},
    ),
    "another order": (
        lambda: changed(receipt(), order=REQUESTER.sign(replace(ORDER, nonce=b"m" * 32))),
        {"quote", "lease"},
    ),
    "another policy": (lambda: changed(receipt(), policy="none"), {"order"}),
    "a quote of somebody else": (lambda: changed(receipt(), quote=CHEAT.sign(DEAL.quote)), {"quote", "lease"}),
    "a cheaper quote than the lease says": (
        lambda: changed(receipt(), quote=PROVIDER.sign(replace(DEAL.quote, price_ucr=1))),
        {"lease"},
    ),
    "a lease that the provider did not sign": (
        lambda: changed(receipt(), provider_signature=CHEAT.sign(DEAL.lease)),
        {"lease"},
    ),
    "a provider that signed another lease": (
        lambda: changed(receipt(), provider_signature=PROVIDER.sign(replace(DEAL.lease, cap_ucr=1_999))),
        {"lease"},
    ),
    "certificates swapped": (
        lambda: changed(receipt(), requester_certificate=PROVIDER.certificate()),
        {"certificates"},
    ),
    "a certificate that had expired": (
        lambda: changed(
            receipt(),
            provider_certificate=certify(PROVIDER.account_secret, PROVIDER.node, NOW_MS - 2 * HOUR_MS, HOUR_MS),
        ),
        {"certificates"},
    ),
    "a certificate from the future": (
        lambda: changed(
            receipt(), provider_certificate=certify(PROVIDER.account_secret, PROVIDER.node, NOW_MS + HOUR_MS)
        ),
        {"certificates"},
    ),
    "a certificate for another node": (
        lambda: changed(receipt(), provider_certificate=certify(PROVIDER.account_secret, CHEAT.node, NOW_MS - HOUR_MS)),
        {"certificates"},
    ),
    "a claim under another lease": (
        lambda: changed(receipt(), claim=receipt(OTHER_DEAL).claim),
        {"claim", "work"},
    ),
    "a claim of somebody else": (
        lambda: changed(receipt(), claim=CHEAT.sign(ClaimRoot(DEAL.lease_id, 1, b"r" * 32, 4, 25))),
        {"claim", "work"},
    ),
    "another output than claimed": (
        lambda: changed(receipt(), work=TaskWork(TASK, WRONG)),
        {"work", "auditors"},
    ),
    "another task than claimed": (
        lambda: changed(receipt(), work=TaskWork(replace(TASK, seed=8), RIGHT)),
        {"work", "auditors"},
    ),
    "another place in the tree": (lambda: changed(receipt(), index=2), {"work"}),
    "a place outside the tree": (lambda: changed(receipt(), index=4), {"work"}),
    "a path cut short": (lambda: changed(receipt(), path=receipt().path[:-1]), {"work"}),
    "a path made longer": (lambda: changed(receipt(), path=(*receipt().path, bytes(32))), {"work"}),
    "accepted by nobody": (lambda: changed(receipt(), evidence=()), {"auditors"}),
    "one auditor counted twice": (
        lambda: changed(receipt(), evidence=(evidence(AUDITORS[0], RIGHT_HASH),) * 2),
        {"auditors"},
    ),
    "the provider as its own auditor": (
        lambda: changed(receipt(), evidence=(evidence(PROVIDER, RIGHT_HASH),)),
        {"auditors"},
    ),
    "the requester as auditor": (
        lambda: changed(receipt(), evidence=(evidence(REQUESTER, RIGHT_HASH),)),
        {"auditors"},
    ),
    "auditors who disagree": (
        lambda: changed(receipt(), evidence=(evidence(AUDITORS[0], RIGHT_HASH), evidence(AUDITORS[1], WRONG_HASH))),
        {"auditors"},
    ),
    "auditors who found something else": (
        lambda: changed(receipt(), evidence=(evidence(AUDITORS[0], WRONG_HASH),)),
        {"auditors"},
    ),
    "an auditor whose claim was invented": (
        lambda: changed(receipt(), evidence=(replace(evidence(AUDITORS[0], WRONG_HASH), output=RIGHT_HASH),)),
        {"auditors"},
    ),
    "an auditor whose claim another one signed": (
        lambda: changed(
            receipt(),
            evidence=(replace(evidence(AUDITORS[0], RIGHT_HASH), claim=evidence(AUDITORS[1], RIGHT_HASH).claim),),
        ),
        {"auditors"},
    ),
    "an auditor's lease that the auditor did not sign": (
        lambda: changed(
            receipt(),
            evidence=(replace(evidence(AUDITORS[0], RIGHT_HASH), lease=REQUESTER.sign(deal(AUDITORS[0]).lease)),),
        ),
        {"auditors"},
    ),
    "a quote in place of an auditor's lease": (
        lambda: changed(receipt(), evidence=(replace(evidence(AUDITORS[0], RIGHT_HASH), lease=receipt().quote),)),
        {"auditors"},
    ),
    "rejected on the word of one": (
        lambda: changed(cheats_receipt(), evidence=cheats_receipt().evidence[:1]),
        {"auditors"},
    ),
    "rejected although they agree": (
        lambda: changed(cheats_receipt(), work=receipt().work, claim=receipt().claim),
        {"auditors", "charge"},
    ),
    "cleared although somebody found something else": (
        lambda: changed(receipt(), verdict="cleared", evidence=(evidence(AUDITORS[0], WRONG_HASH),)),
        {"auditors"},
    ),
    "final work left unpaid": (
        lambda: changed(receipt(), voucher=None, units_final=0, settlement=None),
        {"payment"},
    ),
    "a voucher of somebody else": (
        lambda: changed(receipt(), voucher=CHEAT.sign(Voucher(DEAL.lease_id, PAID))),
        {"payment", "settlement"},
    ),
    "a voucher for another lease": (
        lambda: changed(receipt(), voucher=REQUESTER.sign(Voucher(OTHER_DEAL.lease_id, PAID))),
        {"payment", "settlement"},
    ),
    "a voucher above the cap": (
        lambda: changed(receipt(), voucher=REQUESTER.sign(Voucher(DEAL.lease_id, 2_001)), units_final=0),
        {"payment"},
    ),
    "a voucher that does not follow from the units": (
        lambda: changed(receipt(), voucher=REQUESTER.sign(Voucher(DEAL.lease_id, PAID + 1))),
        {"payment"},
    ),
    "fewer final units than the work has": (
        lambda: changed(receipt(), voucher=REQUESTER.sign(Voucher(DEAL.lease_id, 18)), units_final=9, settlement=None),
        {"payment"},
    ),
    "a charge for accepted work": (
        lambda: changed(receipt(), charge=cheats_receipt().charge),
        {"charge"},
    ),
    "a charge by somebody else": (
        lambda: changed(
            cheats_receipt(),
            charge=CHEAT.sign(Verdict(DEAL.lease_id, task_id(TASK), WRONG_HASH, RIGHT_HASH, 500)),
        ),
        {"charge"},
    ),
    "a charge above the stake": (
        lambda: changed(
            cheats_receipt(),
            charge=REQUESTER.sign(Verdict(DEAL.lease_id, task_id(TASK), WRONG_HASH, RIGHT_HASH, 501)),
        ),
        {"charge"},
    ),
    "a charge about another task": (
        lambda: changed(
            cheats_receipt(), charge=REQUESTER.sign(Verdict(DEAL.lease_id, b"t" * 32, WRONG_HASH, RIGHT_HASH, 500))
        ),
        {"charge"},
    ),
    "a charge that names another answer": (
        lambda: changed(
            cheats_receipt(),
            charge=REQUESTER.sign(Verdict(DEAL.lease_id, task_id(TASK), WRONG_HASH, b"a" * 32, 500)),
        ),
        {"charge"},
    ),
    "a settlement that the bank did not sign": (
        lambda: changed(receipt(), settlement=CHEAT.sign(Settlement(DEAL.lease_id, PAID, 1_950, 0, NOW_MS))),
        {"settlement"},
    ),
    "a settlement of another lease": (
        lambda: changed(receipt(), settlement=BANK.sign(Settlement(OTHER_DEAL.lease_id, PAID, 1_950, 0, NOW_MS))),
        {"settlement"},
    ),
    "more paid than promised": (
        lambda: changed(receipt(), settlement=BANK.sign(Settlement(DEAL.lease_id, PAID + 1, 1_949, 0, NOW_MS))),
        {"settlement"},
    ),
    "money lost on the way": (
        lambda: changed(receipt(), settlement=BANK.sign(Settlement(DEAL.lease_id, PAID, 1_949, 0, NOW_MS))),
        {"settlement"},
    ),
    "more slashed than staked": (
        lambda: changed(cheats_receipt(), settlement=BANK.sign(Settlement(DEAL.lease_id, 0, 2_000, 501, NOW_MS))),
        {"settlement"},
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_requester_that_seals_a_lie_is_found_out(lie: str) -> None:
    make, expected = LIES[lie]
    assert failing(make()) == expected


TERMS: dict[str, dict[str, Any]] = {
    "a higher price": {"price_ucr": 2_001},
    "a smaller stake": {"stake_ucr": 499},
    "another kind of work": {"kind": "train"},
    "another node": {"provider_node": CHEAT.node},
    "another order": {"order": b"o" * 32},
    "another quote": {"quote": b"q" * 32},
    "an end after the order's": {"ends_ms": ORDER.ends_ms + 1},
    "an end before the start": {"ends_ms": NOW_MS},
}


@pytest.mark.parametrize("terms", TERMS)
def test_a_lease_that_does_not_follow_from_order_and_quote_fails_though_both_signed_it(terms: str) -> None:
    made = receipt(deal(PROVIDER, **TERMS[terms]))
    assert "lease" in failing(made)


@pytest.mark.parametrize(
    "order", [replace(ORDER, max_price_ucr=1_999), replace(ORDER, min_stake_ucr=501)], ids=["price", "stake"]
)
def test_a_quote_outside_the_order_fails(order: Any) -> None:
    assert failing(receipt(deal(PROVIDER, order))) == {"quote"}


def test_a_lease_with_oneself_fails() -> None:
    assert "lease" in failing(receipt(deal(REQUESTER)))


def test_a_task_worth_more_than_its_claim_fails() -> None:
    claim, index, path = claim_of(DEAL, task_leaf(task_id(TASK), RIGHT_HASH, TASK.units), TASK.units - 1)
    assert failing(changed(receipt(), claim=claim, index=index, path=path)) == {"work"}


def test_a_tree_of_a_false_size_fails() -> None:
    """The path would fit a tree of three leaves too, if the root did not hold the count."""
    leaf = task_leaf(task_id(TASK), RIGHT_HASH, TASK.units)
    tree = MerkleTree([bytes(32), leaf])
    claim = PROVIDER.sign(ClaimRoot(DEAL.lease_id, 1, tree.root, 3, 25))
    assert "work" in failing(changed(receipt(), claim=claim, index=1, path=tree.path(1)))


def test_a_seal_by_the_provider_or_over_another_body_fails() -> None:
    body = encode(receipt())
    for seal in (
        PROVIDER.sign(ReceiptSeal(blake3(body).digest())),
        REQUESTER.sign(ReceiptSeal(blake3(body + b"x").digest())),
        REQUESTER.sign(Voucher(DEAL.lease_id, PAID)),
        sign(ReceiptSeal(blake3(body).digest()), REQUESTER.account_secret, bytes(20)),
    ):
        checks = verify(encode(SealedReceipt(body, seal)))
        assert [check.name for check in checks if not check.ok] == ["seal"]


def test_lane_work_may_be_checked_on_lanes_or_as_a_task() -> None:
    value = RIGHT_HASH  # what the lane's answer would hash to, had it been RIGHT
    lane = lane_receipt().work
    assert isinstance(lane, LaneWork)
    agreed = lane_answer(lane)
    on_lanes = tuple(evidence(auditor, agreed, number=5, units=lane.units) for auditor in AUDITORS[:2])
    assert failing(changed(lane_receipt(), verdict="accepted", evidence=on_lanes)) == set()
    as_task = tuple(evidence(auditor, agreed) for auditor in AUDITORS[:2])
    work = replace(lane, checked_as=TASK)
    assert failing(changed(lane_receipt(), work=work, verdict="accepted", evidence=as_task)) == set()
    other = tuple(evidence(auditor, value, number=5, units=lane.units) for auditor in AUDITORS[:2])
    assert failing(changed(lane_receipt(), verdict="accepted", evidence=other)) == {"auditors"}


def test_a_lane_answer_with_a_false_meter_is_not_the_same_answer() -> None:
    lane = lane_receipt().work
    assert isinstance(lane, LaneWork)
    lower = tuple(evidence(auditor, lane_answer(lane), number=5, units=lane.units - 1) for auditor in AUDITORS[:2])
    assert failing(changed(lane_receipt(), verdict="accepted", evidence=lower)) == {"auditors"}


@pytest.mark.parametrize("change", [{"kind": "train"}, {"params": b"other"}, {"seed": 8}])
def test_lane_work_checked_as_something_else_fails(change: dict[str, Any]) -> None:
    lane = lane_receipt().work
    assert isinstance(lane, LaneWork)
    task: TaskSpec = replace(TASK, **change)
    assert "work" in failing(changed(lane_receipt(), work=replace(lane, checked_as=task)))


def lane_answer(lane: LaneWork) -> bytes:
    return value_hash(lane.value)


def test_voided_work_and_an_open_settlement_hold() -> None:
    settlement = BANK.sign(Settlement(DEAL.lease_id, 0, 0, 500, 0))
    made = changed(receipt(), verdict="voided", evidence=(), voucher=None, units_final=0, settlement=settlement)
    assert failing(made) == set()


def test_provisional_work_owes_nothing_yet() -> None:
    made = changed(lane_receipt(), verdict="provisional", units_final=0, voucher=None)
    assert failing(made) == set()
    assert not made.owed
    disputed = changed(receipt(), verdict="provisional", evidence=(evidence(AUDITORS[0], WRONG_HASH),))
    assert failing(disputed) == {"auditors"}


def test_final_units_need_not_be_known() -> None:
    assert failing(changed(receipt(), units_final=0)) == set()


def test_a_bigger_claim_than_the_cap_is_paid_up_to_the_cap() -> None:
    cap = DEAL.lease.cap_ucr
    voucher = REQUESTER.sign(Voucher(DEAL.lease_id, cap))
    settlement = BANK.sign(Settlement(DEAL.lease_id, cap, 0, 0, NOW_MS))
    assert failing(changed(receipt(), voucher=voucher, units_final=5_000, settlement=settlement)) == set()


def test_the_checks_that_say_nothing_are_not_ok() -> None:
    assert not intact([])
    assert not intact(verify(sealed(receipt()))[:-1])
