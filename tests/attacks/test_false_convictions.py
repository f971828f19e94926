"""Attacks on the stake of honest providers: evidence that convicts nobody. Each was, or could have been, made by
whoever hired a provider, with accounts of its own. In the end the books are looked at: what the provider lost
(nothing), what the accuser and its friends gained (nothing), and what it cost them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from tests.courtroom import (
    BY_ALICE,
    BY_BOB,
    ID,
    LEASE,
    TASK,
    WITNESSES,
    accused,
    charge,
    courtroom,
    draw,
    witness,
    witnesses,
)
from tests.ledger_world import (
    ALICE,
    BANK,
    BOB,
    HOUR,
    NOW,
    ORDERS,
    PROVIDER,
    REQUESTER,
    RIGHT,
    TERMS,
    WRONG,
    Person,
    Pool,
    claim,
    evidence,
    lane_task,
    lease_id,
    lease_of,
    open_request,
    ordered,
    run,
    setting,
    slash_request,
    stocked_pool,
    task,
    voucher,
    word,
)

from fallow.wire.claims import MerkleTree, lane_leaf, params_hash, task_id
from fallow.wire.documents import ClaimRoot
from fallow.wire.ledger import (
    Appeal,
    CloseEscrow,
    Deposit,
    DrawAuditors,
    Evidence,
    Redeem,
    Refusal,
    Rule,
    Slash,
    SlashEquivocation,
    Transfer,
    Unbond,
)

PUPPETS = tuple(Person(f"puppet {n}") for n in range(12))
LOW = msgspec.structs.replace(TERMS, min_witness_stake_ucr=1)
GANG = (REQUESTER, ALICE, BOB, *PUPPETS)


def wealth(pool: Pool, *people: Person) -> int:
    """Everything they own, wherever it lies."""
    seen = [pool.balance(one) for one in people]
    return sum(one.available_ucr + one.escrowed_ucr + one.staked_ucr for one in seen)


class Before(NamedTuple):
    pool: Pool
    accused_ucr: int
    gang_ucr: int


def before(pool: Pool) -> Before:
    return Before(pool, wealth(pool, PROVIDER), wealth(pool, *GANG))


def gains_nothing(start: Before) -> None:
    """Even once all windows have passed and every lease is settled."""
    pool = start.pool
    pool.now_ms += TERMS.answer_ms + TERMS.ruling_ms + TERMS.unbonding_ms
    pool.ask(CloseEscrow(ID), REQUESTER)
    assert wealth(pool, PROVIDER) == start.accused_ucr
    assert pool.balance(PROVIDER).slashed_ucr == 0
    assert wealth(pool, *GANG) <= start.gang_ucr
    books = run(pool.home.books())
    assert books.minted_ucr == books.sum_ucr


def puppets(pool: Pool, count: int, stake_ucr: int = 1, lease_stake_ucr: int = 1) -> list[Any]:
    """Accounts of the requester's, paid and hired by it: -> their leases."""
    leases: list[Any] = []
    for puppet in PUPPETS[:count]:
        pool.join(puppet)
        pool.does(Transfer(pool.operation(), puppet.account, stake_ucr), REQUESTER)
        pool.does(Deposit(pool.operation(), stake_ucr), puppet)
        leases.append(lease_of(provider=puppet, cap_ucr=1, stake_ucr=lease_stake_ucr))
        pool.does(open_request(leases[-1], provider=puppet), REQUESTER)
    return leases


def by_puppets(leases: list[Any]) -> tuple[Evidence, ...]:
    return tuple(witness(lease, puppet) for lease, puppet in zip(leases, PUPPETS, strict=False))


# the whole task -------------------------------------------------------------------------------------------------------


def test_one_was_asked_for_one_model_and_two_for_another() -> None:
    """The same prompt, the same seed, honest answers: of model A and of model B."""
    pool, a, b = courtroom(), setting("model A"), setting("model B")
    spec_a, spec_b = lane_task("model A"), lane_task("model B")
    lie = accused(spec_a, a)
    draw(pool, lie)
    start = before(pool)
    for spec, opened in ((spec_a, a), (spec_b, b)):
        request = charge(spec, opened, accused=lie, others=witnesses(spec_b, b))
        assert pool.refuses(request, REQUESTER) in (Refusal.BAD_EVIDENCE, Refusal.BAD_WITNESS)
    gains_nothing(start)


