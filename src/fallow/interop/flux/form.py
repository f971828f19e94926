"""The form of a Flux specification, as Flux's nodes accept it: fields, types, limits, and what all components have in
all."""

from __future__ import annotations

from typing import Any, cast

from fallow.interop.model import shown
from fallow.interop.shape import Rule, Trouble, anything, is_number, listed, mapping, passes, text, yes_no
from fallow.interop.tree import FieldMap, js_number

BANNED_RANGES = (range(16100, 16300), range(26100, 26300), range(30000, 30100))
BANNED_PORTS = {8384, 27017, 22, 23, 25, 3389, 5900, 5800, 161, 512, 513, 5901, 3388, 4444, 123, 53}.union(
    *BANNED_RANGES
)
MAX_PORTS, MAX_LINES, MAX_COMPONENTS, MAX_INSTANCES, MAX_NODES = 5, 20, 10, 100, 120
MAX_EXPIRE_BLOCKS = 1_056_000
MAX_SEALED = 15_000
"""Letters of secrets and of access to a registry, which come encrypted."""
DECIMALS = 8
TIERS = ("basic", "super", "bamf")
MOST = {
    "": {"cpu": 15.0, "ram": 59_000, "hdd": 820},
    "basic": {"cpu": 3.0, "ram": 5_000, "hdd": 160},
    "super": {"cpu": 7.0, "ram": 28_000, "hdd": 380},
    "bamf": {"cpu": 15.0, "ram": 59_000, "hdd": 820},
}
"""What one node of a tier has for applications: cores, MB, GB."""


def check(spec: Any, troubles: list[Trouble]) -> None:
    """Everything at once: the form, and if that is right, names, ports and totals."""
    version = spec.get("version") if isinstance(spec, dict) else None
    if type(version) is not int or version not in FORMS:
        accepted = "a mapping with version 7 or 8" if not isinstance(spec, dict) else "version 7 or 8"
        troubles.append(Trouble(shown(version), accepted, "version"))
        return
    FORMS[version](spec, troubles)
    if not troubles:
        _whole(spec, troubles)


def decimals(value: float, most: int) -> bool:
    """Whether a number is written with at most so many decimals, as JavaScript writes it."""
    return len(js_number(value).partition(".")[2]) <= most


def length(value: Any) -> int | None:
    """JavaScript's `length`: None for what has none and still passes. Callers have seen to null."""
    if isinstance(value, str):
        return len(value.encode("utf-16-le", "surrogatepass")) // 2
    return len(cast("list[Any]", value)) if isinstance(value, list) else None


def _up_to(most: int, *, least: int = 0) -> Rule:
    """What has a length is within it; nothing else is looked at but that it is there."""
    accepted = f"a text of {least} to {most} letters"
    return passes(lambda it: it is not None and ((size := length(it)) is None or least <= size <= most), accepted)


def _named(most: int, pattern: str, accepted: str) -> Rule:
    rule = text(accepted, least=1, pattern=pattern)

    def look(value: Any, troubles: list[Trouble]) -> None:
        rule(value, troubles)
        if isinstance(value, str) and (len(value) > most or value.startswith(("zel", "flux"))):
            troubles.append(Trouble(shown(value), f"up to {most} letters that do not begin with zel or flux"))

    return look


def _lines(most: int, letters: int) -> Rule:
    rule = listed(passes(lambda it: isinstance(it, str) and (length(it) or 0) <= letters, f"up to {letters} letters"))

    def look(value: Any, troubles: list[Trouble]) -> None:
        rule(value, troubles)
        if isinstance(value, list) and len(cast("list[Any]", value)) > most:
            troubles.append(Trouble(f"{len(cast('list[Any]', value))} of them", f"up to {most}"))

    return look


def _count(least: int, most: int) -> Rule:
    return passes(lambda it: type(it) is int and least <= it <= most, f"a whole number from {least} to {most}")


AMOUNT = passes(lambda it: is_number(it) and decimals(it, DECIMALS), f"a number with up to {DECIMALS} decimals")
PORTS = listed(
    passes(lambda it: type(it) is int and 1 <= it <= 65535 and it not in BANNED_PORTS, "a port that Flux allows")
)
CONTAINER_PORTS = listed(passes(lambda it: type(it) is int and 0 <= it <= 65535, "a port from 0 to 65535"))
PLAIN_NAME, PLAIN_WORDS = "[a-zA-Z0-9]+", "letters and digits"
DOMAINS = _lines(10**6, 253)


def _some(value: Any, troubles: list[Trouble]) -> None:
    text("a text that is not empty", least=1)(value, troubles)


def _described(value: Any, troubles: list[Trouble]) -> None:
    text()(value, troubles)
    if isinstance(value, str) and (length(value) or 0) > 256:
        troubles.append(Trouble(f"{length(value)} letters", "up to 256 letters"))


def _top_described(value: Any, troubles: list[Trouble]) -> None:
    _some(value, troubles)
    if value:
        _described(value, troubles)


