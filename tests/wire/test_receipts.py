from __future__ import annotations

import msgspec
import pytest
from blake3 import blake3
from tests.wire.parties import (
    BANK,
    ORDER,
    REQUESTER,
    RIGHT,
    TASK,
    changed,
    cheats_receipt,
    lane_receipt,
    receipt,
    sealed,
)

from fallow.errors import FallowError
from fallow.wire.codec import decode, encode
from fallow.wire.documents import ReceiptSeal, Signed
from fallow.wire.eip712 import recover
from fallow.wire.receipt_checks import intact, verify
from fallow.wire.receipts import (
    MAX_RECEIPT_BYTES,
    LaneWork,
    Receipt,
    SealedReceipt,
    TaskWork,
    read_receipt,
    receipt_id,
    seal,
    work_leaf,
    work_output,
    work_task,
    work_units,
)
from fallow.wire.tasks import LaneSetting, TaskOutput, TaskSpec


@pytest.mark.parametrize("made", [receipt(), cheats_receipt(), lane_receipt()], ids=["paid", "cheat", "lane"])
def test_what_is_sealed_is_read_again(made: Receipt) -> None:
    assert read_receipt(sealed(made)) == made


def test_the_requester_seals_the_bytes_of_the_body() -> None:
    file = decode(SealedReceipt, sealed(receipt()), MAX_RECEIPT_BYTES)
    document, signer = recover(file.seal, BANK.account)
    assert signer == REQUESTER.account
    assert document == ReceiptSeal(blake3(file.body).digest())


def test_equal_receipts_are_equal_files_with_equal_ids() -> None:
    assert receipt_id(sealed(receipt())) == receipt_id(sealed(receipt()))
    assert receipt_id(sealed(receipt())) != receipt_id(sealed(changed(receipt(), notes=())))


def test_only_accepted_and_cleared_work_is_owed() -> None:
    owed = {
        verdict: changed(receipt(), verdict=verdict).owed
        for verdict in ("accepted", "rejected", "cleared", "voided", "provisional")
    }
    assert owed == {"accepted": True, "rejected": False, "cleared": True, "voided": False, "provisional": False}


def test_what_cannot_be_read_is_no_receipt() -> None:
    for data in (b"", b"\x00" * 100, sealed(receipt())[:-1], encode(receipt()), b"x" * (MAX_RECEIPT_BYTES + 1)):
        with pytest.raises(FallowError) as refused:
            read_receipt(data)
        assert refused.value.code == "E1501"


def test_nothing_else_is_sealed() -> None:
    for made in (
        changed(receipt(), lease=Signed(b"no lease", bytes(65))),
        changed(receipt(), verdict="fine"),
        changed(receipt(), path=(bytes(32),) * 33),
        changed(receipt(), work=LaneWork(1, bytes(1 << 20), 0, bytes((1 << 20) + 1), 1)),
    ):
        with pytest.raises(ValueError, match="not a receipt"):
            seal(made, REQUESTER.account_secret)


def test_a_receipt_that_would_be_too_large_is_not_made() -> None:
    """Every part is within its own bound, and all of them together are not."""
    big = bytes(1 << 20)
    work = LaneWork(1, big, 0, big, 1, TaskSpec("echo", big, (), 0, 1, 1, 1))
    notes = ("n" * 4000,) * 16
    made = changed(receipt(), work=work, notes=notes)
    assert len(seal(made, REQUESTER.account_secret)) < MAX_RECEIPT_BYTES
    fat = changed(made, notes=("\N{GRINNING FACE}" * 4000,) * 16)
    parts = tuple(msgspec.structs.replace(TASK.inputs[0], name="\N{GRINNING FACE}" * 119) for _ in range(2500))
    fat = changed(fat, work=msgspec.structs.replace(work, checked_as=TaskSpec("echo", big, parts, 0, 1, 1, 1)))
    with pytest.raises(ValueError, match="receipt"):
        seal(fat, REQUESTER.account_secret)


def test_the_leaf_of_a_receipt_depends_on_all_of_the_work() -> None:
    leaves = {work_leaf(receipt()), work_leaf(cheats_receipt()), work_leaf(lane_receipt())}
    lane = lane_receipt().work
    assert isinstance(lane, LaneWork)
    for change in ({"number": 13}, {"params": b""}, {"seed": 8}, {"value": b""}, {"units": 4}):
        leaves.add(work_leaf(changed(lane_receipt(), work=msgspec.structs.replace(lane, **change))))
    assert len(leaves) == 8


def test_auditors_of_a_lane_task_compare_the_same_output() -> None:
    lane = lane_receipt()
    as_task = changed(receipt(), work=TaskWork(TASK, TaskOutput(b"answer", ())))
    assert work_output(as_task) == work_output(lane)
    assert (work_units(lane), work_units(receipt())) == (3, TASK.units)
    assert work_task(lane, "echo").params == TASK.params
    assert work_task(receipt(), "whatever") == TASK


def test_the_example_is_what_it_says() -> None:
    """The other tests change this example; it must hold what they think it does."""
    made = receipt()
    assert made.job == ORDER.job
    assert made.work == TaskWork(TASK, RIGHT)


def test_a_lanes_receipt_names_what_the_lane_was_opened_with() -> None:
    setting = LaneSetting("echo", TASK.inputs, 512)
    made = lane_receipt(setting)
    assert read_receipt(sealed(made)) == made
    assert intact(verify(sealed(made)))
    assert work_leaf(made) != work_leaf(lane_receipt())
    assert work_task(made, "echo").inputs == TASK.inputs
    for other in (LaneSetting("echo"), LaneSetting("spin", TASK.inputs, 512), None):
        lie = changed(made, work=msgspec.structs.replace(made.work, setting=other))
        assert not intact(verify(sealed(lie)))
