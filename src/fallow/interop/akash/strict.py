"""The strict reader: what refers to what in an SDL file, and the manifest, as chain-sdk's TypeScript library has them
(`ts/src/sdl/validateSDL/validateSDL.ts`, `ts/src/sdl/manifest/`, npm 1.0.0-alpha.25)."""

from __future__ import annotations

from typing import Any, cast

from fallow.interop.akash.collate import collation_key
from fallow.interop.akash.schema import SDL
from fallow.interop.akash.sizes import cpu_text, gpu_text, size_text
from fallow.interop.model import FileRefused
from fallow.interop.shape import Trouble, problems_of
from fallow.interop.tree import FieldMap, Node, js_word, to_data

USDC = "ibc/170C677610AC31DF0904FFE09CD3B5C657492170E7E52372E48756B71E56F2F1"
"""The only ibc/ denomination that Akash's main network takes."""
DEFAULT_BODY_BYTES, DEFAULT_TIMEOUT_MS, DEFAULT_TRIES = 1_048_576, 60_000, 3
SHARED_HTTP, RANDOM_PORT, LEASED_IP = 0, 1, 2
"""Kinds of endpoints; the first is left out of JSON."""


def manifest(root: Node | None) -> tuple[FieldMap, list[FieldMap]]:
    """-> the file as data, and its manifest. Raises FileRefused with everything that is wrong."""
    sdl: Any = to_data(root) if root is not None else None
    troubles: list[Trouble] = []
    SDL(sdl, troubles)
    if not troubles:
        _Relations(sdl, troubles).check()
    if not troubles:
        groups = _Builder(sdl, troubles).groups()
        if not troubles:
            return sdl, groups
    raise FileRefused(*problems_of(troubles, root))


# what refers to what --------------------------------------------------------------------------------------------------


class _Relations:
    """Names that must exist, mounts and ports that must be free."""

    def __init__(self, sdl: FieldMap, troubles: list[Trouble]) -> None:
        self.sdl, self.troubles = sdl, troubles
        self.compute: FieldMap = sdl["profiles"]["compute"]
        self.placements: FieldMap = sdl["profiles"]["placement"]
        self.endpoints: FieldMap = sdl.get("endpoints") or {}
        self.used: set[str] = set()
        self.ports: dict[tuple[str, Any, str], str] = {}

    def trouble(self, met: str, accepted: str, *path: str | int) -> None:
        self.troubles.append(Trouble(met, accepted, *path))

    def check(self) -> None:
        for name, service in self.sdl["services"].items():
            deployment = self.sdl["deployment"].get(name)
            if deployment is None:
                self.trouble(f"service {name} is not in it", f"deployment.{name} with a placement", "deployment")
            else:
                for placement, terms in deployment.items():
                    self._placed(name, service, placement, terms)
            self._leased_ips(name, service)
        self._denominations()
        for name in self.endpoints:
            if name not in self.used:
                self.trouble(
                    "an endpoint that nothing uses", "an expose with this ip, or no endpoint", "endpoints", name
                )

    def _placed(self, name: str, service: FieldMap, placement: str, terms: FieldMap) -> None:
        profile, where = terms["profile"], ("deployment", name, placement)
        found, compute = self.placements.get(placement), self.compute.get(profile)
        if found is None:
            self.trouble("no such placement", _names(self.placements, "profiles.placement"), *where)
        elif profile not in found["pricing"]:
            at = ("profiles", "placement", placement, "pricing")
            self.trouble(f"no price for {profile}", f"a price for {profile}, as a service runs in it here", *at)
        if compute is None:
            self.trouble(f"no such profile: {profile}", _names(self.compute, "profiles.compute"), *where, "profile")
            return
        resources = compute["resources"]
        volumes = resources["storage"] if isinstance(resources["storage"], list) else [resources["storage"]]
        self._mounts(name, service, volumes)
        self._persistent(name, service, volumes)
        if "gpu" in resources:
            self._gpu(resources["gpu"], ("profiles", "compute", profile, "resources", "gpu"))

    def _mounts(self, name: str, service: FieldMap, volumes: list[FieldMap]) -> None:
        taken: dict[str, str] = {}
        names = {volume["name"] for volume in volumes if "name" in volume}
        for volume, options in service.get("params", {}).get("storage", {}).items():
            at = ("services", name, "params", "storage", volume)
            if volume not in names:
                self.trouble("no volume of this name", _names(names, "the profile's storage"), *at)
                continue
            mount = options.get("mount", "")
            if mount in taken:
                self.trouble(f"mounted where {taken[mount]} is", "a mount of its own", *at)
            taken[mount] = volume

    def _persistent(self, name: str, service: FieldMap, volumes: list[FieldMap]) -> None:
        mounts = service.get("params", {}).get("storage", {})
        for volume in volumes:
            value = volume.get("attributes", {}).get("persistent") or False
            if isinstance(value, str):
                value = value.lower() not in ("false", "no", "0", "")
            called = volume.get("name", "")
            if value and not mounts.get(called, {}).get("mount"):
                at = ("services", name, "params", "storage", called or "default")
                self.trouble("a persistent volume that is mounted nowhere", "a mount for it", *at)

    def _gpu(self, gpu: FieldMap, at: tuple[str, ...]) -> None:
        wanted, described = gpu["units"] != 0, "attributes" in gpu
        if described and not wanted:
            self.trouble("attributes for 0 GPUs", "units above 0, or no attributes", *at, "attributes")
        if wanted and not (described and "vendor" in gpu["attributes"]):
            self.trouble("GPUs of no vendor", "attributes: vendor: nvidia:", *at)

    def _leased_ips(self, name: str, service: FieldMap) -> None:
        for place, expose in enumerate(service.get("expose", ())):
            protocol = (expose.get("proto") or "TCP").upper()
            for index, to in enumerate(expose.get("to", ())):
                address = to.get("ip")
                if not address:
                    continue
                at = ("services", name, "expose", place, "to", index, "ip")
                if address not in self.endpoints:
                    self.trouble(f"no endpoint {address}", _names(self.endpoints, "endpoints"), *at)
                self.used.add(address)
                key = (address, expose.get("as", expose["port"]), protocol)
                if key in self.ports:
                    met = f"port {key[1]} {protocol} of {address}, which {self.ports[key]} has"
                    self.trouble(met, "a port that is free there", *at)
                self.ports[key] = name

    def _denominations(self) -> None:
        for placement, found in self.placements.items():
            for profile, price in found["pricing"].items():
                if price["denom"].startswith("ibc/") and price["denom"] != USDC:
                    at = ("profiles", "placement", placement, "pricing", profile, "denom")
                    self.trouble(price["denom"], f"uakt, uact or {USDC}", *at)


