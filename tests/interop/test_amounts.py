from __future__ import annotations

import pytest

from fallow.interop.amounts import cpu_millis, size_bytes


@pytest.mark.parametrize(
    ("text", "millis"), [("0.5", 500), ("500m", 500), ("2", 2000), ("", None), ("x", None), ("-1", None)]
)
def test_cpus(text: str, millis: int | None) -> None:
    assert cpu_millis(text) == millis


@pytest.mark.parametrize(
    ("text", "plain", "binary"),
    [("512Mb", 512_000_000, 2**29), ("1GiB", 2**30, 2**30), ("2g", 2 * 10**9, 2**31), ("100", 100, 100),
     ("1,000", 1000, 1000),
     ("1.5k", 1500, 1536), ("lots", None, None), ("1ib", None, None), ("", None, None), ("9" * 30, None, None)],
)  # fmt: skip
def test_sizes(text: str, plain: int | None, binary: int | None) -> None:
    assert (size_bytes(text), size_bytes(text, binary=True)) == (plain, binary)
