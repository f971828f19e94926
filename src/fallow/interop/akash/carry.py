"""From a manifest to the neutral model, with a note for everything that has no place there or on this network."""

from __future__ import annotations

from typing import Any

from fallow.interop.akash import lenient, strict
from fallow.interop.akash.canonical import canonical_json, digest_of
from fallow.interop.model import (
    DiskVolume,
    GpuNeeds,
    Import,
    Placement,
    Port,
    Price,
    Remark,
    Resources,
    Secret,
    Workload,
)
from fallow.interop.shape import Trouble
from fallow.interop.tree import FieldMap, Node, compose, field_of, js_word, line_of


def read(data: bytes, *, strictly: bool = True) -> Import:
    """An SDL file as its network understands it. Raises FileRefused."""
    root = compose(data)
    overlooked: list[Trouble] = []
    if strictly:
        sdl, groups = strict.manifest(root)
    else:
        sdl, groups, overlooked = lenient.manifest(root)
    canonical = canonical_json(groups)
    workloads = tuple(_workload(sdl, group["name"], service) for group in groups for service in group["services"])
    return Import(
        format="akash",
        version=sdl["version"],
        name=", ".join(group["name"] for group in groups),
        workloads=workloads,
        notes=_Notes(sdl, root).all(overlooked),
        digest=digest_of(canonical),
        canonical=canonical,
    )


def _workload(sdl: FieldMap, placement: str, service: FieldMap) -> Workload:
    terms = sdl["deployment"][service["name"]][placement]
    found = sdl["profiles"]["placement"][placement]
    price = found["pricing"][terms["profile"]]
    disk, volumes = _storage(service)
    return Workload(
        name=service["name"],
        type="service",
        image=service["image"],
        entrypoint=tuple(service["command"] or ()),
        args=tuple(service["args"] or ()),
        env=_env(service["env"] or ()),
        ports=_ports(service["expose"]),
        resources=_resources(service["resources"], disk),
        volumes=volumes,
        count=service["count"],
        placement=_placement(placement, found),
        price=Price(amount=_amount(price["amount"]), unit=f"{price['denom']} per block, each instance"),
        depends_on=tuple(
            it["service"] for it in sdl["services"][service["name"]].get("dependencies") or () if it.get("service")
        ),
        registry=_registry(service["credentials"]),
    )


def _amount(amount: Any) -> str:
    return amount if isinstance(amount, str) else js_word(amount)


def _env(lines: Any) -> dict[str, str | None]:
    """`K=V`; `K` alone has no value here, but the one that the network gives."""
    pairs = (line.partition("=") for line in lines)
    return {name: value if sign else None for name, sign, value in pairs}


def _ports(exposed: list[FieldMap]) -> tuple[Port, ...]:
    """Exposes of one port, brought together."""
    ports: dict[tuple[int, int, str], Port] = {}
    for row in exposed:
        key = (row["port"], row["externalPort"], row["proto"])
        before = ports.get(key)
        reach = [row["service"]] if row["service"] else []
        if row["global"]:
            reach.append(f"ip {row['ip']}" if row["ip"] else "world")
        ports[key] = Port(
            number=row["port"],
            public=row["externalPort"] or None,
            protocol=row["proto"].lower(),
            reach=(before.reach if before else ()) + tuple(reach),
            host_names=tuple(row["hosts"] or ()),
        )
    return tuple(ports.values())