@pytest.mark.parametrize("change", [{"context_tokens": 7}, {"exact": True}, {"kind": "spin"}, {"inputs": ()}])
def test_a_lane_that_was_opened_otherwise(change: dict[str, Any]) -> None:
    pool, opened, spec = courtroom(), setting(), lane_task()
    draw(pool, accused(spec, opened))
    start, other = before(pool), msgspec.structs.replace(opened, **change)
    mixed = charge(spec, opened, others=witnesses(spec, other))
    assert pool.refuses(mixed, REQUESTER) == Refusal.BAD_WITNESS
    assert pool.refuses(msgspec.structs.replace(mixed, setting=other), REQUESTER) == Refusal.BAD_EVIDENCE
    gains_nothing(start)


def test_a_leaf_of_before_that_names_no_lane() -> None:
    """Old leaves are good for receipts, and convict nobody."""
    pool, spec = courtroom(), lane_task()

    def old(lease: Any, person: Person, output: bytes) -> Evidence:
        tree = MerkleTree([lane_leaf(1, params_hash(spec.params), spec.seed, output, 1)])
        root = ClaimRoot(lease_id(lease), 1, tree.root, 1, 1)
        return Evidence(person.sign(lease), person.sign(root), output, 1, 0, (), 1)

    lie, others = old(LEASE, PROVIDER, WRONG), (old(BY_ALICE, ALICE, RIGHT), old(BY_BOB, BOB, RIGHT))
    draw(pool, lie)
    start = before(pool)
    for opened in (None, setting()):
        request = slash_request(lie, others, LEASE, spec, lane=opened)
        assert pool.refuses(request, REQUESTER) == Refusal.BAD_EVIDENCE
    gains_nothing(start)


@pytest.mark.parametrize("change", [{"timeout_s": 9}, {"ram_bytes": 9}, {"units": 9}, {"inputs": ()}])
def test_one_answer_on_a_lane_charged_as_many_tasks(change: dict[str, Any]) -> None:
    """What no leaf names could be varied to charge one answer again and again."""
    pool, opened, spec = courtroom(), setting(), lane_task()
    draw(pool, accused(spec, opened))
    varied = msgspec.structs.replace(spec, **change)
    request = charge(varied, opened, accused=accused(spec, opened), others=witnesses(spec, opened))
    assert pool.refuses(request, REQUESTER) == Refusal.BAD_EVIDENCE


def test_answers_on_lanes_and_of_tasks_are_not_mixed() -> None:
    """A task of its own does not say what a lane was opened with."""
    pool, opened, spec = courtroom(), setting(), lane_task()
    draw(pool, accused(spec, opened))
    start = before(pool)
    assert pool.refuses(charge(spec, opened, others=witnesses(spec)), REQUESTER) == Refusal.BAD_EVIDENCE
    gains_nothing(start)


# the class of machines ------------------------------------------------------------------------------------------------


def classes(kind: str, ours: str, alices: str, bobs: str) -> tuple[Pool, Slash]:
    """A charge in which each was ordered for a class of machines."""
    spec, pool = task(kind=kind), stocked_pool()
    parties = ((PROVIDER, ours, WRONG), (ALICE, alices, RIGHT), (BOB, bobs, RIGHT))
    leases = [
        lease_of(provider=one, kind=kind, cap_ucr=50, order=ordered(numerics=numerics)) for one, numerics, _ in parties
    ]
    proofs: list[Evidence] = []
    for lease, (person, _, output) in zip(leases, parties, strict=True):
        pool.does(open_request(lease, provider=person), REQUESTER)
        proofs.append(evidence(lease, person, spec, output))
    draw(pool, proofs[0])
    return pool, slash_request(proofs[0], proofs[1:], leases[0], spec)


