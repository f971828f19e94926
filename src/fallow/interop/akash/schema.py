"""The form of an SDL file, as Akash's console accepts it: fields, types, ranges. What refers to what is in
`strict.py`."""

from __future__ import annotations

import re
from typing import Any, cast

from fallow.interop.model import shown
from fallow.interop.shape import (
    Rule,
    Trouble,
    anything,
    choice,
    is_number,
    listed,
    mapping,
    passes,
    text,
    whole,
    yes_no,
)

MAX_BODY_BYTES = 104_857_600
MAX_TIMEOUT_MS = 60_000
NEXT_CASES = ("error", "timeout", "500", "502", "503", "504", "403", "404", "429", "off")

CPU_UNITS = re.compile(r"[0-9]+(\.[0-9]+)?[a-zA-Z]*")
CPU_ZERO = re.compile(r"0+(\.0+)?m?")
PRICE = re.compile(r"[0-9]+(\.[0-9]+)?")
ENDPOINT_NAME = re.compile(r"[a-z]+[-_0-9a-z]+")

TEXTS = listed(text())
TEXTS_OR_NOTHING = listed(text(), nothing=True)
PORT = whole(1, 65535)
OBJECT = mapping({}, more=anything)


def _cpu_units(value: Any) -> bool:
    if isinstance(value, str):
        return CPU_UNITS.fullmatch(value) is not None and CPU_ZERO.fullmatch(value) is None
    return is_number(value) and value > 0


def _amount(value: Any) -> bool:
    return PRICE.fullmatch(value) is not None if isinstance(value, str) else is_number(value) and value >= 0


def _next_cases(value: Any, troubles: list[Trouble]) -> None:
    listed(choice(*NEXT_CASES))(value, troubles)
    if isinstance(value, list) and "off" in value and len(cast("list[Any]", value)) > 1:
        troubles.append(Trouble("off together with other cases", "off alone, or other cases"))


def _ip_is_global(value: Any, troubles: list[Trouble]) -> None:
    if isinstance(value.get("ip"), str) and value["ip"] and value.get("global") is not True:
        troubles.append(Trouble("an ip for what is not global", "global: true beside ip"))


def _ram_is_not_persistent(value: Any, troubles: list[Trouble]) -> None:
    if value.get("class") == "ram" and value.get("persistent") in (True, "true"):
        troubles.append(Trouble("persistent memory", "class ram without persistent"))


def _password(value: Any, troubles: list[Trouble]) -> None:
    """Says nothing of what stands there."""
    if not isinstance(value, str) or len(value) < 6:
        met = f"a password of {len(value)} letters" if isinstance(value, str) else "no text"
        troubles.append(Trouble(met, "a password of 6 letters or more"))


def _some_vendor(value: Any, troubles: list[Trouble]) -> None:
    if not value:
        troubles.append(Trouble("no vendor", "vendor: with nvidia below it"))


def _storage(value: Any, troubles: list[Trouble]) -> None:
    if isinstance(value, dict):
        VOLUME(value, troubles)
    else:
        VOLUMES(value, troubles)


def _endpoints(value: Any, troubles: list[Trouble]) -> None:
    if not isinstance(value, dict):
        troubles.append(Trouble(shown(value), "a mapping"))
        return
    for name, one in cast("dict[str, Any]", value).items():
        if not ENDPOINT_NAME.fullmatch(name):
            accepted = "a name of two or more small letters, digits, - and _ that begins with a letter"
            troubles.append(Trouble("not a name for an endpoint", accepted, name))
            continue
        before = len(troubles)
        ENDPOINT(one, troubles)
        for trouble in troubles[before:]:
            trouble.steps.append(name)


