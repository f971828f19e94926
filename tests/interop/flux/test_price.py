from __future__ import annotations

from typing import Any

import pytest
from tests.interop.flux.specs import TIERED, spec, with_part

from fallow.interop.flux.price import price_usd


@pytest.mark.parametrize(
    ("found", "usd"),
    [
        (spec(), 2.22), (spec(instances=1), 0.99), (spec(staticip=True), 4.2), (spec(enterprise="x"), 6.21),
        (spec(7, nodes=["a"]), 6.21), (with_part(ports=[443]), 4.2), (with_part(cpu=0.1, ram=100, hdd=1), 0.99),
        (with_part(cpu=0.1, ram=100, hdd=1) | {"instances": 5}, 2.08), (with_part(7, **TIERED), 4.41),
    ],
)  # fmt: skip
def test_prices(found: dict[str, Any], usd: float) -> None:
    assert price_usd(found) == usd