def test_witnesses_of_another_class_of_machines() -> None:
    """Floating point differs between them, and nobody lied."""
    for pool, request in (classes("train", "avx2", "avx512", "avx512"), classes("train", "avx2", "avx2", "avx512")):
        start = before(pool)
        assert pool.refuses(request, REQUESTER) == Refusal.UNLIKE_MACHINES
        gains_nothing(start)


def test_machines_of_no_class_are_not_alike() -> None:
    pool, request = classes("train", "", "", "")
    assert pool.refuses(request, REQUESTER) == Refusal.UNLIKE_MACHINES
    pool, request = classes("no such kind", "", "", "")
    assert pool.refuses(request, REQUESTER) == Refusal.UNLIKE_MACHINES


def test_an_order_that_the_lease_does_not_name() -> None:
    """Another order in the place of the real one would put a machine into a class that it is not of."""
    pool, request = classes("train", "avx2", "avx512", "avx512")
    alike = ORDERS[ordered(numerics="avx512")]
    forged = msgspec.structs.replace(request, orders=(alike, *request.orders[1:]))
    assert pool.refuses(forged, REQUESTER) == Refusal.BAD_EVIDENCE
    pool, request = classes("train", "avx2", "avx2", "avx2")
    pool.does(request, REQUESTER)


# drawn auditors -------------------------------------------------------------------------------------------------------


def test_two_sock_puppets_with_a_ucr_of_stake_each() -> None:
    pool = courtroom(msgspec.structs.replace(LOW, drawn=2), drawn=False)
    leases = puppets(pool, 2)
    drawn = draw(pool, accused()).drawn
    assert set(drawn) == {ALICE.account, BOB.account}
    start = before(pool)
    assert pool.refuses(charge(others=by_puppets(leases)), REQUESTER) == Refusal.NOT_DRAWN
    gains_nothing(start)


def test_puppets_that_chance_does_call_take_no_more_than_they_put_up() -> None:
    """In a small pool everybody is drawn. What two accounts with 1 ucr can have locked is 2 ucr, and not for long."""
    pool = courtroom(LOW, drawn=False)
    leases = puppets(pool, 2)
    draw(pool, accused())
    start = before(pool)
    pool.does(charge(others=by_puppets(leases)), REQUESTER)
    assert run(pool.home.charge(ID)).locked_ucr == 2
    pool.does(Appeal(ID, task_id(TASK)), PROVIDER)
    pool.does(Rule(ID, task_id(TASK), upheld=False), BANK)
    assert wealth(pool, PROVIDER) == start.accused_ucr  # and of what they owe, the pool gets all once it is free
    for puppet, lease in zip(PUPPETS, leases, strict=False):
        pool.does(CloseEscrow(lease_id(lease)), puppet)
    assert wealth(pool, *GANG) == start.gang_ucr - 2


def test_accounts_that_were_made_once_the_claim_was_drawn() -> None:
    pool = courtroom()
    leases = puppets(pool, 2, stake_ucr=150, lease_stake_ucr=150)
    start = before(pool)
    assert pool.refuses(charge(others=by_puppets(leases)), REQUESTER) == Refusal.NOT_DRAWN
    again = pool.ask(DrawAuditors(accused().claim), REQUESTER)
    assert not {puppet.account for puppet in PUPPETS[:2]} & set(getattr(again, "drawn", ()))
    gains_nothing(start)


def test_a_claim_for_which_nobody_was_drawn() -> None:
    pool = courtroom(drawn=False)
    start = before(pool)
    assert pool.refuses(charge(), REQUESTER) == Refusal.NOT_DRAWN
    draw(pool, msgspec.structs.replace(accused(), claim=claim(LEASE)))  # another claim of the same lease
    assert pool.refuses(charge(), REQUESTER) == Refusal.NOT_DRAWN
    gains_nothing(start)


def test_many_small_accounts_are_drawn_no_oftener_than_one_large_one() -> None:
    """Twelve puppets with 5 ucr each stand against two with 300: both auditors of a claim are theirs about once in 130
    claims."""
    pool = courtroom(msgspec.structs.replace(LOW, drawn=2), drawn=False)
    puppets(pool, 12, stake_ucr=5)
    accounts = {puppet.account for puppet in PUPPETS}
    drawn = [pool.ask(DrawAuditors(claim(LEASE, root=word("root", n))), REQUESTER) for n in range(40)]
    both = sum(set(getattr(answer, "drawn", ())) <= accounts for answer in drawn)
    assert both <= 2


