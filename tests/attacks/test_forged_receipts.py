"""Receipts that lie, shown to somebody who was not there and knows one thing: the account of a pool's bank. Each test
says what is tried and what it costs; what the forger gains is that a false receipt "holds", and none does.

All keys but the bank's are the forger's where it helps: a requester can seal anything, a provider sign anything, and
accounts cost nothing to invent. What cannot be had is the bank's signature under a lease, a stake or a draw that it
never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from tests.wire import parties
from tests.wire.parties import (
    AUDITORS,
    BANK,
    BYSTANDERS,
    HOUR_MS,
    NOW_MS,
    ORDER,
    PROVIDER,
    REQUESTER,
    RIGHT,
    SEED,
    TASK,
    WRONG,
    Party,
    changed,
    cheats_receipt,
    claim_of,
    deal,
    draw,
    drawn,
    evidence,
    receipt,
    sealed,
    standing,
)
from tests.wire.sampled import sampled_receipt

from fallow.cli.main import main
from fallow.rules import trust
from fallow.rules.steward.proof import Anchor, Proof, prove
from fallow.wire.certificates import certify
from fallow.wire.claims import output_hash, task_id, task_leaf
from fallow.wire.codec import decode, encode
from fallow.wire.documents import ClaimRoot, ReceiptSeal, Settlement, Verdict, Voucher
from fallow.wire.ledger import Evidence
from fallow.wire.receipts import Receipt, SealedReceipt, TaskWork
from fallow.wire.tasks import TaskOutput

replace = msgspec.structs.replace
ANCHOR = Anchor(BANK.account, "the bank that the reader knows")
MALLORY, PUPPETS = Party.named("m"), (Party.named("k"), Party.named("l"))
RIGHT_HASH, WRONG_HASH = output_hash(RIGHT), output_hash(WRONG)


def refused(made: Receipt | bytes, check: str, outcome: str = "fails") -> Proof:
    """The forgery does not hold, and it is `check` that says so."""
    found = prove(made if isinstance(made, bytes) else sealed(made), ANCHOR)
    assert found.outcome == outcome, [row for row in found.checks if not row.ok]
    assert check in [row.name for row in found.checks if not row.ok and row.missing == (outcome == "incomplete")]
    assert "computed again" not in found.proven
    return found


# invented -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def of_another_bank(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A receipt in which all is as it should be, and whose bank is the forger."""
    with monkeypatch.context() as patch:
        patch.setattr(parties, "BANK", MALLORY)
        patch.setattr(parties, "ORDER", replace(ORDER, bank=MALLORY.account))
        return sealed(receipt())