def _names(names: Any, where: str) -> str:
    known = ", ".join(sorted(names)[:20])
    return f"one of {where}: {known}" if known else f"one of {where}, which has none"


# the manifest ---------------------------------------------------------------------------------------------------------


class _Builder:
    """Groups with services, for a file whose names all lead somewhere."""

    def __init__(self, sdl: FieldMap, troubles: list[Trouble]) -> None:
        self.sdl, self.troubles = sdl, troubles
        self.services: FieldMap = sdl["services"]
        self.sequence = _sequence_numbers(self.services)
        self.resources: dict[str, FieldMap] = {}

    def groups(self) -> list[FieldMap]:
        """Sorted by name; services in a group likewise. Services that share a profile in a group share its resources'
        number."""
        numbers: dict[str, dict[str, int]] = {}
        members: dict[str, list[tuple[str, FieldMap, int]]] = {}
        for name in sorted(self.services, key=collation_key):
            for placement, terms in self.sdl["deployment"][name].items():
                known = numbers.setdefault(placement, {})
                number = known.setdefault(terms["profile"], len(known) + 1)
                members.setdefault(placement, []).append((name, terms, number))
        self._strangers(members)
        return [
            {"name": placement, "services": [self._service(*member) for member in members[placement]]}
            for placement in sorted(members, key=utf16)
        ]

    def _strangers(self, members: dict[str, Any]) -> None:
        """Deployments of services that the file does not have."""
        for name, deployment in self.sdl["deployment"].items():
            if name not in self.services and any(placement in members for placement in deployment):
                self.troubles.append(Trouble("no such service", _names(self.services, "services"), "deployment", name))

    def _service(self, name: str, terms: FieldMap, number: int) -> FieldMap:
        service = self.services[name]
        exposed = service.get("expose", ())
        resources = dict(self._resources(terms["profile"]))
        resources["id"] = number
        resources["endpoints"] = self._endpoints(exposed)
        result: FieldMap = {
            "name": name,
            "image": service["image"],
            "command": service.get("command") or None,
            "args": service.get("args") or None,
            "env": service.get("env") or None,
            "count": terms["count"],
            "resources": resources,
            "expose": self._expose(exposed),
            "credentials": _credentials(service.get("credentials")),
        }
        if "params" in service:
            result["params"] = _params(service["params"])
        return result

    def _expose(self, exposed: list[FieldMap]) -> list[FieldMap]:
        rows = [self._exposed_to(expose, to) for expose in exposed for to in expose.get("to", ())]
        if len(rows) > 1:
            rows.sort(key=lambda row: (collation_key(row["service"]), row["port"], row["proto"], not row["global"]))
        return rows

    def _exposed_to(self, expose: FieldMap, to: FieldMap) -> FieldMap:
        options = expose.get("http_options", {})
        return {
            "port": expose["port"],
            "externalPort": expose.get("as", 0),
            "proto": (expose.get("proto") or "TCP").upper(),
            "service": to.get("service", ""),
            "global": to.get("global", False),
            "hosts": expose.get("accept") or None,
            "ip": to.get("ip", ""),
            "endpointSequenceNumber": self.sequence.get(to.get("ip", ""), 0),
            "httpOptions": {
                "maxBodySize": options.get("max_body_size", DEFAULT_BODY_BYTES),
                "readTimeout": options.get("read_timeout", DEFAULT_TIMEOUT_MS),
                "sendTimeout": options.get("send_timeout", DEFAULT_TIMEOUT_MS),
                "nextTries": options.get("next_tries", DEFAULT_TRIES),
                "nextTimeout": options.get("next_timeout", 0),
                "nextCases": options.get("next_cases", ["error", "timeout"]),
            },
        }

    def _endpoints(self, exposed: list[FieldMap]) -> list[FieldMap]:
        found: list[FieldMap] = []
        for expose in exposed:
            tcp = (expose.get("proto") or "TCP").upper() == "TCP"
            web = tcp and (expose.get("as", 0) or expose["port"]) == 80
            for to in expose.get("to", ()):
                if to.get("global"):
                    found.append(endpoint(SHARED_HTTP if web else RANDOM_PORT, 0))
                    if to.get("ip"):
                        found.append(endpoint(LEASED_IP, self.sequence[to["ip"]]))
        return found

    def _resources(self, profile: str) -> FieldMap:
        """What a profile asks for; worked out once."""
        if profile not in self.resources:
            self.resources[profile] = self._measured(profile)
        return self.resources[profile]

    def _measured(self, profile: str) -> FieldMap:
        wanted, at = (
            self.sdl["profiles"]["compute"][profile]["resources"],
            ("profiles", "compute", profile, "resources"),
        )
        cpu: FieldMap = {"units": {"val": self._known(cpu_text(wanted["cpu"]["units"]), *at, "cpu", "units")}}
        if attributes := wanted["cpu"].get("attributes"):
            cpu["attributes"] = [pair(key, js_word(attributes[key])) for key in sorted(attributes, key=collation_key)]
        gpu: FieldMap = {"units": {"val": "0"}}
        if "gpu" in wanted:
            gpu["units"]["val"] = self._known(gpu_text(wanted["gpu"]["units"]), *at, "gpu", "units")
            if models := _gpu_models(wanted["gpu"]):
                gpu["attributes"] = models
        memory = self._known(size_text(wanted["memory"]["size"]), *at, "memory", "size")
        one = not isinstance(wanted["storage"], list)
        volumes = cast("list[FieldMap]", [wanted["storage"]] if one else wanted["storage"])
        storage = [
            self._volume(volume, (*at, "storage") if one else (*at, "storage", place))
            for place, volume in enumerate(volumes)
        ]
        return {"cpu": cpu, "gpu": gpu, "memory": {"size": {"val": memory}}, "storage": storage}

    def _volume(self, volume: FieldMap, at: tuple[str | int, ...]) -> FieldMap:
        result: FieldMap = {
            "name": volume.get("name") or "default",
            "size": {"val": self._known(size_text(volume["size"]), *at, "size")},
        }
        if attributes := volume.get("attributes"):
            pairs = {key: js_word(value) for key, value in attributes.items()}
            if pairs.get("class") == "ram":
                pairs.setdefault("persistent", "false")
            result["attributes"] = [pair(key, pairs[key]) for key in sorted(pairs)]
        return result

    def _known(self, value: str | None, *at: str | int) -> str:
        if value is None:
            self.troubles.append(Trouble("not an amount", "a number with a unit, as 512Mi", *at))
        return value or ""