# live stake -----------------------------------------------------------------------------------------------------------


def leave(pool: Pool, lease: Any, person: Person) -> None:
    pool.does(CloseEscrow(lease_id(lease)), person)
    pool.does(Unbond(pool.operation(), 300), person)


def test_witnesses_whose_stake_left_a_day_ago() -> None:
    pool = courtroom()
    for lease, person in ((BY_ALICE, ALICE), (BY_BOB, BOB)):
        leave(pool, lease, person)
    pool.now_ms += TERMS.unbonding_ms - 1
    pool.does(CloseEscrow(ID), PROVIDER)
    start = before(pool)
    assert pool.refuses(charge(), REQUESTER) == Refusal.BAD_WITNESS
    gains_nothing(start)


def test_witnesses_whose_stake_is_on_its_way_out() -> None:
    pool = courtroom()
    leave(pool, BY_ALICE, ALICE)
    start = before(pool)
    assert pool.refuses(charge(), REQUESTER) == Refusal.BAD_WITNESS
    gains_nothing(start)


def test_one_stake_behind_many_charges() -> None:
    """Two others could have ten providers' stakes locked with what covers one."""
    pool, second = courtroom(), lease_of(provider=PROVIDER, cap_ucr=60, stake_ucr=200)
    pool.does(open_request(second), REQUESTER)
    for person in (ALICE, BOB):
        pool.does(Unbond(pool.operation(), 200), person)
    lie = evidence(second, PROVIDER, task("other"), WRONG)
    draw(pool, lie)
    pool.does(charge(slash_ucr=100), REQUESTER)
    others = [evidence(by, who, task("other"), RIGHT) for by, who in ((BY_ALICE, ALICE), (BY_BOB, BOB))]
    pool.does(slash_request(lie, others, second, task("other"), slash_ucr=200), REQUESTER)
    assert run(pool.home.charge(lease_id(second))).locked_ucr == 100
    third = evidence(second, PROVIDER, task("third"), WRONG)
    draw(pool, third)
    assert pool.balance(PROVIDER).slashed_ucr == 0


def test_the_same_witness_in_two_coats() -> None:
    pool, coat = courtroom(drawn=False), lease_of(provider=ALICE, cap_ucr=7, provider_node=word("her other machine"))
    certificate = Person("alice")
    certificate.node = word("her other machine")
    pool.does(open_request(coat, provider=ALICE, provider_certificate=certificate.certificate()), REQUESTER)
    draw(pool, accused())
    start = before(pool)
    for others in ((WITNESSES[0], witness(coat, ALICE)), (WITNESSES[0], WITNESSES[0])):
        assert pool.refuses(charge(others=others), REQUESTER) == Refusal.BAD_WITNESS
    gains_nothing(start)


# a reward, or work for nothing ----------------------------------------------------------------------------------------


def test_an_accuser_that_pays_its_witnesses_earns_nothing() -> None:
    """Even where nobody answers, and the accused loses its stake: those who made it up have not one ucr more."""
    pool = courtroom(drawn=False)
    leases = puppets(pool, 2, stake_ucr=50, lease_stake_ucr=50)
    draw(pool, accused())
    start = before(pool)
    pool.does(charge(others=by_puppets(leases)), REQUESTER)
    pool.now_ms += TERMS.answer_ms
    pool.does(CloseEscrow(ID), REQUESTER)
    assert pool.balance(PROVIDER).slashed_ucr == 80
    assert wealth(pool, *GANG) == start.gang_ucr


def test_work_that_was_accepted_is_not_taken_back_by_a_charge() -> None:
    pool = courtroom()
    promised = voucher(LEASE, 400)
    pool.does(charge(), REQUESTER)
    assert pool.refuses(CloseEscrow(ID), REQUESTER) == Refusal.TOO_EARLY
    pool.does(Redeem(promised), PROVIDER)
    assert pool.escrow(LEASE).paid_ucr == 400


