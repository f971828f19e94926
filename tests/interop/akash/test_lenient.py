"""Where Akash's providers read otherwise than its console."""

from __future__ import annotations

from typing import Any

import pytest
from tests.interop.akash.files import changed, leniently, problems, sdl, strictly, text

from fallow.interop.akash.canonical import canonical_json
from fallow.interop.akash.lenient import manifest
from fallow.interop.tree import compose

WEB, RESOURCES = "services.web", "profiles.compute.web.resources"
EXPOSE, PLACEMENT = f"{WEB}.expose.0", "profiles.placement.dc"
DATA = {"size": "1Gi", "name": "data", "attributes": {"persistent": "yes", "class": "beta2"}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{WEB}.depends_on", ["db"]), ("version", 2.0), ("version", "3.0"), (f"{PLACEMENT}.attributes", None),
        (f"{EXPOSE}.proto", "Udp"), (f"{EXPOSE}.to", [{"global": "yes"}]), (f"{WEB}.env", ["A=1", None, "B"][0:1]),
        (f"{PLACEMENT}.signedBy", {"anyOf": [1]}), (f"{PLACEMENT}.pricing.web.denom", "usd"), (f"{WEB}.params", None),
        (f"{RESOURCES}.memory.size", 536870912),
        (f"{RESOURCES}.gpu", {"units": 1, "attributes": {"vendor": {"amd": None}}}),
        (f"{WEB}.params", {"permissions": {"read": ["events"]}}), (f"{WEB}.params", {"tee": "cpu"}),
        ("reclamation", {"min_window": "1h30m"}), (f"{EXPOSE}.http_options", {"proxy_buffer_size": 8192}),
        (f"{WEB}.credentials", {"host": "h", "username": "u", "password": "x"}),
    ],
)  # fmt: skip
def test_what_only_the_lenient_reader_takes(path: str, value: Any) -> None:
    assert problems(leniently, changed(path, value)) == ()
    if "env" not in path:
        assert problems(strictly, changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("extra", 1), ("version", "1.5"), ("version", ...), ("reclamation", {"min_window": "0s"}),
        (f"{WEB}.env", ["1A=x"]), (f"{WEB}.env", ["=x"]), (f"{WEB}.image", ""), (f"{EXPOSE}.port", 0),
        (f"{EXPOSE}.port", "80"), (f"{EXPOSE}.proto", "http"), (f"{EXPOSE}.accept", ["Not A Host"]),
        (f"{EXPOSE}.accept", ["a.b", "a.b"]), (f"{EXPOSE}.to", []), (f"{EXPOSE}.to", [{"service": "x"}]),
        (f"{EXPOSE}.http_options", {"read_timeout": 60_001}),
        (f"{EXPOSE}.http_options", {"next_cases": ["off", "500"]}),
        (f"{RESOURCES}.cpu.units", "9m"), (f"{RESOURCES}.cpu.units", 385), (f"{RESOURCES}.memory.size", "1000k"),
        (f"{RESOURCES}.memory.size", "3Ti"), (f"{RESOURCES}.storage", {"size": "1Mi"}), (f"{RESOURCES}.storage", ...),
        (f"{RESOURCES}.gpu", {"units": 25, "attributes": {"vendor": {"nvidia": None}}}),
        (f"{RESOURCES}.gpu", {"units": 0, "attributes": {"vendor": {"nvidia": None}}}),
        (f"{RESOURCES}.gpu", {"units": 1}),
        (f"{RESOURCES}.gpu", {"units": 0, "speed": 1}), (f"{RESOURCES}.cpu.attributes", {"cache": "big"}),
        (f"{RESOURCES}.storage", {"size": "1Gi", "attributes": {"class": "beta2"}}),
        (f"{RESOURCES}.storage", {"size": "1Gi", "attributes": {"class": "gold", "persistent": True}}),
        (f"{RESOURCES}.storage", {"size": "1Gi", "attributes": {"class": "ram", "persistent": True}}),
        (f"{RESOURCES}.storage", [{"size": "1Gi"}, {"size": "2Gi"}]), (f"{RESOURCES}.storage", [DATA]),
        (f"{PLACEMENT}.pricing.web.amount", 0), (f"{PLACEMENT}.pricing.web.amount", "1e3"),
        (f"{PLACEMENT}.pricing.web.amount", 10_000_001), (f"{PLACEMENT}.pricing.web.denom", "u"),
        (f"{WEB}.params", {"tee": "gpu"}), (f"{WEB}.params", {"tee": "cpu-gpu"}),
        (f"{WEB}.params", {"storage": {"default": {"mount": "data"}}}), ("deployment.web.dc.count", 51 * 1000),
        (f"{WEB}.credentials", {"host": " ", "username": "u", "password": "x"}), ("deployment", {}), ("services", ...),
        ("endpoints", {"front": {"kind": "ip"}}), ("endpoints", {"Front": {"kind": "ip"}}),
        ("services.Web", {"image": "x"}), ("deployment.web.dc.count", -1),
    ],
)  # fmt: skip
def test_what_it_does_not(path: str, value: Any) -> None:
    file = changed(path, value)
    if path == "services.Web":
        file["deployment"]["Web"] = file["deployment"]["web"]
    found = problems(leniently, file)
    assert found and all(problem.met and problem.accepted for problem in found)


