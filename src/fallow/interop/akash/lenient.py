"""The lenient reader: the file, its rules and its manifest as the Go parser of Akash's chain and providers has them
(chain-sdk `go/sdl/`, `go/manifest/v2beta3/`, `go/node/deployment/v1beta4/` of 2026-07-02)."""

from __future__ import annotations

import re
from typing import Any

from fallow.interop.akash import decode as go
from fallow.interop.akash.decode import Decoder
from fallow.interop.akash.lenient_rules import GoRules
from fallow.interop.akash.quantities import bytes_of, cpu_of, gpu_of, ram_key
from fallow.interop.akash.strict import LEASED_IP, RANDOM_PORT, SHARED_HTTP, endpoint, pair
from fallow.interop.model import FileRefused
from fallow.interop.shape import Trouble, problems_of
from fallow.interop.tree import FieldMap, Node, Sequence

DEFAULT_BODY_BYTES, DEFAULT_TIMEOUT_MS, DEFAULT_TRIES = 1_048_576, 60_000, 3
VERSION = re.compile(r"\s*v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?\s*")
TRUE_WORDS, FALSE_WORDS = ("true", "on", "yes"), ("false", "off", "no")
CLASSES = ("default", "beta1", "beta2", "beta3", "ram")


def manifest(root: Node | None) -> tuple[FieldMap, list[FieldMap], list[Trouble]]:
    """-> the file as data, its manifest, and fields that were overlooked. Raises FileRefused with everything that is
    wrong."""
    troubles: list[Trouble] = []
    sdl: FieldMap = SDL(root, troubles)
    merged = _merges(sdl["version"], troubles)
    overlooked = [trouble for trouble in troubles if trouble.harmless]
    troubles = [trouble for trouble in troubles if not trouble.harmless]
    if not troubles:
        rules = GoRules(sdl, troubles, merged=merged)
        rules.references()
        if not troubles:
            groups = _Builder(sdl, merged=merged).groups()
            rules.groups(groups)
            if not troubles:
                return sdl, groups, overlooked
    raise FileRefused(*problems_of(troubles, root))


def _merges(version: str, troubles: list[Trouble]) -> bool:
    """Whether services share resources: from 2.1 on."""
    match = VERSION.fullmatch(version)
    number = tuple(int(part or 0) for part in match.groups()) if match else ()
    if number == (2, 0, 0):
        return False
    if number < (2, 1, 0):
        troubles.append(Trouble(version or "no version", "2.0 or 2.1", "version"))
    return True


# fields ---------------------------------------------------------------------------------------------------------------


def _storage(node: Node | None, troubles: list[Trouble]) -> list[FieldMap]:
    """One volume, which is called default, or a list; in the order in which the chain sorts them."""
    if type(node) is not Sequence:
        volumes = [] if go.is_nothing(node) else [VOLUME(node, troubles) | {"name": "default"}]
    else:
        volumes = go.listed(VOLUME)(node, troubles) or []
    names: set[str] = set()
    for volume in volumes:
        volume["name"] = volume["name"] or "default"
        if volume["name"] in names:
            troubles.append(Trouble(f"two volumes called {volume['name']}", "names that differ"))
        names.add(volume["name"])
    return _insertion_sorted(volumes)


def _insertion_sorted(volumes: list[FieldMap]) -> list[FieldMap]:
    """Go's stable sort by a comparison that is no order: equal volumes without persistence change places."""
    result: list[FieldMap] = []
    for volume in volumes:
        place = len(result)
        while place and _before(volume, result[place - 1]):
            place -= 1
        result.insert(place, volume)
    return result


def _before(one: FieldMap, other: FieldMap) -> bool:
    if one["size"] != other["size"]:
        return one["size"] < other["size"]
    mine, theirs = ((it["attributes"] or {}).get("persistent") for it in (one, other))
    if theirs is not None and (mine is None or mine < theirs):
        return True
    if mine is not None and theirs is None:
        return False
    if mine != "true":
        return True
    return theirs == "true" and one["name"] < other["name"]


def _volume_attributes(node: Node | None, troubles: list[Trouble]) -> FieldMap | None:
    if go.is_nothing(node):
        return None
    found: dict[str, str] = go.mapped(go.word)(node, troubles)
    persistent, medium = found.setdefault("persistent", "false"), found.get("class", "")
    if medium == "" and persistent == "true":
        found["class"] = "default"
    elif medium == "ram" and persistent != "false":
        troubles.append(Trouble("persistent memory", "class ram without persistent", "persistent"))
    elif medium not in ("", "ram") and persistent == "false":
        troubles.append(Trouble("a class for what is not persistent", "persistent: true beside class", "class"))
    for key in found:
        if key not in ("persistent", "class"):
            troubles.append(Trouble("an attribute that is not known", "persistent, class", key))
    if persistent not in (*TRUE_WORDS, *FALSE_WORDS):
        troubles.append(Trouble(persistent, "true or false", "persistent"))
    if found.get("class", "default") not in CLASSES:
        troubles.append(Trouble(medium or "nothing", ", ".join(CLASSES), "class"))
    found["persistent"] = "true" if persistent in TRUE_WORDS else "false"
    return found


