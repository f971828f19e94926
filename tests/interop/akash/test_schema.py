"""Each rule of the form, on both of its sides."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.interop.akash.files import changed, problems, sdl, strictly

WEB, RESOURCES = "services.web", "profiles.compute.web.resources"
EXPOSE, OPTIONS = f"{WEB}.expose.0", f"{WEB}.expose.0.http_options"
PRICE = "profiles.placement.dc.pricing.web"

ACCEPTED: list[tuple[str, Any]] = [
    ("version", "2.1"),
    (f"{WEB}.command", None), (f"{WEB}.args", ["a"]), (f"{WEB}.env", ["A=1", "B"]), (f"{WEB}.env", []),
    (f"{EXPOSE}.port", 65535), (f"{EXPOSE}.as", 1), (f"{EXPOSE}.proto", "udp"), (f"{EXPOSE}.accept", ["a.example"]),
    (f"{OPTIONS}.max_body_size", 104_857_600), (f"{OPTIONS}.read_timeout", 60_000), (f"{OPTIONS}.next_cases", ["off"]),
    (f"{OPTIONS}.next_cases", ["error", "429"]), (f"{OPTIONS}.next_tries", 0),
    (f"{RESOURCES}.cpu.units", "100m"), (f"{RESOURCES}.cpu.units", "0.1"),
    (f"{RESOURCES}.cpu.attributes", {"arch": "arm"}),
    (f"{RESOURCES}.memory.size", "1.5Gi"), (f"{RESOURCES}.storage", [{"size": "1Gi"}]),
    (f"{RESOURCES}.storage", {"size": "1Gi", "attributes": {"class": "ram", "persistent": False}}),
    (f"{RESOURCES}.gpu", {"units": 0}), (f"{RESOURCES}.gpu", {"units": 1, "attributes": {"vendor": {"nvidia": None}}}),
    (f"{RESOURCES}.gpu", {"units": "2", "attributes": {"vendor": {"nvidia": [{"model": "a100", "interface": "sxm"}]}}}),
    (f"{PRICE}.amount", "0.25"), (f"{PRICE}.amount", 0), (f"{PRICE}.denom", "uact"),
    ("profiles.placement.dc.attributes", {"host": "akash"}), ("profiles.placement.dc.signedBy", {"anyOf": ["a"]}),
    (f"{WEB}.dependencies", [{"service": "db"}]), (f"{WEB}.params", {"permissions": {"read": ["logs"]}}),
    (f"{WEB}.credentials", {"host": "h", "username": "u", "password": "secret"}), ("include", ["other.yaml"]),
]  # fmt: skip
REFUSED: list[tuple[str, Any]] = [
    ("version", "2"), ("version", 2.0), ("version", ...), ("services", ...), ("profiles", []), ("extra", 1),
    (f"{WEB}.image", ""), (f"{WEB}.image", ...), (f"{WEB}.command", "sh"), (f"{WEB}.env", [1]),
    (f"{WEB}.depends_on", []),
    (f"{WEB}.expose", None), (f"{EXPOSE}.port", 0), (f"{EXPOSE}.port", 65536), (f"{EXPOSE}.port", "80"),
    (f"{EXPOSE}.port", 80.5), (f"{EXPOSE}.port", True), (f"{EXPOSE}.port", ...), (f"{EXPOSE}.proto", "Tcp"),
    (f"{EXPOSE}.to", [{"global": "yes"}]), (f"{EXPOSE}.to", [{"world": True}]), (f"{EXPOSE}.to", [{"ip": "x"}]),
    (f"{OPTIONS}.max_body_size", 104_857_601), (f"{OPTIONS}.send_timeout", 60_001), (f"{OPTIONS}.next_cases", ["400"]),
    (f"{OPTIONS}.next_cases", ["off", "error"]), (f"{OPTIONS}.proxy_buffer_size", 1),
    (f"{RESOURCES}.cpu.units", "0m"), (f"{RESOURCES}.cpu.units", 0), (f"{RESOURCES}.cpu.units", -1),
    (f"{RESOURCES}.cpu.units", "1 m"), (f"{RESOURCES}.cpu", {}), (f"{RESOURCES}.memory.size", 512),
    (f"{RESOURCES}.memory.size", "512"), (f"{RESOURCES}.memory.size", "x1Gi"), (f"{RESOURCES}.memory", ...),
    (f"{RESOURCES}.storage", {"size": "1Gi", "attributes": {"class": "ram", "persistent": "true"}}),
    (f"{RESOURCES}.storage", {"size": "1Gi", "attributes": {"speed": "fast"}}), (f"{RESOURCES}.storage", "1Gi"),
    (f"{RESOURCES}.gpu", {"attributes": {"vendor": {"nvidia": None}}}), (f"{RESOURCES}.gpu", {"units": 1}),
    (f"{RESOURCES}.gpu", {"units": 1, "attributes": {}}),
    (f"{RESOURCES}.gpu", {"units": 1, "attributes": {"vendor": {}}}),
    (f"{RESOURCES}.gpu", {"units": 1, "attributes": {"vendor": {"amd": None}}}),
    (f"{RESOURCES}.gpu", {"units": 1, "attributes": {"vendor": {"nvidia": [{"interface": "nvlink"}]}}}),
    (f"{RESOURCES}.gpu", {"units": 0, "attributes": {"vendor": {"nvidia": None}}}),
    (f"{RESOURCES}.gpu", {"units": "some", "attributes": {"vendor": {"nvidia": None}}}),
    (f"{PRICE}.amount", -1), (f"{PRICE}.amount", "1e3"), (f"{PRICE}.denom", "usd"), (f"{PRICE}.denom", "ibc/0"),
    (f"{PRICE}.denom", ...), ("profiles.placement.dc.attributes", None), ("profiles.placement.dc.pricing", ...),
    ("profiles.placement.dc.signedBy", {"anyOf": [1]}), ("deployment.web.dc.count", 0),
    ("deployment.web.dc.count", 1.5),
    ("deployment.web.dc.profile", ...), ("endpoints", {"A": {"kind": "ip"}}), ("endpoints", {"ab": {"kind": "port"}}),
    (f"{WEB}.params", {"permissions": {"read": ["events"]}}), (f"{WEB}.params", {"tee": "cpu"}),
    (f"{WEB}.params", None),
    (f"{WEB}.credentials", {"host": "h", "username": "u", "password": "short"}),
    (f"{WEB}.credentials", {"host": "h", "username": "u", "password": "secret", "email": "a@b"}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), ACCEPTED)
def test_what_the_form_allows(path: str, value: Any) -> None:
    assert problems(strictly, changed(path, value)) == ()


@pytest.mark.parametrize(("path", "value"), REFUSED)
def test_what_it_does_not(path: str, value: Any) -> None:
    found = problems(strictly, changed(path, value))
    assert found
    assert all(problem.met and problem.accepted for problem in found)
    field = path.replace(".0", "[0]")
    assert any(field.startswith(problem.field) or problem.field.startswith(field) for problem in found)


def test_a_password_is_never_told() -> None:
    found = problems(strictly, changed(f"{WEB}.credentials", {"host": "h", "username": "u", "password": "hunt"}))
    assert "hunt" not in str(found)


def test_everything_wrong_is_named_at_once_with_its_line() -> None:
    file = changed(f"{EXPOSE}.port", 0, changed(f"{WEB}.restart", "always", changed("version", "3")))
    found = problems(strictly, yaml.safe_dump(file, sort_keys=False).encode())
    assert [(problem.line, problem.field) for problem in found] == [
        (1, "version"), (6, "services.web.expose[0].port"), (10, "services.web.restart"),
    ]  # fmt: skip


def test_no_file_at_all() -> None:
    assert problems(strictly, b"") and problems(strictly, b"5") and problems(strictly, b"[]")
    assert problems(strictly, sdl()) == ()
