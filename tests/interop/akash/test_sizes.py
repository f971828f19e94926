from __future__ import annotations

from typing import Any

import pytest

from fallow.interop.akash.sizes import cpu_text, gpu_text, size_text


@pytest.mark.parametrize(
    ("written", "bytes_"),
    [
        ("1k", "1000"), ("1Ki", "1024"), ("1.5Gi", "1610612736"), ("100M", "100000000"), ("5gi", "5368709120"),
        ("0.1Ki", "103"), ("10x", "10"), ("512MB", "512000000"), ("1gib", "1000000000"),
        ("16Ei", "18446744073709552000"),
        ("1.2.3k", "1200"), (".5k", "500"), ("512", None), ("", None), ("Gi", None), (".Gi", None), ("1 Gi", None),
        ("-1Gi", None), ("9" * 400 + "Ei", None),
    ],
)  # fmt: skip
def test_sizes(written: str, bytes_: str | None) -> None:
    assert size_text(written) == bytes_


@pytest.mark.parametrize(
    ("units", "millis"),
    [(1, "1000"), (0.1, "100"), (0.29, "290"), (2.3, "2300"), (1.005, "1004.9999999999999"), ("500m", "500"),
     ("1.5", "1500"),
     ("2cores", "2000"), ("0.0001", "0.1"), ("x", None), ("9" * 400, None)],
)  # fmt: skip
def test_cpus(units: Any, millis: str | None) -> None:
    assert cpu_text(units) == millis


@pytest.mark.parametrize(("units", "count"), [(1, "1"), ("2", "2"), ("2x", "2"), (1.5, "1.5"), ("x", None), ("", None)])
def test_gpus(units: Any, count: str | None) -> None:
    assert gpu_text(units) == count