def _gpu(node: Node | None, troubles: list[Trouble]) -> FieldMap | None:
    if go.is_nothing(node):
        return None
    found: FieldMap = go.struct({"units": gpu_of, "attributes": _gpu_attributes}, closed=True)(node, troubles)
    if found["units"] > 0 and not found["attributes"]:
        troubles.append(Trouble("GPUs of no vendor", "attributes: vendor: nvidia:", "attributes"))
    return found


def _gpu_attributes(node: Node | None, troubles: list[Trouble]) -> list[str]:
    """Keys, sorted; every model if none is named."""
    if go.is_nothing(node):
        return []
    found: FieldMap = go.struct({"vendor": go.optional(go.struct({"nvidia": go.listed(GPU_MODEL)}))}, closed=True)(
        node, troubles
    )
    if found["vendor"] is None:
        troubles.append(Trouble("GPUs of no vendor", "vendor: nvidia:"))
        return []
    keys = [
        f"vendor/nvidia/model/{model['model']}"
        + (f"/ram/{model['ram']}" if model["ram"] is not None else "")
        + (f"/interface/{model['interface']}" if model["interface"] is not None else "")
        for model in found["vendor"]["nvidia"] or ()
    ]
    return sorted(keys) or ["vendor/nvidia/model/*"]


def _interface(node: Node | None, troubles: list[Trouble]) -> str:
    value = go.word(node, troubles)
    if value not in ("pcie", "sxm"):
        troubles.append(Trouble(value or "nothing", "pcie or sxm"))
    return value


def _cpu(node: Node | None, troubles: list[Trouble]) -> FieldMap | None:
    if go.is_nothing(node):
        return None
    arch: Decoder = go.struct({"arch": go.optional(go.word)}, closed=True)
    return go.struct({"units": cpu_of, "attributes": arch})(node, troubles)


GPU_MODEL = go.struct({"model": go.word, "ram": go.optional(ram_key), "interface": go.optional(_interface)})
VOLUME = go.struct({"name": go.word, "size": bytes_of, "attributes": _volume_attributes})
COMPUTE = go.struct(
    {
        "resources": go.optional(
            go.struct(
                {"cpu": _cpu, "gpu": _gpu, "memory": go.optional(go.struct({"size": bytes_of})), "storage": _storage}
            )
        )
    }
)
TEXTS = go.listed(go.word)
PLACEMENT = go.struct(
    {
        "attributes": go.mapped(go.word),
        "signedBy": go.struct({"allOf": TEXTS, "anyOf": TEXTS}),
        "pricing": go.mapped(go.struct({"amount": go.word, "denom": go.word})),
    }
)
HTTP_OPTIONS = go.struct(
    {
        **dict.fromkeys(("max_body_size", "proxy_buffer_size", "read_timeout", "send_timeout"), go.count),
        **dict.fromkeys(("next_tries", "next_timeout"), go.count),
        "next_cases": TEXTS,
    }
)
EXPOSE = go.struct(
    {
        "port": go.count,
        "as": go.count,
        "proto": go.word,
        "to": go.listed(go.struct({"service": go.word, "global": go.flag, "ip": go.word})),
        "accept": TEXTS,
        "http_options": HTTP_OPTIONS,
    }
)
PARAMS = go.struct(
    {
        "storage": go.mapped(go.struct({"mount": go.word, "readOnly": go.flag})),
        "permissions": go.optional(go.struct({"read": TEXTS})),
        "tee": go.word,
    }
)
SERVICE = go.struct(
    {
        "image": go.word,
        "command": TEXTS,
        "args": TEXTS,
        "env": TEXTS,
        "expose": go.listed(EXPOSE),
        "dependencies": go.listed(go.struct({"service": go.word})),
        "params": go.optional(PARAMS),
        "credentials": go.optional(
            go.struct({"host": go.word, "email": go.word, "username": go.word, "password": go.word})
        ),
    }
)
SDL = go.struct(
    {
        "version": go.word,
        "include": TEXTS,
        "services": go.mapped(SERVICE),
        "profiles": go.struct({"compute": go.mapped(COMPUTE), "placement": go.mapped(PLACEMENT)}),
        "deployment": go.mapped(go.mapped(go.struct({"profile": go.word, "count": go.count}))),
        "endpoints": go.mapped(go.struct({"kind": go.word})),
        "reclamation": go.optional(go.struct({"min_window": go.word})),
    },
    closed=True,
)


# the manifest ---------------------------------------------------------------------------------------------------------


