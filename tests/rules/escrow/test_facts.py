"""What is found out about a request before the books are asked. The refusals of each kind are in the playbooks of the
rules (`test_leases.py`, `test_verdicts.py`); here is what they cannot show."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ledger_world import (
    ALICE,
    BANK,
    BOB,
    PROVIDER,
    REQUESTER,
    RIGHT,
    WRONG,
    evidence,
    lane_task,
    lease_id,
    lease_of,
    setting,
    slash_request,
    task,
    voucher,
    word,
)

from fallow.rules.escrow import UNREAD, Refused, examine, token_hash
from fallow.rules.escrow.facts import OrderFacts, VerdictFacts, VoucherFacts
from fallow.wire.codec import decode, encode
from fallow.wire.documents import ClaimRoot, Signed
from fallow.wire.eip712 import hash_document
from fallow.wire.ledger import (
    Appeal,
    DrawAuditors,
    Evidence,
    LedgerRefused,
    LedgerRequest,
    OpenAccount,
    OpenEscrow,
    Redeem,
    Refusal,
    Rule,
    Slash,
    SlashEquivocation,
    Transfer,
)
from fallow.wire.messages import Ok

junk = st.builds(Signed, st.binary(max_size=80), st.binary(min_size=65, max_size=65))


def test_the_hash_of_an_order_covers_all_that_it_says() -> None:
    orders = [
        Transfer(word(1), ALICE.account, 5),
        Transfer(word(1), BOB.account, 5),
        Transfer(word(1), ALICE.account, 6),
    ]
    facts = [examine(order, BANK.account) for order in orders]
    assert all(isinstance(fact, OrderFacts) and fact.operation == word(1) for fact in facts)
    assert len(set(facts)) == 3


def test_a_voucher_tells_who_promised_what() -> None:
    lease = lease_of()
    facts = examine(Redeem(voucher(lease, 7)), BANK.account)
    assert isinstance(facts, VoucherFacts)
    assert (facts.lease, facts.cumulative_ucr, facts.signer) == (lease_id(lease), 7, REQUESTER.account)


@pytest.mark.parametrize("lane", [False, True])
def test_evidence_names_the_witnesses(lane: bool) -> None:
    lease, by_alice, by_bob = lease_of(), lease_of(provider=ALICE), lease_of(provider=BOB)
    spec, opened = (lane_task(), setting()) if lane else (task(), None)
    others = [evidence(by, who, spec, RIGHT, lane=opened) for by, who in ((by_alice, ALICE), (by_bob, BOB))]
    accused = evidence(lease, PROVIDER, spec, WRONG, lane=opened)
    facts = examine(slash_request(accused, others, lease, spec, lane=opened), BANK.account)
    assert isinstance(facts, VerdictFacts)
    assert facts.claim == hash_document(decode(ClaimRoot, accused.claim.body), BANK.account)
    assert facts.worth_ucr == 3
    assert [witness.account for witness in facts.witnesses] == [ALICE.account, BOB.account]
    assert (facts.accused, facts.signer, facts.slash_ucr) == (PROVIDER.account, REQUESTER.account, 80)


@given(documents=st.lists(junk, min_size=4, max_size=4))
def test_junk_is_refused_and_never_raises(documents: list[Signed]) -> None:
    one, two, three, four = documents
    proof = Evidence(one, two, word(1), 1, 0, ())
    requests: list[Any] = [
        OpenAccount(word(1), one, "token"),
        OpenEscrow(one, two, three, four),
        Redeem(one),
        DrawAuditors(one),
        Slash(one, task(), proof, (proof, proof)),
        SlashEquivocation(word(1), one, two),
        Appeal(b"", word(1)),
        Rule(word(1), b"", upheld=True),
    ]
    for request in requests:
        facts = examine(request, BANK.account)
        assert isinstance(facts, Refused)
        assert facts.reason in (Refusal.BAD_DOCUMENT, Refusal.WRONG_SIGNER)
        answer = LedgerRefused(facts.operation, facts.reason, facts.detail)
        assert decode(LedgerRefused, encode(answer)) == answer


def test_what_could_not_be_read_has_an_operation_that_can_be_sent() -> None:
    assert len(UNREAD) == 32


def test_every_request_is_known_and_nothing_else() -> None:
    assert len(get_args(LedgerRequest)) == 14
    with pytest.raises(TypeError):
        examine(Ok(), BANK.account)


def test_tokens_are_kept_as_hashes() -> None:
    assert len(token_hash("x")) == 32
    assert token_hash("x") != token_hash("y")
