"""From a Flux specification to the neutral model, with a note for everything that has no place there."""

from __future__ import annotations

import re
from typing import Any

from fallow.interop.flux.form import check, is_enterprise
from fallow.interop.flux.price import price_usd
from fallow.interop.model import (
    DiskVolume,
    FileRefused,
    Import,
    Placement,
    Port,
    Price,
    Remark,
    Resources,
    Workload,
)
from fallow.interop.shape import Trouble, problems_of
from fallow.interop.tree import FieldMap, Node, compose, field_of, js_number, line_of, to_data

MIB, GIB = 1_000_000, 1_000_000_000
"""Flux's MB and GB."""
MOUNT = re.compile(r"(?:(?P<sync>[rgs]+):)?(?P<path>/.*)")
MORE = re.compile(r"(?P<kind>[mf]):(?P<name>[^:]+):(?P<path>/.*)|(?P<of>[0-9]+):(?P<shared>/.*)|c:(?P<rest>.*)")
SYNC = {"r": "every copy replicates it", "g": "the primary's copy counts", "s": "copies are kept alike"}


def read(data: bytes) -> Import:
    """A specification as JSON or YAML. Raises FileRefused."""
    root = compose(data)
    spec: Any = to_data(root) if root is not None else None
    troubles: list[Trouble] = []
    check(spec, troubles)
    if troubles:
        raise FileRefused(*problems_of(troubles, root))
    notes = _Notes(root)
    workloads = tuple(_workload(spec, part, place, notes) for place, part in enumerate(spec["compose"]))
    notes.of_the_whole(spec)
    return Import(
        format="flux",
        version=str(spec["version"]),
        name=spec["name"],
        workloads=workloads,
        notes=tuple(sorted(notes.notes, key=lambda note: note.line)),
        price=Price(amount=js_number(price_usd(spec)), unit="USD per month, all instances"),
    )


class _Notes:
    """One note for each thing, with its line."""

    def __init__(self, root: Node | None) -> None:
        self.root = root
        self.notes: list[Remark] = []

    def note(self, reason: str, *path: str | int) -> None:
        self.notes.append(Remark(line=line_of(self.root, path), field=field_of(path), reason=reason))

    def of_the_whole(self, spec: FieldMap) -> None:
        """What stands at the top."""
        self.note("an account of Flux's chain, which owns nothing here", "owner")
        self.note("blocks of Flux's chain; a job here has a timeout in seconds", "expire")
        if spec["contacts"]:
            self.note("nobody is written to; ask your own node", "contacts")
        if spec["geolocation"]:
            self.note("providers here state a region and no continent or country; kept as a wish", "geolocation")
        if spec["nodes"]:
            self.note("names of Flux's own nodes", "nodes")
        if spec["staticip"]:
            self.note("an address that stays cannot be asked for here", "staticip")
        if spec["version"] >= 8 and is_enterprise(spec):
            self.note("encrypted for Flux's nodes; it cannot be opened here", "enterprise")


def _workload(spec: FieldMap, part: FieldMap, place: int, notes: _Notes) -> Workload:
    at = ("compose", place)
    if not isinstance(part["repotag"], str):
        notes.note("no name of an image; Flux's nodes would find out later", *at, "repotag")
    if part.get("tiered"):
        notes.note("needs by tier of node; the plain ones are carried", *at, "tiered")
    for field in ("repoauth", "secrets"):
        if part.get(field):
            notes.note("encrypted for Flux's nodes; it cannot be opened here", *at, field)
    ports = zip(part["ports"], part["containerPorts"], part["domains"], strict=True)
    pairs = (line.partition("=") for line in part["environmentParameters"])
    return Workload(
        name=part["name"],
        type="service",
        image=part["repotag"] if isinstance(part["repotag"], str) else "",
        args=tuple(part["commands"]),
        env={name: value if sign else None for name, sign, value in pairs},
        ports=tuple(
            Port(number=inner, public=outer, reach=("world",), host_names=(domain,) if domain else ())
            for outer, inner, domain in ports
        ),
        resources=Resources(
            cpu_millis=round(part["cpu"] * 1000),
            memory_bytes=round(part["ram"] * MIB),
            disk_bytes=round(part["hdd"] * GIB),
        ),
        volumes=_volumes(part["containerData"], at, notes),
        count=spec["instances"],
        placement=Placement(requires=tuple(spec["geolocation"])),
    )


def _volumes(written: Any, at: tuple[str | int, ...], notes: _Notes) -> tuple[DiskVolume, ...]:
    """`r:/data|m:logs:/var/log|0:/web`: the first is the component's own folder, others lie in it or are another's."""
    if not isinstance(written, str):
        notes.note("no text; Flux's nodes would find out later", *at, "containerData")
        return ()
    first, *more = written.split("|")
    match = MOUNT.fullmatch(first)
    if match is None:
        notes.note(f"{first[:60]!r} is no folder; Flux's nodes would find out later", *at, "containerData")
        return ()
    sync = "; ".join(SYNC[letter] for letter in dict.fromkeys(match["sync"] or ""))
    found = [DiskVolume(name="data", mount=match["path"], persistent=True, sync=sync)]
    for one in more:
        match = MORE.fullmatch(one)
        if match is None or match["rest"] is not None:
            notes.note(f"{one[:60]!r} is not read", *at, "containerData")
        elif match["kind"]:
            medium = "file" if match["kind"] == "f" else ""
            found.append(DiskVolume(name=match["name"], mount=match["path"], persistent=True, medium=medium, sync=sync))
        else:
            notes.note(f"the folder of component {match['of']} cannot be shared", *at, "containerData")
    if sync:
        notes.note("copies on several machines are not kept alike here", *at, "containerData")
    return tuple(found)