ENDPOINT = mapping({"kind": choice("ip")}, required=("kind",))
VOLUME = mapping(
    {
        "size": text("a size, as 512Mi"),
        "name": text(),
        "attributes": mapping(
            {"class": text(), "persistent": passes(lambda it: isinstance(it, (bool, str)), "true or false")},
            also=_ram_is_not_persistent,
        ),
    },
    required=("size",),
)
VOLUMES = listed(VOLUME)
GPU_MODEL = mapping({"model": text(), "ram": text("a size, as 80Gi"), "interface": choice("pcie", "sxm")})
GPU = mapping(
    {
        "units": passes(lambda it: isinstance(it, str) or is_number(it), "a number of GPUs"),
        "attributes": mapping({"vendor": mapping({"nvidia": listed(GPU_MODEL, nothing=True)}, also=_some_vendor)}),
    },
    required=("units",),
)
COMPUTE = mapping(
    {
        "resources": mapping(
            {
                "cpu": mapping(
                    {"units": passes(_cpu_units, "a number of CPUs above 0, as 0.5 or 500m"), "attributes": OBJECT},
                    required=("units",),
                ),
                "gpu": GPU,
                "memory": mapping({"size": text("a size, as 512Mi")}, required=("size",)),
                "storage": _storage,
            },
            required=("cpu", "memory", "storage"),
        )
    },
    required=("resources",),
)
COIN = mapping(
    {
        "denom": text("uakt, uact or ibc/…", pattern="(?:uakt|uact|ibc/.*)"),
        "amount": passes(_amount, "an amount of at least 0"),
    },
    required=("denom", "amount"),
)
PLACEMENT = mapping(
    {
        "attributes": OBJECT,
        "pricing": mapping({}, more=COIN),
        "signedBy": mapping({"allOf": TEXTS, "anyOf": TEXTS}),
    },
    required=("pricing",),
)
HTTP_OPTIONS = mapping(
    {
        "max_body_size": whole(0, MAX_BODY_BYTES),
        "next_cases": _next_cases,
        "next_timeout": whole(0),
        "next_tries": whole(0),
        "read_timeout": whole(0, MAX_TIMEOUT_MS),
        "send_timeout": whole(0, MAX_TIMEOUT_MS),
    }
)
EXPOSE = mapping(
    {
        "port": PORT,
        "as": PORT,
        "proto": choice("TCP", "UDP", "tcp", "udp"),
        "to": listed(mapping({"global": yes_no, "ip": text("a name", least=1), "service": text()}, also=_ip_is_global)),
        "accept": TEXTS,
        "http_options": HTTP_OPTIONS,
    },
    required=("port",),
)
CREDENTIALS = mapping(
    {
        "host": text("a host", least=1),
        "username": text("a name", least=1),
        "password": _password,
        "email": text("an address of 5 letters or more", least=5),
    },
    required=("host", "username", "password"),
)
MOUNT = mapping({"mount": text("a path that begins with /", pattern="(?s:/.*)"), "readOnly": yes_no})
SERVICE = mapping(
    {
        "image": text("an image, as nginx:1.27", least=1),
        "command": TEXTS_OR_NOTHING,
        "args": TEXTS_OR_NOTHING,
        "env": TEXTS_OR_NOTHING,
        "expose": listed(EXPOSE),
        "params": mapping(
            {
                "storage": mapping({}, more=MOUNT),
                "permissions": mapping({"read": listed(choice("deployment", "logs"))}),
            }
        ),
        "credentials": CREDENTIALS,
        "dependencies": listed(mapping({"service": text()})),
    },
    required=("image",),
)
SDL: Rule = mapping(
    {
        "version": choice("2.0", "2.1"),
        "services": mapping({}, more=SERVICE),
        "profiles": mapping(
            {"compute": mapping({}, more=COMPUTE), "placement": mapping({}, more=PLACEMENT)},
            required=("compute", "placement"),
        ),
        "deployment": mapping(
            {},
            more=mapping({}, more=mapping({"profile": text(), "count": whole(1)}, required=("profile", "count"))),
        ),
        "endpoints": _endpoints,
        "include": TEXTS,
    },
    required=("version", "services", "profiles", "deployment"),
)
