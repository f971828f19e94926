"""Each rule of the form, on both of its sides."""

from __future__ import annotations

from typing import Any

import pytest
from tests.interop.flux.specs import TIERED, spec, with_part

from fallow.interop.flux.form import check, decimals, length
from fallow.interop.shape import Trouble


def troubles(found: Any) -> list[Trouble]:
    troubles: list[Trouble] = []
    check(found, troubles)
    return troubles


@pytest.mark.parametrize(
    "found",
    [
        spec(), spec(7), spec(instances=1), spec(instances=100), spec(name="a-b"), spec(name="x" * 63),
        spec(name="Flux"),
        spec(7, name="x" * 32), spec(expire=1), spec(expire=1_056_000), spec(contacts=["x" * 75] * 5),
        spec(datacenter=False),
        spec(geolocation=["anything at all"]), spec(7, nodes=["1.2.3.4:16127"]), spec(enterprise="sealed"),
        spec(enterprise=[]),
        spec(enterprise="sealed", nodes=["x" * 70]), with_part(ports=[], containerPorts=[], domains=[]),
        with_part(ports=[8080]),
        with_part(containerPorts=[0]), with_part(cpu=0), with_part(cpu=-1), with_part(cpu=0.12345678),
        with_part(ram=59_000),
        with_part(containerData=5), with_part(repotag=[]), with_part(repotag="x" * 200),
        with_part(commands=["x" * 400] * 20),
        with_part(7, **TIERED), with_part(7, **(TIERED | {"tiered": False, "cpubasic": "none"})),
    ],
)  # fmt: skip
def test_what_is_accepted(found: dict[str, Any]) -> None:
    assert not troubles(found)


@pytest.mark.parametrize(
    "found",
    [
        None, [], 5, spec(6), spec(9), spec() | {"version": "8"}, spec() | {"version": True},
        spec() | {"version": []}, spec(name=""), spec(name="a b"),
        spec(name="-a"), spec(name="x" * 64), spec(7, name="a-b"), spec(7, name="x" * 33), spec(name="fluxy"),
        spec(name="zelx"),
        spec(name="Watchtower"), spec(description=""), spec(description="x" * 257), spec(owner=""), spec(owner=5),
        spec(compose=[]), spec(compose={}), spec(compose=[None]), spec(compose=[[]]),
        spec(compose=spec()["compose"] * 2),
        spec(instances=0), spec(7, instances=2), spec(instances=101), spec(instances=1.5), spec(instances="3"),
        spec(expire=0),
        spec(expire=1_056_001), spec(contacts=None), spec(contacts=["x" * 76]), spec(contacts=["x"] * 6),
        spec(contacts=[1]),
        spec(geolocation=["x" * 51]), spec(nodes=["a"]), spec(enterprise=None), spec(7, nodes=["x" * 71]),
        spec(staticip="no"),
        spec(datacenter=True), spec(extra=1), spec(7, enterprise=""), spec(7, nodes=["n"] * 121),
        with_part(name=""), with_part(name="a-b"), with_part(name="zel"), with_part(description=None),
        with_part(extra=1),
        with_part(ports=[22]), with_part(ports=[16150]), with_part(ports=[0]), with_part(ports=[80.5]),
        with_part(ports=["80"]),
        with_part(ports=[1, 1], containerPorts=[1, 1], domains=["", ""]), with_part(domains=[]),
        with_part(containerPorts=[]),
        with_part(ports=[*range(1, 7)], containerPorts=[80] * 6, domains=[""] * 6), with_part(containerPorts=[65536]),
        with_part(domains=["x" * 254]), with_part(containerData="/"), with_part(containerData=None),
        with_part(containerData=...),
        with_part(containerData="x" * 201), with_part(repotag=...), with_part(repotag="x" * 201),
        with_part(commands=["x" * 401]),
        with_part(environmentParameters=["x"] * 21), with_part(environmentParameters=[1]), with_part(cpu="1"),
        with_part(cpu=None),
        with_part(cpu=0.123456789), with_part(cpu=15.1), with_part(ram=59_001), with_part(hdd=821),
        with_part(repoauth="x"),
        with_part(tiered=False), with_part(7, tiered=...), with_part(7, secrets="x"), with_part(7, secrets=None),
        with_part(7, tiered=True), with_part(7, **(TIERED | {"cpubasic": 3.1})),
        with_part(7, **(TIERED | {"hddsuper": "x"})),
    ],
)  # fmt: skip
def test_what_is_not(found: Any) -> None:
    assert troubles(found)


def test_sealed_fields_have_a_bound() -> None:
    found: Any = with_part(repoauth="x" * 15_000) | {"enterprise": "sealed"}
    assert not troubles(found)
    found["compose"][0]["repoauth"] += "x"
    assert troubles(found)[0].path == ("compose", 0, "repoauth")


def test_javascripts_lengths_and_decimals() -> None:
    assert (length("a😀"), length([1, 2]), length(5), length({})) == (3, 2, None, None)
    assert decimals(0.5, 1) and not decimals(0.25, 1) and decimals(1e-9, 0) and decimals(1e21, 0)
