"""A Flux specification of each version, written for these tests."""

from __future__ import annotations

from typing import Any


def spec(version: int = 8, **changes: Any) -> dict[str, Any]:
    """One component on three machines; `changes` are of the top."""
    part: dict[str, Any] = {
        "name": "web", "description": "", "repotag": "nginx:1.27", "ports": [31000], "containerPorts": [80],
        "environmentParameters": ["A=1", "B"], "commands": [], "containerData": "/data", "domains": [""],
        "repoauth": "", "cpu": 1, "ram": 1000, "hdd": 10,
    }  # fmt: skip
    found: dict[str, Any] = {
        "version": version, "name": "demo", "description": "a page", "owner": "1abc", "compose": [part], "instances": 3,
        "contacts": [], "geolocation": [], "expire": 22000, "nodes": [], "staticip": False,
    }  # fmt: skip
    if version == 7:
        part |= {"tiered": False, "secrets": ""}
    else:
        found["enterprise"] = ""
    return found | changes


def with_part(version: int = 8, **changes: Any) -> dict[str, Any]:
    """The same with a component changed; ... takes a field away."""
    found = spec(version)
    for name, value in changes.items():
        if value is ...:
            del found["compose"][0][name]
        else:
            found["compose"][0][name] = value
    return found


TIERED = {
    "tiered": True, "cpubasic": 1, "cpusuper": 2, "cpubamf": 3, "rambasic": 1000, "ramsuper": 2000, "rambamf": 3000,
    "hddbasic": 10, "hddsuper": 20, "hddbamf": 30,
}  # fmt: skip
