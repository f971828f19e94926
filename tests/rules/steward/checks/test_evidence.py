"""What a receipt's evidence shows of an audit: exactly those whom the draw names."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rules.steward.checks.test_sample import alarms, skips
from tests.rules.steward.crowd import Crowd, Provider, batch_spec, exact_spec, h, honest_crowd, lie, train_spec

from fallow.rules import trust
from fallow.rules.steward import events as t
from fallow.rules.steward.check import Exhibit
from fallow.rules.steward.checks.evidence import shown
from fallow.wire.codec import decode
from fallow.wire.documents import Lease
from fallow.wire.local import JobSpec
from fallow.wire.tasks import TaskOutput, TaskSpec

TASK, OUTPUT = TaskSpec("echo", b"", (), 0, 1, 1, 1), TaskOutput(b"", ())
ACCOUNTS = st.sets(st.binary(min_size=20, max_size=20), min_size=3, max_size=20)


def exhibit(
    others: tuple[bytes, ...], seed: bytes, undrawn: tuple[bytes, ...], drawn_for: bytes = b"p" * 20
) -> Exhibit:
    return Exhibit("echo", TASK, OUTPUT, b"p" * 20, others, None, b"", seed, drawn_for, undrawn)


@given(ACCOUNTS, st.binary(min_size=32, max_size=32), st.data())
def test_only_the_first_of_the_draw_will_do(accounts: set[bytes], seed: bytes, data: st.DataObject) -> None:
    order = trust.auditor_order(seed, accounts)
    some = data.draw(st.sets(st.sampled_from(order), min_size=1, max_size=3))
    rest = tuple(account for account in order if account not in some)
    found = shown(trust.Policy(), exhibit(tuple(some), seed, rest))
    assert bool(found.wrong) == (set(order[: len(some)]) != some)
    assert bool(found.words) != bool(found.wrong)
    if not found.wrong:
        assert (f"among {len(order)} accounts" if rest else "nobody else could have been drawn") in found.words


def test_who_was_checked_need_not_be_drawn_and_who_checked_must() -> None:
    seed = b"s" * 32
    first, second, provider = trust.auditor_order(seed, [b"a" * 20, b"b" * 20, b"p" * 20])
    for owner in (first, second, provider):
        others = tuple(account for account in (first, second, b"p" * 20) if account != b"p" * 20)
        assert not shown(trust.Policy(), exhibit(others, seed, (), owner)).wrong
    assert shown(trust.Policy(quorum=4), exhibit((first,), seed, ())).wrong


@given(ACCOUNTS, st.binary(min_size=32, max_size=32), st.data())
def test_the_banks_draw_comes_before_the_rest_and_those_from_outside_before_all(
    accounts: set[bytes], seed: bytes, data: st.DataObject
) -> None:
    some = st.lists(st.sampled_from(sorted(accounts)), unique=True)
    drawn, outside = tuple(data.draw(some)), tuple(data.draw(some))
    order = trust.auditor_order(seed, accounts, drawn, outside)
    first = [account for account in order if account in outside]
    assert order[: len(first)] == first
    for part in (first, order[len(first) :]):
        by_stake = [account for account in drawn if account in part]
        assert part[: len(by_stake)] == by_stake
    seen = exhibit((order[0],), seed, tuple(order[1:]))._replace(drawn=drawn, outside=outside, provider=order[0])
    found = shown(trust.Policy(), seen)
    assert not found.wrong
    assert ("by stake" in found.words) == (order[0] in drawn)
    other = exhibit((order[-1],), seed, tuple(order[:-1]))._replace(drawn=drawn, outside=outside, provider=order[-1])
    assert shown(trust.Policy(), other).wrong


def test_a_sample_of_what_is_no_chain() -> None:
    from tests.wire.parties import AUDITORS, evidence

    of = exhibit((), b"s" * 32, ())._replace(sampled=evidence(AUDITORS[0], bytes(32)), sampled_by=AUDITORS[0].account)
    assert "no chain" in shown(trust.EXACT_DEFAULT, of).wrong


TASKS = batch_spec(12, 3, verify="audit:probation=2,rate=0.5,quorum=3")
LINKS = exact_spec(workers=4, rounds=2, verify="audit:links=64")
ROUNDS = train_spec(workers=3)


@pytest.mark.parametrize(
    ("spec", "cheat"),
    [(TASKS, None), (LINKS, None), (ROUNDS, None), (TASKS, lie()), (ROUNDS, lie()), (LINKS, skips), (LINKS, alarms)],
    ids=["tasks", "links", "rounds", "lies", "false rounds", "skips", "alarms"],
)
def test_every_receipt_that_the_steward_keeps_shows_its_draw(
    spec: JobSpec, cheat: Callable[[TaskSpec, TaskOutput], TaskOutput] | None
) -> None:
    """Also those of the accounts that outvoted a liar, whose claim it was that was checked; and who did a check again
    is not said to have been drawn for that."""
    crowd = Crowd([*([Provider("cheat", price=900, answer=cheat)] if cheat else []), *honest_crowd(4)])
    crowd.submit(spec)
    crowd.run()
    for _ in range(6):
        crowd.pass_time(6_000)
    kept = [one for one in crowd.of(t.KeepReceipt) if one.agreeing]
    assert len(kept) > 3
    assert cheat is None or any(one.drawn_for is not None for one in kept)
    for one in kept:
        claim = one.claim if one.drawn_for is None else one.drawn_for.claim
        owner = one.terms.provider if one.drawn_for is None else decode(Lease, one.drawn_for.lease.body).provider
        assert one.seed == h("seed", h("claim", claim.body)), "the seed is that of the claim that it says"
        others = tuple(other.account for other in one.agreeing)
        seen = Exhibit(
            "echo", TASK, OUTPUT, one.terms.provider, others, None, b"", one.seed, owner, one.undrawn, one.drawn,
            one.outside,
        )  # fmt: skip
        assert not shown(trust.Policy(), seen).wrong