def test_a_charge_over_nothing_does_not_end_a_lease() -> None:
    """With a slash of 0 a charge cost nobody anything, and returned the escrow before the lease's end."""
    pool = courtroom()
    start = before(pool)
    assert pool.refuses(charge(slash_ucr=0), REQUESTER) == Refusal.ZERO_AMOUNT
    assert pool.escrow(LEASE).closed_ms == 0
    gains_nothing(start)


# answers --------------------------------------------------------------------------------------------------------------


def test_a_convicted_party_that_answers_is_made_whole() -> None:
    pool = courtroom()
    start = before(pool)
    pool.does(charge(), REQUESTER)
    pool.does(Appeal(ID, task_id(TASK)), PROVIDER)
    pool.does(Rule(ID, task_id(TASK), upheld=False), BANK)
    assert wealth(pool, PROVIDER) == start.accused_ucr + 3  # what the claim was worth
    assert wealth(pool, *GANG) == start.gang_ucr - 80


@pytest.mark.parametrize("judge", [REQUESTER, ALICE, PROVIDER])
def test_nobody_but_the_referee_rules(judge: Person) -> None:
    pool = courtroom()
    pool.does(charge(), REQUESTER)
    pool.does(Appeal(ID, task_id(TASK)), PROVIDER)
    start = before(pool)
    for upheld in (True, False):
        assert pool.refuses(Rule(ID, task_id(TASK), upheld), judge) == Refusal.NOT_REFEREE
    gains_nothing(start)


def test_a_charge_whose_time_has_passed() -> None:
    pool = courtroom()
    pool.does(CloseEscrow(ID), PROVIDER)
    pool.now_ms += TERMS.unbonding_ms + 1
    start = before(pool)
    assert pool.refuses(charge(), REQUESTER) == Refusal.TOO_LATE
    gains_nothing(start)


def test_a_verdict_that_was_overturned_is_not_brought_again() -> None:
    pool = courtroom()
    pool.does(charge(), REQUESTER)
    pool.does(Appeal(ID, task_id(TASK)), PROVIDER)
    pool.does(Rule(ID, task_id(TASK), upheld=False), BANK)
    start = before(pool)
    pool.does(charge(), REQUESTER)  # the same words: it was done, once
    assert pool.refuses(charge(slash_ucr=79), REQUESTER) == Refusal.ALREADY_JUDGED
    gains_nothing(start)


def test_a_contradiction_that_the_provider_did_not_sign() -> None:
    pool = courtroom()
    start = before(pool)
    one, two = claim(LEASE, REQUESTER, word("one")), claim(LEASE, REQUESTER, word("two"))
    assert pool.refuses(SlashEquivocation(ID, one, two), REQUESTER) == Refusal.BAD_EVIDENCE
    gains_nothing(start)


def damaged() -> list[Callable[[Slash], Slash]]:
    """A good charge with one part of it bent."""
    replace = msgspec.structs.replace
    return [
        lambda one: replace(one, accused=replace(one.accused, number=5)),
        lambda one: replace(one, accused=replace(one.accused, units=2)),
        lambda one: replace(one, accused=replace(one.accused, claim=one.others[0].claim)),
        lambda one: replace(one, others=(one.others[0], replace(one.others[1], lease=one.others[0].lease))),
        lambda one: replace(one, others=one.others[:1]),
        lambda one: replace(one, orders=one.orders[::-1][:2]),
        lambda one: replace(one, orders=()),
        lambda one: replace(one, task=task("another")),
        lambda one: replace(one, setting=setting()),
        lambda one: replace(one, verdict=ALICE.sign(LEASE)),
    ]


@pytest.mark.parametrize("bend", damaged())
def test_evidence_that_was_bent(bend: Callable[[Slash], Slash]) -> None:
    pool = courtroom()
    start = before(pool)
    pool.refuses(bend(charge()), REQUESTER)
    gains_nothing(start)
    assert pool.now_ms > NOW + HOUR