def test_an_invented_bank(of_another_bank: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tried: every key invented, the bank's and the auditors' too, everything signed and fitting. Cost: a second of
    arithmetic. Gained: nothing; it is of another bank than the reader's, and of no bank where the reader knows none."""
    data = of_another_bank
    assert prove(data, Anchor(MALLORY.account, "the forger's own word")).outcome == "holds"
    found = prove(data, ANCHOR)
    assert (found.outcome, found.proven) == ("fails", "nothing.")
    assert prove(data, None).outcome == "not anchored"
    (tmp_path / "a.receipt").write_bytes(data)
    words = ["verify", str(tmp_path / "a.receipt"), "--home", str(tmp_path)]
    assert main(words) == 6
    assert main([*words, "--bank", f"0x{BANK.account.hex()}"]) == 3
    said = capsys.readouterr()
    assert "The receipt holds" not in said.out
    assert f"0x{MALLORY.account.hex()}" in said.out


def test_a_true_receipt_of_another_pool(of_another_bank: bytes) -> None:
    """Tried: work that another pool's bank vouches for, shown as work in this one. Cost: that pool's work. Gained:
    nothing, the receipt names its bank whole."""
    found = refused(of_another_bank, "anchor")
    assert f"0x{MALLORY.account.hex()}" in next(row.detail for row in found.checks if row.name == "anchor")


def test_invented_auditors() -> None:
    """Tried: two sock puppets with leases that only they and the requester signed. Cost: two keys. Gained: nothing; the
    bank never heard of these leases, so its word on them is missing."""
    both = tuple(evidence(puppet, RIGHT_HASH) for puppet in PUPPETS)
    found = refused(changed(receipt(), evidence=both, standings=()), "stake", "incomplete")
    assert f"0x{PUPPETS[0].account.hex()}" in found.lacks[0]


def test_invented_auditors_with_the_word_of_an_invented_bank() -> None:
    """Tried: the same, with stakes that the forger's own bank vouches for. Cost: three keys. Gained: nothing."""
    both = tuple(evidence(puppet, RIGHT_HASH) for puppet in PUPPETS)
    words = tuple(standing(puppet, MALLORY) for puppet in PUPPETS)
    refused(changed(receipt(), evidence=both, standings=words), "stake")


def test_the_word_on_real_auditors_for_invented_ones() -> None:
    """Tried: sock puppets beside the bank's word on the leases of accounts that did not check. Cost: two keys. Gained:
    nothing; a lease's hash is in the bank's word."""
    both = tuple(evidence(puppet, RIGHT_HASH) for puppet in PUPPETS)
    refused(changed(receipt(), evidence=both), "stake")


def test_a_lease_that_the_bank_never_opened() -> None:
    """Tried: a lease that both sides signed and nobody funded. Cost: nothing is locked. Gained: nothing."""
    refused(changed(receipt(), settlement=None), "bank", "incomplete")
    refused(changed(receipt(), settlement=PROVIDER.sign(decode(Settlement, receipt().settlement.body))), "settlement")  # type: ignore[union-attr]


# who checked ----------------------------------------------------------------------------------------------------------


def test_auditors_who_were_not_drawn() -> None:
    """Tried: friends with real leases and stakes are asked instead of those whom the draw names. Cost: two stakes of
    friends. Gained: nothing, while the accounts that were passed over are named; leaving them out is what the receipt
    says it cannot rule out."""
    friends = [one.account for one in AUDITORS[:2]]
    order = trust.auditor_order(SEED, [*friends, *BYSTANDERS])
    ahead = order[: order.index(max(friends, key=order.index))]
    others = tuple(account for account in ahead if account not in friends)[:16]
    assert others
    found = refused(changed(receipt(), undrawn=others), "draw")
    assert "the draw names 0x" in next(row.detail for row in found.checks if row.name == "draw")
    assert "that nobody else could have been drawn" in prove(sealed(receipt()), ANCHOR).unproven


def test_a_draw_that_the_forger_made() -> None:
    """Tried: randomness that names the friends, signed by somebody else than the bank. Cost: trying seeds. Gained:
    nothing."""
    refused(changed(receipt(), draw=draw(receipt().claim, MALLORY)), "draw")
    refused(changed(receipt(), draw=draw(receipt().claim, PROVIDER)), "draw")
    refused(changed(receipt(), draw=None), "draw", "incomplete")


def test_accounts_that_the_bank_did_not_draw_by_stake() -> None:
    """Tried: friends are shown as those whom the bank drew by stake, or as accounts from outside the job, so that they
    come first. Gained: nothing by the first; the bank signs whom it drew. The second is the requester's word, as
    whom it leased from is. Cost: two stakes of friends."""
    friends = tuple(one.account for one in AUDITORS[:2])
    refused(changed(receipt(), drawn=friends), "draw")
    signed = draw(receipt().claim, accounts=friends)
    refused(changed(receipt(), draw=signed), "draw")
    refused(changed(receipt(), draw=signed, drawn=friends[::-1]), "draw")
    said = prove(sealed(changed(receipt(), draw=signed, drawn=friends)), ANCHOR)
    assert said.outcome == "holds"
    assert "2 of them by stake" in said.proven


def test_the_banks_draw_for_another_claim() -> None:
    """Tried: of many claims, the seed of the one whose draw names the friends. Cost: many signed claims. Gained:
    nothing; the draw names the claim that it is for, and a claim about other work is not of this receipt."""
    other = PROVIDER.sign(ClaimRoot(deal(PROVIDER).lease_id, 2, b"r" * 32, 4, 25))
    refused(changed(receipt(), draw=draw(other)), "draw")
    of = evidence(AUDITORS[2], WRONG_HASH)
    elsewhere = replace(of, output=RIGHT_HASH)
    refused(changed(receipt(), draw=draw(of.claim), drawn_for=elsewhere), "draw")
    made = deal(PROVIDER)
    again, index, path = claim_of(made, task_leaf(task_id(TASK), RIGHT_HASH, TASK.units), 26)
    twice = Evidence(PROVIDER.sign(made.lease), again, RIGHT_HASH, TASK.units, index, path)
    refused(changed(receipt(), draw=draw(again), drawn_for=twice), "draw")


def test_links_that_were_chosen() -> None:
    """Tried: an auditor does two links again that the cheat did do, instead of the two that were drawn. Cost: an
    auditor. Gained: nothing; the reader draws the links again from the bank's seed."""
    right = trust.draw_links(SEED, 20, 2)
    refused(sampled_receipt(tuple(link for link in range(20) if link not in right)[:2]), "draw")
    refused(sampled_receipt(right[:1]), "draw")
    refused(sampled_receipt(seed=b"t" * 32), "draw")


def test_a_sample_of_other_work() -> None:
    """Tried: a check of links of another round beside this claim. Cost: an honest check, once. Gained: nothing."""
    refused(changed(receipt(), evidence=(), verdict="cleared", sampled=sampled_receipt().sampled), "auditors")
    one = replace(evidence(AUDITORS[0], RIGHT_HASH), number=0)
    bare = changed(receipt(), evidence=(), verdict="cleared", sampled=one, standings=(standing(AUDITORS[0]),))
    refused(bare, "draw")


def test_fewer_than_the_policy_asks_for() -> None:
    """Tried: one auditor, where the buyer ordered a quorum of four. Cost: one auditor. Gained: nothing."""
    order = replace(ORDER, verify="audit:quorum=4")
    made = receipt(deal(PROVIDER, order))
    refused(made, "draw")


def test_an_auditor_without_a_stake() -> None:
    """Tried: an account with nothing to lose agrees. Cost: one key and a lease of 0. Gained: nothing."""
    made = deal(AUDITORS[0], stake_ucr=0)
    claim, index, path = claim_of(made, task_leaf(task_id(TASK), RIGHT_HASH, TASK.units), TASK.units)
    poor = Evidence(AUDITORS[0].sign(made.lease), claim, RIGHT_HASH, TASK.units, index, path)
    word = BANK.sign(Settlement(made.lease_id, 0, 0, 0, 0))
    of = changed(receipt(), evidence=(poor, receipt().evidence[1]), standings=(word, standing(AUDITORS[1])))
    assert "nothing to lose" in refused(of, "stake", "incomplete").lacks[0]


def test_an_auditor_that_was_caught_lying() -> None:
    """Tried: the word of an account whose stake the bank took. Cost: that stake. Gained: nothing; the receipt is what
    it was, and that word is not counted."""
    words = (standing(AUDITORS[0], slashed_ucr=500), standing(AUDITORS[1]))
    one = prove(sealed(changed(receipt(), standings=words)), ANCHOR)
    assert f"the word of 0x{AUDITORS[0].account.hex()} counts for nothing" in one.proven
    both = prove(sealed(changed(receipt(), standings=tuple(standing(a, slashed_ucr=1) for a in AUDITORS[:2]))), ANCHOR)
    assert "nobody else's word on it is here" in both.proven
    assert "computed again" not in both.proven


@pytest.mark.parametrize("party", [PROVIDER, REQUESTER, AUDITORS[1]], ids=["provider", "requester", "twice"])
def test_a_party_as_its_own_auditor(party: Party) -> None:
    """Tried: the provider, or the requester, or one account twice, confirms the work. Cost: nothing. Gained:
    nothing."""
    both = (evidence(party, RIGHT_HASH), receipt().evidence[1])
    refused(changed(receipt(), evidence=both, **_drawn(party)), "auditors")
    alone = replace(evidence(party, RIGHT_HASH))
    if party is not AUDITORS[1]:
        refused(changed(receipt(), evidence=(), verdict="cleared", sampled=alone), "auditors")


def _drawn(party: Party) -> dict[str, Any]:
    return {"standings": drawn(receipt().claim, (party, AUDITORS[1]))["standings"]}


# what was agreed, done and paid ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shown", ["audit", "audit:probation=1,rate=1,quorum=2", "audit:probation=1,rate=0.1,quorum=2 ", "none"]
)
def test_a_policy_that_is_not_the_signed_one(shown: str) -> None:
    """Tried: a stricter policy is shown than was ordered, to the letter. Cost: nothing, the requester seals what it
    likes. Gained: nothing; the whole text is compared with the signed order."""
    refused(changed(receipt(), policy=shown), "order")