def _component(version: int) -> Rule:
    fields: dict[str, Rule] = {
        "name": _named(63 if version >= 8 else 32, PLAIN_NAME, PLAIN_WORDS),
        "description": _described,
        "repotag": _up_to(200),
        "ports": PORTS,
        "containerPorts": CONTAINER_PORTS,
        "environmentParameters": _lines(MAX_LINES, 400),
        "commands": _lines(MAX_LINES, 400),
        "containerData": _up_to(200, least=2),
        "domains": DOMAINS,
        "repoauth": text(),
        **dict.fromkeys(("cpu", "ram", "hdd"), AMOUNT),
    }
    required = tuple(fields)
    if version < 8:
        fields |= {"tiered": yes_no, "secrets": text()}
        required += ("tiered", "secrets")
        fields |= {part + tier: anything for part in ("cpu", "ram", "hdd") for tier in TIERS}
    return mapping(fields, required=required, also=_component_whole)


def _component_whole(part: FieldMap, troubles: list[Trouble]) -> None:
    ports = part.get("ports")
    if isinstance(ports, list):
        for name in ("containerPorts", "domains"):
            other = part.get(name)
            if isinstance(other, list) and len(cast("list[Any]", other)) != len(cast("list[Any]", ports)):
                troubles.append(Trouble("not as many as ports", "one for each port", name))
        if len(cast("list[Any]", ports)) > MAX_PORTS:
            troubles.append(Trouble("too many ports", f"up to {MAX_PORTS}", "ports"))
    if part.get("tiered") is True:
        for name in (it + tier for it in ("cpu", "ram", "hdd") for tier in TIERS):
            before = len(troubles)
            AMOUNT(part.get(name), troubles)
            for trouble in troubles[before:]:
                trouble.steps.append(name)


def _composed(version: int) -> Rule:
    rule = listed(_component(version))

    def look(value: Any, troubles: list[Trouble]) -> None:
        rule(value, troubles)
        if isinstance(value, list) and not 1 <= len(cast("list[Any]", value)) <= MAX_COMPONENTS:
            troubles.append(Trouble(f"{len(cast('list[Any]', value))} components", f"1 to {MAX_COMPONENTS} components"))

    return look


def _form(version: int) -> Rule:
    hyphens = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
    name = (
        _named(63, hyphens, "letters, digits and inner hyphens")
        if version >= 8
        else _named(32, PLAIN_NAME, PLAIN_WORDS)
    )
    fields: dict[str, Rule] = {
        "version": anything,
        "name": name,
        "description": _top_described,
        "owner": _some,
        "compose": _composed(version),
        "instances": _count(1 if version >= 8 else 3, MAX_INSTANCES),
        "contacts": _lines(5, 75),
        "geolocation": _lines(10, 50),
        "expire": _count(1, MAX_EXPIRE_BLOCKS),
        "nodes": _lines(MAX_NODES, 70),
        "staticip": yes_no,
    }
    required = tuple(fields)
    if version >= 8:
        fields |= {
            "datacenter": passes(lambda it: it is False, "false, except for owners that Flux knows"),
            "enterprise": passes(lambda it: it is not None, "an encrypted text, or an empty one"),
        }
        required += ("enterprise",)
    return mapping(fields, required=required)


FORMS = {version: _form(version) for version in (7, 8)}


# across components ----------------------------------------------------------------------------------------------------


def is_enterprise(spec: FieldMap) -> bool:
    """Whether nodes are chosen by name; what JavaScript takes for true."""
    if spec["version"] < 8:
        return bool(spec["nodes"])
    sealed = spec["enterprise"]
    return bool(sealed) or isinstance(sealed, (list, dict))


def _whole(spec: FieldMap, troubles: list[Trouble]) -> None:
    parts: list[FieldMap] = spec["compose"]
    enterprise = is_enterprise(spec)
    if spec["name"].lower() == "watchtower":
        troubles.append(Trouble("a name of Flux's own", "another name", "name"))
    if spec["version"] >= 8 and spec["nodes"] and not enterprise:
        troubles.append(Trouble("nodes", "nodes for enterprise applications only", "nodes"))
    names = [part["name"] for part in parts]
    ports = [port for part in parts for port in part["ports"]]
    for place, part in enumerate(parts):
        if part["name"] in names[:place]:
            troubles.append(Trouble("a name that another component has", "a name of its own", "compose", place, "name"))
        for field in ("repoauth", "secrets"):
            if len(part.get(field, "")) > (MAX_SEALED if enterprise else 0):
                most = f"up to {MAX_SEALED} letters" if enterprise else "nothing, except for enterprise applications"
                troubles.append(Trouble("something sealed", most, "compose", place, field))
    if len(ports) != len(set(ports)):
        troubles.append(Trouble("a port twice", "each port once in all components", "compose"))
    _totals(parts, troubles)


def _totals(parts: list[FieldMap], troubles: list[Trouble]) -> None:
    tiered = any(part.get("tiered") is True for part in parts)
    for tier in TIERS if tiered else ("",):
        for part, most in MOST[tier].items():
            factor = 10 if part == "cpu" else 1
            total = 0.0
            for component in parts:
                total += (component.get(part + tier) or component[part]) * factor
            if total > most * factor:
                what = f"{js_number(total / factor)} of {part}{' on a node of tier ' + tier if tier else ''} in all"
                troubles.append(Trouble(what, f"up to {js_number(most)}", "compose"))
