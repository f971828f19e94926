"""What the Go parser refuses of a file whose fields could be decoded: names that lead nowhere, amounts out of range."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from fallow.interop.shape import Trouble
from fallow.interop.tree import FieldMap

SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
ENV_NAME = re.compile(r"(?!\.$|\.\.)[-._a-zA-Z][-._a-zA-Z0-9]*")
HOST_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
ENDPOINT_NAME = re.compile(r"[a-z]+[-_0-9a-z]+")
ATTRIBUTE_KEY = re.compile(r"[a-zA-Z][0-9A-Za-z_/.\-]{1,126}[0-9A-Za-z_*]?")
DENOMINATION = re.compile(r"[a-zA-Z][a-zA-Z0-9/:._-]{2,127}")
AMOUNT = re.compile(r"[+-]?[0-9]{1,60}(\.[0-9]{1,18})?")
DURATION = re.compile(r"\+?([0-9]{1,12}(\.[0-9]{0,12})?(ns|us|µs|μs|ms|s|m|h))+")
NEXT_CASES = ("error", "timeout", "500", "502", "503", "504", "403", "404", "429", "off")

MI, TI = 2**20, 2**40
UNIT_CPU, UNIT_MEMORY, UNIT_VOLUME, UNIT_GPU = (10, 384_000), (MI, 2 * TI), (5 * MI, 32 * TI), (0, 24)
"""Least and most of one instance; CPU in thousandths."""
MOST_OF_A_GROUP = 50
"""Times the most of one instance."""
MAX_PRICE = 10_000_000
MAX_HOST_NAME = 253


class GoRules:
    """Looks at one file."""

    def __init__(self, sdl: FieldMap, troubles: list[Trouble], *, merged: bool) -> None:
        self.sdl, self.troubles, self.merged = sdl, troubles, merged
        self.services: FieldMap = sdl["services"]
        self.compute: FieldMap = sdl["profiles"]["compute"]
        self.placements: FieldMap = sdl["profiles"]["placement"]
        self.used: set[str] = set()
        self.ports: set[tuple[str, int, str]] = set()

    def trouble(self, met: str, accepted: str, *path: str | int) -> None:
        self.troubles.append(Trouble(met, accepted, *path))

    def references(self) -> None:
        """Before the manifest is made: everything that it is made of exists."""
        self._reclamation()
        for name, found in self.sdl["endpoints"].items():
            if not ENDPOINT_NAME.fullmatch(name):
                self.trouble(
                    "not a name for an endpoint", "two or more small letters, digits, - and _", "endpoints", name
                )
            if found["kind"] != "ip":
                self.trouble(found["kind"] or "no kind", "ip", "endpoints", name, "kind")
        for placement, found in self.placements.items():
            self._prices(placement, found["pricing"])
        for name in sorted(self.sdl["deployment"]):
            for placement, terms in sorted(self.sdl["deployment"][name].items()):
                self._placed(name, placement, terms)
        for name in self.sdl["endpoints"]:
            if name not in self.used:
                self.trouble(
                    "an endpoint that nothing uses", "an expose with this ip, or no endpoint", "endpoints", name
                )

    def _reclamation(self) -> None:
        found = self.sdl["reclamation"]
        if found is not None and (
            not DURATION.fullmatch(found["min_window"]) or not re.search("[1-9]", found["min_window"])
        ):
            self.trouble(found["min_window"] or "nothing", "a duration above 0, as 24h", "reclamation", "min_window")

    def _prices(self, placement: str, prices: FieldMap) -> None:
        for profile, price in prices.items():
            at = ("profiles", "placement", placement, "pricing", profile)
            if not AMOUNT.fullmatch(price["amount"]) or Decimal(price["amount"]) <= 0:
                self.trouble(price["amount"] or "nothing", "an amount above 0 with up to 18 decimals", *at, "amount")
            if not DENOMINATION.fullmatch(price["denom"]):
                self.trouble(price["denom"] or "nothing", "a denomination, as uakt", *at, "denom")

    def _placed(self, name: str, placement: str, terms: FieldMap) -> None:
        at, profile = ("deployment", name, placement), terms["profile"]
        compute, infra, service = self.compute.get(profile), self.placements.get(placement), self.services.get(name)
        if compute is None:
            self.trouble(f"no such profile: {profile}", "one of profiles.compute", *at, "profile")
        if infra is None:
            self.trouble("no such placement", "one of profiles.placement", *at)
        elif profile not in infra["pricing"]:
            where = ("profiles", "placement", placement, "pricing")
            self.trouble(f"no price for {profile}", f"a price for {profile}", *where)
        if service is None:
            self.trouble("no such service", "one of services", *at[:2])
        if compute is None or infra is None or service is None:
            return
        resources = compute["resources"]
        if resources is None or any(resources[part] is None for part in ("cpu", "memory")) or not resources["storage"]:
            where = ("profiles", "compute", profile, "resources")
            self.trouble("cpu, memory or storage is missing", "a mapping with all three", *where)
            return
        self._credentials(name, service["credentials"])
        self._exposed(name, service["expose"] or ())
        self._mounts(name, service, resources["storage"])
        self._confidential(name, service, resources)

    def _credentials(self, name: str, found: FieldMap | None) -> None:
        for field in ("host", "username", "password"):
            if found is not None and not found[field].strip():
                self.trouble(f"{field} is missing", "host, username and password", "services", name, "credentials")

    def _exposed(self, name: str, exposed: Any) -> None:
        for place, expose in enumerate(exposed):
            at = ("services", name, "expose", place)
            if expose["proto"].upper() not in ("", "TCP", "UDP"):
                self.trouble(expose["proto"], "TCP or UDP", *at, "proto")
            self._http(expose["http_options"], (*at, "http_options"))
            for index, to in enumerate(expose["to"] or ()):
                if to["ip"]:
                    self._leased(to, expose, (*at, "to", index, "ip"))

    def _http(self, options: FieldMap, at: tuple[str | int, ...]) -> None:
        limits = {"max_body_size": 104_857_600, "proxy_buffer_size": MI, "read_timeout": 60_000, "send_timeout": 60_000}
        for name, most in limits.items():
            if options[name] > most:
                self.trouble(str(options[name]), f"up to {most}", *at, name)
        cases = options["next_cases"] or ()
        for case in cases:
            if case not in NEXT_CASES:
                self.trouble(case or "nothing", ", ".join(NEXT_CASES), *at, "next_cases")
        if "off" in cases and len(cases) > 1:
            self.trouble("off together with other cases", "off alone, or other cases", *at, "next_cases")

    def _leased(self, to: FieldMap, expose: FieldMap, at: tuple[str | int, ...]) -> None:
        if not to["global"]:
            self.trouble("an ip for what is not global", "global: true beside ip", *at)
        if to["ip"] not in self.sdl["endpoints"]:
            self.trouble(f"no endpoint {to['ip']}", "one of endpoints", *at)
        self.used.add(to["ip"])
        key = (to["ip"], expose["as"], expose["proto"])
        if key in self.ports:
            self.trouble(f"port {key[1]} of {key[0]} once more", "a port that is free there", *at)
        self.ports.add(key)

    def _mounts(self, name: str, service: FieldMap, volumes: list[FieldMap]) -> None:
        known = {volume["name"]: volume["attributes"] or {} for volume in volumes}
        options: FieldMap = (service["params"] or {"storage": {}})["storage"]
        taken: set[str] = set()
        for volume, found in options.items():
            at = ("services", name, "params", "storage", volume)
            if volume not in known:
                self.trouble("no volume of this name", "one of the profile's storage", *at)
                continue
            if not found["mount"].startswith("/"):
                self.trouble(found["mount"] or "no mount", "a path that begins with /", *at, "mount")
            if found["mount"] in taken:
                self.trouble("a mount that another volume has", "a mount of its own", *at, "mount")
            taken.add(found["mount"])
            if self.merged and known[volume].get("class") == "ram" and found["readOnly"]:
                self.trouble("memory that cannot be written", "readOnly: false for class ram", *at, "readOnly")
        if not self.merged and not options:
            for volume, attributes in known.items():
                if attributes.get("persistent") == "true":
                    at = ("services", name, "params", "storage", volume)
                    self.trouble("a persistent volume that is mounted nowhere", "a mount for it", *at)

    def _confidential(self, name: str, service: FieldMap, resources: FieldMap) -> None:
        kind = (service["params"] or {"tee": ""})["tee"]
        if kind not in ("", "cpu", "cpu-gpu"):
            self.trouble(kind, "cpu or cpu-gpu", "services", name, "params", "tee")
        if kind == "cpu-gpu" and not (resources["gpu"] and resources["gpu"]["units"]):
            self.trouble("cpu-gpu without a GPU", "gpu in the profile", "services", name, "params", "tee")

    # the manifest that was made

    def groups(self, groups: list[FieldMap]) -> None:
        """After it: names, ranges, host names, and somebody who can be reached."""
        if not groups:
            self.trouble("nothing to deploy", "a service with a placement", "deployment")
            return
        hosts: set[str] = set()
        reached = False
        for group in groups:
            for service in group["services"]:
                self._service(service)
                for row in service["expose"]:
                    reached = reached or row["global"]
                    self._reached(service["name"], row, hosts)
            self._totals(group)
            self._one_secrecy(group)
        self._one_currency()
        if not reached:
            self.trouble("no service that the world can reach", "an expose with to: - global: true", "services")

    def _service(self, service: FieldMap) -> None:
        at = ("services", service["name"])
        if not SERVICE_NAME.fullmatch(service["name"]):
            self.trouble("not a name for a service", "small letters, digits and -, a letter first", *at)
        if not service["image"]:
            self.trouble("no image", "an image, as nginx:1.27", *at)
        for place, line in enumerate(service["env"] or ()):
            if not ENV_NAME.fullmatch(line.partition("=")[0]):
                self.trouble(repr(line[:40]), "NAME=VALUE", *at, "env", place)

    def _reached(self, name: str, row: FieldMap, hosts: set[str]) -> None:
        at = ("services", name, "expose")
        if not 0 < row["port"] <= 65535:
            self.trouble(f"port {row['port']}", "a port from 1 to 65535", *at)
        for host in row["hosts"] or ():
            if len(host) > MAX_HOST_NAME or not HOST_NAME.fullmatch(host):
                self.trouble(repr(host[:60]), "a host name, as www.example.com", *at)
            if host in hosts:
                self.trouble(f"{host} twice", "each host name once", *at)
            hosts.add(host)

    def _totals(self, group: FieldMap) -> None:
        total: dict[str, int] = dict.fromkeys(("cpu", "memory", "gpu"), 0)
        for service in group["services"]:
            profile = self.sdl["deployment"][service["name"]][group["name"]]["profile"]
            at = ("profiles", "compute", profile, "resources")
            resources, times = service["resources"], service["count"]
            for part, unit, (least, most) in (
                ("cpu", "units", UNIT_CPU), ("memory", "size", UNIT_MEMORY), ("gpu", "units", UNIT_GPU),
            ):  # fmt: skip
                value = int(resources[part][unit]["val"])
                total[part] += value * times
                if not least <= value <= most:
                    self.trouble(f"{value}", f"from {least} to {most}", *at, part)
            for volume in resources["storage"]:
                if not UNIT_VOLUME[0] <= int(volume["size"]["val"]) <= UNIT_VOLUME[1]:
                    self.trouble(volume["size"]["val"], f"from {UNIT_VOLUME[0]} to {UNIT_VOLUME[1]}", *at, "storage")
            self._attributes(resources, at)
            self._price(group["name"], profile)
        for part, (_, most) in (("cpu", UNIT_CPU), ("memory", UNIT_MEMORY), ("gpu", UNIT_GPU)):
            if total[part] > most * MOST_OF_A_GROUP or (part != "gpu" and total[part] == 0):
                self.trouble(f"{total[part]} of {part} in all", f"up to {most * MOST_OF_A_GROUP}", "deployment")

    def _attributes(self, resources: FieldMap, at: tuple[str, ...]) -> None:
        gpu = resources["gpu"]
        keys = [it["key"] for it in gpu.get("attributes", ())]
        if keys and gpu["units"]["val"] == "0":
            self.trouble("attributes for 0 GPUs", "units above 0, or no attributes", *at, "gpu")
        if len(keys) != len(set(keys)):
            self.trouble("a GPU model twice", "each model once", *at, "gpu", "attributes")
        for key in keys:
            if not ATTRIBUTE_KEY.fullmatch(key):
                self.trouble(repr(key[:60]), "a model of letters, digits, . - _ and /", *at, "gpu", "attributes")

    def _price(self, placement: str, profile: str) -> None:
        price = self.placements[placement]["pricing"][profile]
        if Decimal(price["amount"]) > MAX_PRICE:
            at = ("profiles", "placement", placement, "pricing", profile, "amount")
            self.trouble(price["amount"], f"up to {MAX_PRICE}", *at)

    def _one_secrecy(self, group: FieldMap) -> None:
        kinds = {it["params"]["tee"]["type"] for it in group["services"] if "tee" in (it.get("params") or {})}
        if len(kinds) > 1:
            self.trouble("tee cpu and cpu-gpu in one placement", "one kind a placement", "deployment")

    def _one_currency(self) -> None:
        used = {
            self.placements[placement]["pricing"][terms["profile"]]["denom"]
            for deployment in self.sdl["deployment"].values()
            for placement, terms in deployment.items()
        }
        if len(used) > 1:
            self.trouble(f"prices in {' and '.join(sorted(used))}", "one denomination", "profiles", "placement")