def test_another_output_than_was_claimed() -> None:
    """Tried: a better answer is shown than the one that was computed. Cost: nothing. Gained: nothing."""
    refused(changed(receipt(), work=TaskWork(TASK, WRONG)), "work")
    refused(changed(receipt(), work=TaskWork(TASK, TaskOutput(b"hello!", ()))), "work")


def test_another_price_or_other_units() -> None:
    """Tried: work that looks cheaper, or more, than it was. Cost: nothing. Gained: nothing."""
    made = deal(PROVIDER)
    cheap = replace(made.lease, price_ucr=1)
    refused(changed(receipt(), lease=REQUESTER.sign(cheap), provider_signature=PROVIDER.sign(cheap)), "lease")
    refused(changed(receipt(), work=TaskWork(replace(TASK, units=900), RIGHT)), "work")
    refused(changed(receipt(), units_final=900), "payment")
    refused(changed(receipt(), voucher=REQUESTER.sign(Voucher(made.lease_id, 1))), "payment")
    refused(changed(receipt(), voucher=PROVIDER.sign(Voucher(made.lease_id, 50))), "payment")


def test_a_certificate_that_did_not_hold() -> None:
    """Tried: a node that no longer speaks for the account, or never did. Cost: an old key. Gained: nothing."""
    old = certify(PROVIDER.account_secret, PROVIDER.node, NOW_MS - 3 * HOUR_MS, HOUR_MS)
    refused(changed(receipt(), provider_certificate=old), "certificates")
    late = certify(PROVIDER.account_secret, PROVIDER.node, NOW_MS + HOUR_MS)
    refused(changed(receipt(), provider_certificate=late), "certificates")
    other = certify(PROVIDER.account_secret, MALLORY.node, NOW_MS - HOUR_MS)
    refused(changed(receipt(), provider_certificate=other), "certificates")