def _credentials(found: FieldMap | None) -> FieldMap | None:
    if found is None:
        return None
    return {name: found.get(name, "") for name in ("host", "email", "username", "password")}


def _params(found: FieldMap) -> FieldMap:
    storage = found.get("storage", {})
    result: FieldMap = {
        "storage": [
            {"name": name, "mount": storage[name].get("mount", ""), "readOnly": storage[name].get("readOnly", False)}
            for name in sorted(storage, key=utf16)
        ]
    }
    if "permissions" in found:
        result["permissions"] = found["permissions"]
    return result


def _gpu_models(gpu: FieldMap) -> list[FieldMap]:
    vendors = gpu.get("attributes", {}).get("vendor", {})
    found: list[FieldMap] = []
    for vendor in sorted(vendors, key=collation_key):
        if vendors[vendor] is None:
            found.append(pair(f"vendor/{vendor}/model/*", "true"))
            continue
        for model in vendors[vendor]:
            key = f"vendor/{vendor}/model/{model.get('model', 'undefined')}"
            key += f"/ram/{model['ram']}" if model.get("ram") else ""
            key += f"/interface/{model['interface']}" if model.get("interface") else ""
            found.append(pair(key, "true"))
    return found


def _sequence_numbers(services: FieldMap) -> dict[str, int]:
    """Leased addresses in the order of their names; one that is used twice has its last place."""
    used = sorted(
        (
            to["ip"]
            for service in services.values()
            for expose in service.get("expose", ())
            for to in expose.get("to", ())
            if to.get("global") and to.get("ip")
        ),
        key=utf16,
    )
    return {name: place for place, name in enumerate(used, 1)}


def pair(key: str, value: str) -> FieldMap:
    """An attribute."""
    return {"key": key, "value": value}


def endpoint(kind: int, number: int) -> FieldMap:
    """An endpoint, without its kind where that is the first."""
    return {"kind": kind, "sequence_number": number} if kind else {"sequence_number": number}


def utf16(name: str) -> bytes:
    """JavaScript's own order of texts."""
    return name.encode("utf-16-be", "surrogatepass")
