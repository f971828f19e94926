from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow import units
from fallow.units import cost_ucr, format_money, format_size, from_text, parse_money, parse_size, to_text

AMOUNTS = st.integers(0, units.MAX_UCR)


@given(AMOUNTS)
def test_money_is_read_as_it_is_written(amount: int) -> None:
    assert parse_money(format_money(amount)) == amount


@given(st.text(max_size=30))
def test_no_text_is_read_as_another_amount_than_it_says(text: str) -> None:
    try:
        amount = parse_money(text)
    except ValueError:
        return
    assert Decimal(amount) / units.UCR_PER_CR == Decimal(text.strip().removesuffix("cr").strip())


@pytest.mark.parametrize("text", ["", "-1", "+1", "1e3", "0.0000001", "1,5", "cr", "1 cr cr", "0x1", ".5", "1.", "inf"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        parse_money(text)


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0.00 cr"), (50_000, "0.05 cr"), (1, "0.000001 cr"), (-1_500_000, "-1.50 cr")]
)
def test_money_as_people_read_it(amount: int, text: str) -> None:
    assert format_money(amount) == text


@given(st.integers(0, 10**12), st.integers(0, 10**9))
def test_work_is_never_cheaper_than_its_price(count: int, price: int) -> None:
    cost = cost_ucr(count, price)
    assert cost * 1_000 >= count * price
    assert (cost - 1) * 1_000 < count * price or cost == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1000", 1000), ("512M", 512 << 20), ("2GiB", 2 << 30), ("1.5k", 1536), ("1 tb", 1 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1x", "M", "1MM", "one"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (98_362_432, "93.8 MiB"), (1 << 60, "1048576.0 TiB")],
)
def test_sizes_as_people_read_them(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.sampled_from(["job", "lease", "task", "blob", "node", "receipt", "account"]), st.binary(max_size=40))
def test_ids_go_there_and_back_with_and_without_their_prefix(kind: str, value: bytes) -> None:
    text = to_text(kind, value)
    assert from_text(kind, text) == value
    assert from_text(kind, value.hex()) == value


def test_what_is_no_id() -> None:
    with pytest.raises(ValueError, match="non-hexadecimal"):
        from_text("job", "j_xyz")
    with pytest.raises(KeyError):
        to_text("dragon", b"")
