"""Docker Compose: the services of a compose file, by the Compose specification (compose-spec/spec, `05-services.md` and
`deploy.md`). What builds, joins or starts on the user's own machine has no place here and is noted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from fallow.interop.amounts import cpu_millis, size_bytes
from fallow.interop.folded import Folded
from fallow.interop.model import (
    DiskVolume,
    FileRefused,
    GpuNeeds,
    Import,
    Port,
    Problem,
    Remark,
    Resources,
    Workload,
    shown,
)
from fallow.interop.shape import Trouble, problems_of
from fallow.interop.tree import Path, field_of, js_word, line_of, to_data
from fallow.interop.tree import compose as compose_tree

NAME = re.compile(r"[a-zA-Z0-9._-]+")
VARIABLE = re.compile(
    r"\$(?:\$|(?P<bare>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<how>:?[-?+])?(?P<other>[^{}]*)\})"
)
PORT = re.compile(
    r"(?:(?P<ip>\[[^\]]*\]|[0-9]+(?:\.[0-9]+){3}):)?(?:(?P<outer>[0-9]*):)?(?P<inner>[0-9]+)(?:/(?P<protocol>tcp|udp))?"
)
RANGE = re.compile(r"[0-9]+-[0-9]+")
MAX_TEXT = 100_000
NOT_HERE = {
    "build": "images are not built here; push one and name it under image",
    "networks": "services of one file are not joined by networks of their own here",
    "restart": "what ends is started again by the job's own rules here",
    "healthcheck": "checks of health are not carried over yet",
    "env_file": "other files are not read; write the variables under environment",
    "extends": "other files are not read",
    "configs": "there is no place for it; mount a file as input",
    "secrets": "there is no place for it yet",
    "privileged": "nothing here runs privileged",
    "devices": "no device of a provider's machine is handed on by name",
    "network_mode": "a provider's own network is not visible here",
    "cap_add": "nothing here has more rights than a plain process",
    "profiles": "all services of a file are read",
}
TOP = ("name", "version", "services", "volumes")


def read(data: bytes, values: Mapping[str, str]) -> Import:
    """A compose file; `values` are its variables. Raises FileRefused."""
    root = compose_tree(data)
    reader = _Reader(values)
    top = Folded(reader.filled(to_data(root), ()) if root is not None else None, (), reader.troubles, exactly=True)
    services = top.part("services")
    if not services.fields:
        raise FileRefused(Problem(line=0, field="services", met="no services", accepted="a mapping of services"))
    kept = top.part("volumes").fields
    workloads = tuple(reader.service(name, services.part(name), set(kept)) for name, _ in services.fields.values())
    if reader.troubles:
        raise FileRefused(*problems_of(reader.troubles, root))
    for key in top.fields:
        if key not in TOP and not key.startswith("x-"):
            reader.note("there is no place for it", (key,))
    notes = [Remark(line=line_of(root, path), field=field_of(path), reason=reason) for path, reason in reader.notes]
    return Import(
        format="compose",
        version=top.word("version", "compose-spec"),
        name=top.word("name"),
        workloads=workloads,
        notes=tuple(sorted(notes, key=lambda note: note.line)),
    )


class _Reader:
    """Looks at one file, and keeps what is wrong and what has no place."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values
        self.troubles: list[Trouble] = []
        self.notes: list[tuple[Path, str]] = []
        self.written = 0

    def note(self, reason: str, path: Path) -> None:
        self.notes.append((path, reason))

    # variables

    def filled(self, value: Any, path: Path) -> Any:
        """The data with its variables replaced in every text."""
        if isinstance(value, dict):
            return {key: self.filled(one, (*path, key)) for key, one in cast("dict[str, Any]", value).items()}
        if isinstance(value, list):
            return [self.filled(one, (*path, place)) for place, one in enumerate(cast("list[Any]", value))]
        if not isinstance(value, str) or "$" not in value:
            return value
        return VARIABLE.sub(lambda match: self._variable(match, path), value)

    def _variable(self, match: re.Match[str], path: Path) -> str:
        name, how, other = match["bare"] or match["name"], match["how"] or "", match["other"] or ""
        if not name:
            return "$"
        found = self.values.get(name)
        there = found is not None and (found != "" or not how.startswith(":"))
        if how.endswith("+"):
            text = other if there else ""
        elif there:
            text = found or ""
        elif how.endswith("?"):
            self.troubles.append(Trouble(f"no value for {name}: {other}", f"--value {name}=VALUE", *path))
            text = ""
        else:
            if not how:
                self.note(
                    f"{name} has no value and is left empty, as Compose does; --value {name}=VALUE gives one", path
                )
            text = other
        self.written += len(text)
        if self.written > MAX_TEXT:
            raise FileRefused(Problem(line=0, field="", met="values are too long", accepted=f"{MAX_TEXT}"), why="bound")
        return text

    # services

    def service(self, name: str, part: Folded, kept: set[str]) -> Workload:
        if not NAME.fullmatch(name):
            part.trouble("not a name for a service", "letters, digits, . _ and -")
        image = part.word("image")
        if not image and not isinstance(part.raw("build"), (dict, str)):
            part.trouble("no image", "image, as nginx:1.27")
        deploy = part.part("deploy")
        replicas = deploy.number("replicas")
        count = replicas if replicas is not None else part.number("scale")
        for field, reason in NOT_HERE.items():
            if part.raw(field) not in (None, False, [], {}):
                self.note(reason, part.at(field))
        found = Workload(
            name=name,
            type="service",
            image=image,
            entrypoint=self._command(part, "entrypoint"),
            args=self._command(part, "command"),
            env=self._environment(part),
            working_dir=part.word("working_dir"),
            ports=self._ports(part),
            resources=self._resources(part, deploy.part("resources")),
            volumes=self._volumes(part, kept),
            count=1 if count is None else count,
            depends_on=self._names(part, "depends_on"),
            labels=self._mapped(part, "labels"),
        )
        for key in part.unasked():
            if not key.startswith("x-"):
                self.note("there is no place for it", (*part.path, key))
        return found

    def _command(self, part: Folded, name: str) -> tuple[str, ...]:
        """A list, or a line as a shell would split it."""
        value = part.raw(name)
        if not isinstance(value, str):
            return part.words(name)
        words = re.findall(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""", value)
        return tuple(re.sub(r"""["']""", "", word) for word in words)

    def _mapped(self, part: Folded, name: str) -> dict[str, str]:
        """A mapping, or a list of K=V."""
        return {key: value or "" for key, value in self._either(part, name).items()}

    def _environment(self, part: Folded) -> dict[str, str | None]:
        found = self._either(part, "environment")
        for key, value in found.items():
            if value is None:
                self.note(f"{key} comes from your own environment, which is not read here", part.at("environment"))
        return found

    def _either(self, part: Folded, name: str) -> dict[str, str | None]:
        value = part.raw(name)
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            return {key: None if one is None else js_word(one) for key, one in fields.items()}
        pairs = (line.partition("=") for line in part.words(name))
        return {key: value if sign else None for key, sign, value in pairs}

    def _names(self, part: Folded, name: str) -> tuple[str, ...]:
        value = part.raw(name)
        if value:
            self.note("nothing waits for another service here; the names are kept", part.at(name))
        return tuple(cast("dict[str, Any]", value)) if isinstance(value, dict) else part.words(name)

    def _ports(self, part: Folded) -> tuple[Port, ...]:
        ports: list[Port] = []
        for place, one in enumerate(part.items("ports")):
            at = (*part.at("ports"), place)
            if isinstance(one, dict):
                long = Folded(one, at, self.troubles, exactly=True)
                target, published = long.number("target", 1), long.word("published")
                outer, protocol = (
                    int(published) if re.fullmatch("[0-9]{1,5}", published) else None,
                    long.word("protocol", "tcp"),
                )
                inner = target or 0
            else:
                written = js_word(one)
                match = PORT.fullmatch(written)
                if RANGE.search(written) or match is None:
                    self.troubles.append(Trouble(shown(one), "a port, as 8080:80 or 8080:80/udp", *at))
                    continue
                inner, outer = int(match["inner"]), int(match["outer"]) if match["outer"] else None
                protocol = match["protocol"] or "tcp"
                if match["ip"]:
                    self.note("an address of your own machine", at)
            if not 0 < inner <= 65535 or (outer or 0) > 65535:
                self.troubles.append(Trouble(shown(one), "ports from 1 to 65535", *at))
            ports.append(Port(number=inner, public=outer, protocol=protocol, reach=("world",)))
        for written in part.words("expose"):
            number, _, protocol = written.partition("/")
            if number.isdigit() and int(number) <= 65535:
                ports.append(Port(number=int(number), protocol=protocol or "tcp", reach=("services of this file",)))
        return tuple(ports)

    def _amount(self, part: Folded, name: str, measure: Any) -> int | None:
        written = part.word(name)
        value = measure(written) if written else None
        if written and value is None:
            self.troubles.append(Trouble(repr(written), "an amount, as 0.5 or 512m", *part.at(name)))
        return value

    def _resources(self, part: Folded, wanted: Folded) -> Resources:
        """Limits count, then what is reserved, then the old fields of the service itself."""
        limits, reserved = wanted.part("limits"), wanted.part("reservations")

        def bytes_of(text: str) -> int | None:
            return size_bytes(text, binary=True)

        cpus = [
            self._amount(one, name, cpu_millis) for one, name in ((limits, "cpus"), (reserved, "cpus"), (part, "cpus"))
        ]
        memory = [
            self._amount(one, name, bytes_of)
            for one, name in ((limits, "memory"), (reserved, "memory"), (part, "mem_limit"), (part, "mem_reservation"))
        ]
        return Resources(
            cpu_millis=next((value for value in cpus if value is not None), None),
            memory_bytes=next((value for value in memory if value is not None), None),
            gpu=self._gpu(reserved),
        )

    def _gpu(self, reserved: Folded) -> GpuNeeds | None:
        for device in reserved.parts("devices"):
            if "gpu" in device.words("capabilities"):
                if device.raw("device_ids"):
                    self.note("devices are chosen by the provider, not by their number", device.at("device_ids"))
                asked = device.raw("count")
                everything = asked in (None, "all")
                if everything:
                    self.note("all GPUs of a machine cannot be asked for; read as one", device.path)
                count = 1 if everything else device.number("count", 1) or 1
                driver = device.word("driver")
                return GpuNeeds(count=count, models=(f"{driver}/*",) if driver else ())
        return None

    def _volumes(self, part: Folded, kept: set[str]) -> tuple[DiskVolume, ...]:
        found: list[DiskVolume] = []
        for place, one in enumerate(part.items("volumes")):
            at = (*part.at("volumes"), place)
            if isinstance(one, dict):
                long = Folded(one, at, self.troubles, exactly=True)
                source, target, read_only = long.word("source"), long.word("target"), long.raw("read_only") is True
                kind = long.word("type", "volume")
            else:
                source, target, mode = self._short(js_word(one))
                read_only, kind = "ro" in mode.split(","), "bind" if source.startswith((".", "/", "~")) else "volume"
            if not target.startswith("/"):
                self.troubles.append(Trouble(shown(one), "a path that begins with /", *at))
            if kind == "bind":
                self.note("a folder of your own machine; hand it in as data", at)
                continue
            if source and source not in kept:
                self.troubles.append(Trouble(f"no volume {source!r}", "one of volumes at the top", *at))
            medium = "ram" if kind == "tmpfs" else ""
            persistent = kind == "volume" and bool(source)
            found.append(
                DiskVolume(
                    name=source or f"scratch{place}",
                    mount=target,
                    persistent=persistent,
                    medium=medium,
                    read_only=read_only,
                )
            )
        return tuple(found)

    def _short(self, written: str) -> tuple[str, str, str]:
        parts = written.split(":")
        if len(parts) == 1:
            return "", parts[0], ""
        return parts[0], parts[1], ",".join(parts[2:])