def test_a_lie_that_was_slashed_shown_as_good_work() -> None:
    """Tried: a claim that auditors refuted, and for which the bank took the stake, without the evidence, or with it
    turned. Cost: the stake is gone. Gained: nothing; the bank's word on the lease says that it took it, and nobody
    signs for the output."""
    caught = cheats_receipt()
    paid = {"voucher": None, "units_final": 0, "charge": None}
    refused(changed(caught, verdict="accepted", **paid), "auditors")
    refused(changed(caught, verdict="cleared", evidence=(), standings=(), **paid), "payment")
    promise = REQUESTER.sign(Voucher(deal(PROVIDER).lease_id, 20))
    bare = changed(caught, verdict="cleared", evidence=(), standings=(), charge=None, voucher=promise)
    found = refused(bare, "bank", "incomplete")
    assert "of the provider's stake under this lease" in found.lacks[0]


def test_good_work_shown_as_a_lie() -> None:
    """Tried: a requester that does not want to be seen paying frames its provider with two puppets and a charge that it
    never brought to the bank. Cost: two keys. Gained: nothing; the bank took no stake."""
    puppets = tuple(evidence(puppet, WRONG_HASH) for puppet in PUPPETS)
    charge = REQUESTER.sign(Verdict(deal(PROVIDER).lease_id, task_id(TASK), RIGHT_HASH, WRONG_HASH, 500))
    framed = changed(receipt(), verdict="rejected", evidence=puppets, charge=charge, standings=(), draw=None)
    found = refused(framed, "bank", "incomplete")
    assert "found the provider guilty" in found.lacks[0]


