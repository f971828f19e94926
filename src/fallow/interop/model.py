"""What an imported file becomes, whichever network it was written for.

Amounts are whole numbers of the unit in the name; None means that the file does not say. Money of other networks
stays a decimal text with its own unit: nothing here converts it into credits.
"""

from __future__ import annotations

from typing import Literal

import msgspec

JobType = Literal["service", "batch", "ops", "daemon"]


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a container. `public` is the port it is reached by from outside, where the file asks for one; `reach`
    lists who may reach it: "world", "ip NAME" for a leased address, or the names of services."""

    number: int
    public: int | None = None
    protocol: str = "tcp"
    reach: tuple[str, ...] = ()
    host_names: tuple[str, ...] = ()


class DiskVolume(msgspec.Struct, frozen=True, kw_only=True):
    """Disk of a service: scratch space, or with `persistent` what outlives a restart. `mount` is "" where it is only
    the container's own disk; `sync` says how replicas share it, in the words of the file's network."""

    name: str
    mount: str = ""
    size_bytes: int | None = None
    persistent: bool = False
    medium: str = ""
    read_only: bool = False
    sync: str = ""


class GpuNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs of one service. `models` are alternatives, as "nvidia/a100/ram/80Gi"; empty means any."""

    count: int
    models: tuple[str, ...] = ()


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What one instance needs."""

    cpu_millis: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    gpu: GpuNeeds | None = None
    cpu_attributes: dict[str, str] = {}


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where it may run: `requires` are attributes a provider must have, in words; `signed_by` who must vouch."""

    name: str = ""
    requires: tuple[str, ...] = ()
    signed_by_all: tuple[str, ...] = ()
    signed_by_any: tuple[str, ...] = ()


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """The most that one instance may cost, as the file says it: `amount` is a decimal text, `unit` as "uakt per
    block"."""

    amount: str
    unit: str


class DataPlace(msgspec.Struct, frozen=True, kw_only=True):
    """An input, a result, or where results go. `place` is where it comes from or goes to, `path` where the job sees
    it."""

    kind: str
    place: str = ""
    path: str = ""
    name: str = ""
    details: dict[str, str] = {}


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """Access to an image registry. The password is not kept: only that the file has one."""

    host: str
    user: str


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """One service or job of the file. `engine` is what runs it: "container" or "wasm", or the name the file gives."""

    name: str
    type: JobType
    engine: str = "container"
    image: str = ""
    entrypoint: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: dict[str, str | None] = {}
    working_dir: str = ""
    ports: tuple[Port, ...] = ()
    resources: Resources = Resources()
    volumes: tuple[DiskVolume, ...] = ()
    count: int = 1
    placement: Placement = Placement()
    price: Price | None = None
    network: str = ""
    inputs: tuple[DataPlace, ...] = ()
    outputs: tuple[DataPlace, ...] = ()
    publish: DataPlace | None = None
    timeout_s: int | None = None
    queue_timeout_s: int | None = None
    depends_on: tuple[str, ...] = ()
    registry: Secret | None = None
    labels: dict[str, str] = {}


class Remark(msgspec.Struct, frozen=True, kw_only=True):
    """Something of the file that could not be carried over, or was read in another way than it looks, and why."""

    line: int
    field: str
    reason: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a file is refused: `met` stands at `line` in `field`; `accepted` would do. Line 0 is the file as a whole."""

    line: int
    field: str
    met: str
    accepted: str

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.field + ': ' if self.field else ''}{self.met}; accepted: {self.accepted}"


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was accepted. `digest` is the file's identity on its own network, where it has one (hex), `canonical`
    the bytes that it is the SHA-256 of."""

    format: str
    version: str
    name: str
    workloads: tuple[Workload, ...]
    notes: tuple[Remark, ...] = ()
    price: Price | None = None
    digest: str = ""
    canonical: str = ""


class FileRefused(Exception):
    """A file that is not read; `problems` is never empty. `why` is "rules" when it breaks its own format's, "bound"
    when it is more than we read, "format" when it is of none that we know."""

    def __init__(self, *problems: Problem, why: Literal["rules", "bound", "format"] = "rules") -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems, self.why = problems, why


def shown(value: object, most: int = 60) -> str:
    """A value as it is quoted in a sentence: short, and on one line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= most else text[: most - 1] + "…"