def test_overlooked_fields_are_told() -> None:
    file = changed(f"{WEB}.restart", "always", changed(f"{RESOURCES}.memory.attributes", {"fast": "yes"}))
    overlooked = manifest(compose(text(file)))[2]
    assert {trouble.path for trouble in overlooked} == {
        ("services", "web", "restart"), ("profiles", "compute", "web", "resources", "memory", "attributes"),
    }  # fmt: skip


def test_both_readers_agree_on_a_plain_file() -> None:
    assert canonical_json(leniently(sdl())) == canonical_json(strictly(sdl()))


def test_numbers_of_resources_differ_by_version() -> None:
    def ids(version: str) -> list[int]:
        file = sdl(version=version)
        file["services"]["api"] = file["services"]["web"]
        file["deployment"]["api"] = file["deployment"]["web"]
        return [it["resources"]["id"] for it in leniently(file)[0]["services"]]

    assert ids("2.0") == [1, 2]
    assert ids("2.1") == [1, 1]


def test_volumes_are_sorted_and_have_all_their_attributes() -> None:
    storage = [DATA, {"size": "512Mi"}, {"size": "512Mi", "name": "shm", "attributes": {"class": "ram"}}]
    file = changed(f"{WEB}.params", {"storage": {"data": {"mount": "/d"}}}, changed(f"{RESOURCES}.storage", storage))
    found = leniently(file)[0]["services"][0]["resources"]["storage"]
    assert [it["name"] for it in found] == ["default", "shm", "data"]
    assert [[pair["value"] for pair in it.get("attributes", ())] for it in found] == [
        [], ["ram", "false"], ["beta2", "true"],
    ]  # fmt: skip


def test_an_expose_to_nobody_stays_and_lists_stay_empty() -> None:
    file = changed(f"{WEB}.args", [])
    file["services"]["web"]["expose"].append({"port": 9000})
    service = leniently(file)[0]["services"][0]
    assert service["args"] == [] and service["command"] is None
    assert [row["port"] for row in service["expose"]] == [80, 9000]


def test_two_currencies_are_one_too_many() -> None:
    file = sdl()
    file["services"]["api"] = file["services"]["web"]
    file["profiles"]["placement"]["other"] = {"pricing": {"web": {"denom": "uact", "amount": 1}}}
    file["deployment"]["api"] = {"other": {"profile": "web", "count": 1}}
    assert any("uact and uakt" in problem.met for problem in problems(leniently, file))


def test_two_kinds_of_secrecy_in_one_placement() -> None:
    file = changed(f"{RESOURCES}.gpu", {"units": 1, "attributes": {"vendor": {"nvidia": None}}})
    file["services"]["api"] = {**file["services"]["web"], "params": {"tee": "cpu-gpu"}}
    file["services"]["web"] = {**file["services"]["web"], "params": {"tee": "cpu"}}
    file["deployment"]["api"] = file["deployment"]["web"]
    assert any("one kind" in problem.accepted for problem in problems(leniently, file))


def test_leased_addresses_need_their_endpoint_and_a_port_of_their_own() -> None:
    file = changed(f"{EXPOSE}.to", [{"global": True, "ip": "front"}], changed("endpoints", {"front": {"kind": "ip"}}))
    endpoints = leniently(file)[0]["services"][0]["resources"]["endpoints"]
    assert endpoints == [{"sequence_number": 0}, {"kind": 2, "sequence_number": 1}]
    file["services"]["web"]["expose"].append({"port": 1, "as": 80, "to": [{"global": True, "ip": "front"}]})
    assert any("once more" in problem.met for problem in problems(leniently, file))