# the bytes ------------------------------------------------------------------------------------------------------------


def test_evidence_that_is_cut_or_doubled() -> None:
    """Tried: one answer of two left out, a path cut short, a word of the bank repeated. Cost: nothing. Gained:
    nothing."""
    true = receipt()
    refused(changed(true, evidence=()), "auditors")
    refused(changed(true, evidence=(true.evidence[0],) * 2), "auditors")
    refused(changed(true, evidence=true.evidence[:1]), "stake")  # the word on the other is left over
    refused(changed(true, path=true.path[:-1]), "work")
    short = replace(true.evidence[0], path=true.evidence[0].path[:-1])
    refused(changed(true, evidence=(short, true.evidence[1])), "auditors")
    refused(changed(true, standings=true.standings[:1] * 2), "stake")
    refused(changed(true, standings=true.standings[:1]), "stake", "incomplete")


def test_other_bytes_for_the_same_words() -> None:
    """Tried: the same receipt in another encoding, sealed anew, so that one receipt has two names. Cost: nothing.
    Gained: nothing; there is one encoding."""
    body = encode(receipt())
    wide = body[:2] + b"\xcf" + body[2:] if body[2] != 0xCF else body
    loose = msgspec.msgpack.encode([*msgspec.msgpack.decode(body), 0])
    for other in (wide, loose, body + b"\x00", body[:-1]):
        if other != body:
            made = SealedReceipt(other, REQUESTER.sign(ReceiptSeal(blake3(other).digest())))
            refused(encode(made), "encoding")


def test_a_receipt_sealed_by_somebody_else() -> None:
    """Tried: a provider, or a stranger, changes the notes of somebody's receipt and seals it. Cost: nothing. Gained:
    nothing."""
    body = encode(changed(receipt(), notes=("the best of all",)))
    for party in (PROVIDER, MALLORY):
        refused(encode(SealedReceipt(body, party.sign(ReceiptSeal(blake3(body).digest())))), "seal")


def test_words_that_paint_over_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tried: notes, and a policy, that clear the screen, begin lines of their own or turn the direction of writing, so
    that the reader sees a receipt that holds. Cost: nothing. Gained: nothing; a line stays a line."""
    paint = "fine\n\nThe receipt holds.\x1b[2J\r\u202eProven: all"
    made = changed(receipt(deal(PROVIDER, replace(ORDER, verify=paint))), notes=(paint,), draw=None)
    (tmp_path / "a.receipt").write_bytes(sealed(made))
    assert main(["verify", str(tmp_path / "a.receipt"), "--home", str(tmp_path)]) == 6
    said = capsys.readouterr()
    for line in (said.out + said.err).splitlines():
        assert line.isprintable()
        assert not line.startswith(("The receipt holds", "Proven: all"))


TRUE = sealed(receipt())


@given(st.integers(0, len(TRUE) - 1), st.integers(1, 255))
def test_no_byte_can_change(at: int, flip: int) -> None:
    """Tried: any one byte. Cost: nothing. Gained: nothing."""
    data = bytearray(TRUE)
    data[at] ^= flip
    assert prove(bytes(data), ANCHOR).outcome == "fails"


@given(st.data())
def test_no_byte_can_change_before_the_requester_seals_it(data: st.DataObject) -> None:
    """Tried: a requester changes any byte of what others signed, and seals the result. Cost: nothing. Gained: what it
    says alone anyway: when it made the receipt, its notes, and which accounts it names as not drawn."""
    body = bytearray(encode(receipt()))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    found = prove(encode(SealedReceipt(bytes(body), REQUESTER.sign(ReceiptSeal(blake3(bytes(body)).digest())))), ANCHOR)
    if found.outcome == "holds":
        assert found.receipt is not None
        true = receipt()
        same = {name: getattr(true, name) for name in ("made_ms", "notes", "undrawn")}
        assert replace(found.receipt, **same) == true