class _Builder:
    """Groups with services, for a file whose names all lead somewhere."""

    def __init__(self, sdl: FieldMap, *, merged: bool) -> None:
        self.sdl, self.merged = sdl, merged
        self.sequence = self._sequence_numbers()

    def _sequence_numbers(self) -> dict[str, int]:
        """Leased addresses in the order of their names. What is not global counts, too, and comes first."""
        used = sorted(
            to["ip"]
            for name in self.sdl["deployment"]
            for expose in self.sdl["services"][name]["expose"] or ()
            for to in expose["to"] or ()
            if not to["global"] or to["ip"]
        )
        return {name: place for place, name in enumerate(used, 1)}

    def groups(self) -> list[FieldMap]:
        members: dict[str, list[FieldMap]] = {}
        numbers: dict[tuple[str, str], int] = {}
        units: dict[str, int] = {}
        for name in sorted(self.sdl["deployment"]):
            for placement, terms in sorted(self.sdl["deployment"][name].items()):
                key = (placement, terms["profile"])
                if not self.merged or key not in numbers:
                    numbers[key] = units[placement] = units.get(placement, 0) + 1
                members.setdefault(placement, []).append(self._service(name, terms, numbers[key]))
        return [{"name": placement, "services": members[placement]} for placement in sorted(members)]

    def _service(self, name: str, terms: FieldMap, number: int) -> FieldMap:
        service = self.sdl["services"][name]
        exposed = self._expose(service["expose"] or ())
        result: FieldMap = {
            "name": name,
            "image": service["image"],
            "command": service["command"],
            "args": service["args"],
            "env": service["env"],
            "count": terms["count"],
            "resources": self._resources(terms["profile"]) | {"id": number, "endpoints": _endpoints(exposed)},
            "expose": exposed,
            "credentials": self._credentials(service["credentials"]),
        }
        if service["params"] is not None:
            result["params"] = _params(service["params"])
        return result

    def _credentials(self, found: FieldMap | None) -> FieldMap | None:
        """2.0 forgets the address."""
        if found is None or not self.merged:
            return found and found | {"email": ""}
        return {name: value.strip() for name, value in found.items()}

    def _expose(self, exposed: Any) -> list[FieldMap]:
        nowhere = [{"service": "", "global": False, "ip": ""}]
        rows = [self._exposed_to(expose, to) for expose in exposed for to in expose["to"] or nowhere]
        rows.sort(key=lambda row: (row["service"], row["port"], row["proto"], not row["global"]))
        return rows

    def _exposed_to(self, expose: FieldMap, to: FieldMap) -> FieldMap:
        options, leased = expose["http_options"], to["global"] and to["ip"]
        http: FieldMap = {
            "maxBodySize": options["max_body_size"] or DEFAULT_BODY_BYTES,
            "readTimeout": options["read_timeout"] or DEFAULT_TIMEOUT_MS,
            "sendTimeout": options["send_timeout"] or DEFAULT_TIMEOUT_MS,
            "nextTries": options["next_tries"] or DEFAULT_TRIES,
            "nextTimeout": options["next_timeout"],
            "nextCases": options["next_cases"] or ["error", "timeout"],
        }
        if options["proxy_buffer_size"]:
            http["proxyBufferSize"] = options["proxy_buffer_size"]
        return {
            "port": expose["port"],
            "externalPort": expose["as"],
            "proto": expose["proto"].upper() or "TCP",
            "service": to["service"],
            "global": to["global"],
            "hosts": expose["accept"],
            "ip": to["ip"],
            "endpointSequenceNumber": self.sequence[to["ip"]] if leased else 0,
            "httpOptions": http,
        }

    def _resources(self, profile: str) -> FieldMap:
        wanted = self.sdl["profiles"]["compute"][profile]["resources"]
        gpu: FieldMap = wanted["gpu"] or {"units": 0, "attributes": []}
        arch = wanted["cpu"]["attributes"]["arch"]
        return {
            "cpu": _quantity("units", wanted["cpu"]["units"], [] if arch is None else [pair("arch", arch)]),
            "gpu": _quantity("units", gpu["units"], [pair(key, "true") for key in gpu["attributes"]]),
            "memory": _quantity("size", wanted["memory"]["size"], []),
            "storage": [
                {"name": volume["name"]}
                | _quantity("size", volume["size"], [pair(*it) for it in sorted((volume["attributes"] or {}).items())])
                for volume in wanted["storage"]
            ],
        }


def _quantity(name: str, value: int, attributes: list[FieldMap]) -> FieldMap:
    result: FieldMap = {name: {"val": str(value)}}
    if attributes:
        result["attributes"] = attributes
    return result


def _endpoints(exposed: list[FieldMap]) -> list[FieldMap]:
    found: list[FieldMap] = []
    for row in exposed:
        if row["global"]:
            web = row["proto"] == "TCP" and (row["externalPort"] or row["port"]) == 80
            found.append(endpoint(SHARED_HTTP if web else RANDOM_PORT, 0))
            if row["ip"]:
                found.append(endpoint(LEASED_IP, row["endpointSequenceNumber"]))
    return found


def _params(found: FieldMap) -> FieldMap:
    storage = [
        {"name": name, "mount": it["mount"], "readOnly": it["readOnly"]}
        for name, it in sorted(found["storage"].items())
    ]
    result: FieldMap = {"storage": storage or None}
    if found["permissions"] is not None:
        result["permissions"] = {"read": found["permissions"]["read"]} if found["permissions"]["read"] else {}
    if found["tee"]:
        result["tee"] = {"type": found["tee"], "attestation": True}
    return result