def _whole(text: str) -> int:
    """A quantity that may have come as a fraction or an exponent, rounded up as the network does."""
    return int(text) if text.lstrip("-").isdigit() else -int(-float(text) // 1)


def _resources(found: FieldMap, disk: int) -> Resources:
    models = tuple(
        it["key"].removeprefix("vendor/").replace("/model/", "/") for it in found["gpu"].get("attributes", ())
    )
    count = _whole(found["gpu"]["units"]["val"])
    return Resources(
        cpu_millis=_whole(found["cpu"]["units"]["val"]),
        memory_bytes=_whole(found["memory"]["size"]["val"]),
        disk_bytes=disk or None,
        gpu=GpuNeeds(count=count, models=() if models == ("nvidia/*",) else models) if count else None,
        cpu_attributes={it["key"]: it["value"] for it in found["cpu"].get("attributes", ())},
    )


def _storage(service: FieldMap) -> tuple[int, tuple[DiskVolume, ...]]:
    """-> the container's own disk, and what is mounted."""
    mounts = {it["name"]: it for it in (service.get("params") or {}).get("storage") or ()}
    disk, volumes = 0, list[DiskVolume]()
    for found in service["resources"]["storage"]:
        attributes = {it["key"]: it["value"] for it in found.get("attributes", ())}
        mount, size = mounts.get(found["name"]), _whole(found["size"]["val"])
        if mount is None and attributes.get("persistent", "false") == "false" and "class" not in attributes:
            disk += size
            continue
        volumes.append(
            DiskVolume(
                name=found["name"],
                mount=mount["mount"] if mount else "",
                size_bytes=size,
                persistent=attributes.get("persistent", "false").lower() not in ("false", "no", "off", "0", ""),
                medium=attributes.get("class", ""),
                read_only=bool(mount and mount["readOnly"]),
            )
        )
    return disk, tuple(volumes)


def _placement(name: str, found: FieldMap) -> Placement:
    signed = found.get("signedBy") or {}
    return Placement(
        name=name,
        requires=tuple(f"{key}={js_word(value)}" for key, value in sorted((found.get("attributes") or {}).items())),
        signed_by_all=tuple(signed.get("allOf") or ()),
        signed_by_any=tuple(signed.get("anyOf") or ()),
    )


def _registry(found: FieldMap | None) -> Secret | None:
    return Secret(host=found["host"], user=found["username"]) if found else None


# what has no place ----------------------------------------------------------------------------------------------------

NOT_HERE = {
    "permissions": "it gives access to an interface of Akash's providers, which is not here",
    "tee": "no provider here attests to confidential hardware",
    "http_options": "limits of Akash's ingress have no counterpart here",
    "credentials": "the password is not kept: give it again when the image is fetched",
    "dependencies": "Akash itself gives no order to services; the names are kept and nothing waits",
}


class _Notes:
    """One note for each thing, with its line."""

    def __init__(self, sdl: FieldMap, root: Node | None) -> None:
        self.sdl, self.root = sdl, root
        self.notes: list[Remark] = []

    def note(self, reason: str, *path: str | int) -> None:
        self.notes.append(Remark(line=line_of(self.root, path), field=field_of(path), reason=reason))

    def all(self, overlooked: list[Trouble]) -> tuple[Remark, ...]:
        for trouble in overlooked:
            self.note("Akash's provider overlooks this field, and so do we", *trouble.path)
        for name, service in self.sdl["services"].items():
            self._service(name, service)
        for name, found in self.sdl["profiles"]["placement"].items():
            self._placement(name, found)
        if self.sdl.get("endpoints"):
            self.note("an address of one's own cannot be leased here", "endpoints")
        if self.sdl.get("include"):
            self.note("other files are not read; Akash does not read them either", "include")
        if self.sdl.get("reclamation"):
            self.note("leases here have no notice before a machine is taken back", "reclamation")
        return tuple(sorted(self.notes, key=lambda note: note.line))

    def _service(self, name: str, service: FieldMap) -> None:
        for field in ("credentials", "dependencies"):
            if service.get(field):
                self.note(NOT_HERE[field], "services", name, field)
        for field in ("permissions", "tee"):
            if (service.get("params") or {}).get(field):
                self.note(NOT_HERE[field], "services", name, "params", field)
        for place, expose in enumerate(service.get("expose") or ()):
            if any((expose.get("http_options") or {}).values()):
                self.note(NOT_HERE["http_options"], "services", name, "expose", place, "http_options")
        if name not in self.sdl["deployment"]:
            self.note("nothing deploys this service", "services", name)

    def _placement(self, name: str, found: FieldMap) -> None:
        at = ("profiles", "placement", name)
        if found.get("attributes"):
            self.note("providers here state no such attributes; kept as a wish that nothing fulfils", *at, "attributes")
        if any((found.get("signedBy") or {}).values()):
            self.note("these are auditors on Akash's chain, who vouch for nobody here", *at, "signedBy")
        self.note("a price in Akash's own coin, for a block; a job here has a budget in credits", *at, "pricing")
