"""What receipts prove that are what they seem to be. Those that lie are in `tests/attacks/test_forged_receipts.py`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.wire.parties import (
    AUDITORS,
    BANK,
    BYSTANDERS,
    ORDER,
    PROVIDER,
    REQUESTER,
    SEED,
    changed,
    cheats_receipt,
    deal,
    draw,
    evidence,
    lane_receipt,
    receipt,
    sealed,
)
from tests.wire.sampled import sampled_receipt

from fallow.rules import trust
from fallow.rules.steward.proof import ANCHORED, Anchor, prove
from fallow.wire.receipt_checks import CHECKS
from fallow.wire.receipts import FormerReceipt, Receipt

ANCHOR = Anchor(BANK.account, "the bank that the reader knows")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (receipt(), "computed again by 2 other accounts with the same result, drawn by the bank's randomness among"),
        (cheats_receipt(), "2 others gave another output, and the bank took a stake for it"),
        (lane_receipt(), "nobody else's word on it is here"),
        (sampled_receipt(), "2 of its 20 links were done again by another account with the same result, drawn"),
    ],
    ids=["checked", "cheat", "lane", "sampled"],
)
def test_what_is_true_holds_against_its_bank_alone(made: Receipt, words: str) -> None:
    found = prove(sealed(made), ANCHOR)
    assert (found.outcome, found.lacks) == ("holds", ())
    assert words in found.proven
    for party in (BANK, REQUESTER, PROVIDER, *(AUDITORS[:2] if made.evidence else ())):
        assert f"0x{party.account.hex()}" in found.by  # whole, so that it can be compared
    assert found.unproven
    without = prove(sealed(made), None)
    assert without.outcome == "not anchored"
    assert "Anybody can make such keys" in without.proven


def test_one_of_the_form_before_opens_and_says_what_it_lacks() -> None:
    now = receipt()
    fields = FormerReceipt.__struct_fields__
    data = sealed(FormerReceipt(*(getattr(now, name) for name in fields)))  # type: ignore[arg-type]
    found = prove(data, ANCHOR)
    assert found.outcome == "incomplete"
    assert [name for name in ("bank", "stake", "draw") if any(row.name == name and row.missing for row in found.checks)]
    assert len(found.lacks) == 2
    assert f"0x{AUDITORS[0].account.hex()}, who checked, had a lease and a stake" in found.lacks[0]
    assert "the bank's word on the draw" in found.lacks[1]


@pytest.mark.parametrize("anchor", [ANCHOR, None])
@given(st.binary(max_size=300))
def test_noise_fails_and_never_raises(anchor: Anchor | None, data: bytes) -> None:
    found = prove(data, anchor)
    assert (found.outcome, found.receipt, found.accounts) == ("fails", None, None)


def test_all_that_is_looked_at_has_a_name() -> None:
    assert tuple(check.name for check in prove(sealed(receipt()), ANCHOR).checks) == (*CHECKS, *ANCHORED)


def test_auditors_who_outvoted_the_one_that_was_drawn_for() -> None:
    """The claim that was checked was a cheat's; the receipts of those who found out show its claim, too."""
    wrong = evidence(AUDITORS[2], b"w" * 32)
    drawn = [PROVIDER.account, *(one.account for one in AUDITORS[:2])]
    made = changed(
        receipt(), draw=draw(wrong.claim), drawn_for=wrong, undrawn=trust.after(SEED, drawn, BYSTANDERS)[:16]
    )  # fmt: skip
    assert prove(sealed(made), ANCHOR).outcome == "holds"


def test_a_check_that_is_not_known_here_is_not_vouched_for() -> None:
    made = receipt(deal(PROVIDER, replace(ORDER, verify="zk:fast")))
    found = prove(sealed(made), ANCHOR)
    assert found.outcome == "incomplete"
    assert "unknown way to verify" in found.lacks[0]
