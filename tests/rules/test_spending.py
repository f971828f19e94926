"""API key budgets: never overspent, whatever order calls come in and however often."""

from hypothesis import given
from hypothesis import strategies as st

from fallow.rules.spending import RESERVATION_MS, ApiKey, available_ucr, post, reserve


def key(budget_ucr: int = 100) -> ApiKey:
    return ApiKey("fk-1", "test", budget_ucr)


def test_a_request_is_reserved_then_booked_at_its_true_cost() -> None:
    k = key()
    assert reserve(k, b"a", 60, 0)
    assert available_ucr(k, 0) == 40
    assert post(k, b"a", 25) == 25
    assert (k.spent_ucr, available_ucr(k, 0)) == (25, 75)


def test_a_request_dearer_than_what_is_left_is_refused() -> None:
    k = key()
    assert reserve(k, b"a", 60, 0)
    assert not reserve(k, b"b", 41, 0)


def test_repeating_a_call_changes_nothing() -> None:
    k = key()
    assert reserve(k, b"a", 60, 0) and reserve(k, b"a", 60, 0)
    assert available_ucr(k, 0) == 40
    assert post(k, b"a", 10) == 10
    assert post(k, b"a", 10) == 0
    assert reserve(k, b"a", 60, 0)
    assert (k.spent_ucr, k.reserved) == (10, {})


def test_a_cost_above_the_reservation_is_cut_to_it() -> None:
    k = key()
    reserve(k, b"a", 60, 0)
    assert post(k, b"a", 1000) == 60


def test_a_dead_gateways_reservation_lapses() -> None:
    k = key()
    reserve(k, b"a", 100, 0)
    assert available_ucr(k, RESERVATION_MS - 1) == 0
    assert available_ucr(k, RESERVATION_MS) == 100
    assert post(k, b"a", 5) == 0


def test_a_revoked_key_reserves_nothing() -> None:
    k = key()
    k.revoked = True
    assert not reserve(k, b"a", 1, 0)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 150), st.integers(0, 2_000_000))))
def test_never_overspent(calls: list[tuple[bool, int, int, int]]) -> None:
    k = key()
    for is_post, number, amount, at_ms in calls:
        if is_post:
            post(k, bytes([number]), amount)
        else:
            reserve(k, bytes([number]), amount, at_ms)
        assert 0 <= k.spent_ucr <= k.budget_ucr
        assert k.spent_ucr + sum(r.amount_ucr for r in k.reserved.values()) <= k.budget_ucr or not k.reserved
