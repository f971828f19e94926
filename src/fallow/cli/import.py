"""Read a file that was written for another network, and say what it would become here: the services or jobs in it,
what each needs, what it may cost, the file's hash on its own network, and everything that cannot be carried over,
with its line.

FILE is an Akash SDL, a Bacalhau job, a Flux specification or a Compose file, in YAML or JSON. Which format it is
shows in the file itself; --format says it where that fails. --value fills in a Bacalhau template or a variable of a
Compose file.

Akash has two readers that do not agree, and so have we: --strict, which is the rule, says what Akash's console says,
which refuses unknown fields; --lenient says what its providers say, who overlook some of them.

Nothing is started and nothing is spent: a file is read, checked and shown. Running it comes as a later step.

  fallow import deploy.yaml
  fallow import deploy.yaml --lenient --json
  fallow import job.yaml --value image=busybox:1.37 --value count=3
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec

from fallow.cli.output import Output, table
from fallow.errors import FallowError, fail
from fallow.interop.model import FileRefused, Import, Workload
from fallow.interop.registry import FORMATS, Settings, detect, read
from fallow.interop.tree import MAX_BYTES
from fallow.kinds.registry import KINDS

MOST_PROBLEMS_SHOWN = 20


def options(parser: argparse.ArgumentParser) -> None:
    """`fallow import FILE [--format FORMAT] [--strict | --lenient]`."""
    parser.add_argument("file", metavar="FILE", type=Path, help="the file, as it is")
    parser.add_argument("--format", choices=[it.name for it in FORMATS], help="which format it is (default: it shows)")
    words = "fill in NAME, as often as there are names"
    parser.add_argument("-V", "--value", metavar="NAME=VALUE", type=_value, action="append", default=[], help=words)
    parser.add_argument("--no-template", action="store_true", help="leave {{...}} in a Bacalhau job as it is")
    readers = parser.add_mutually_exclusive_group()
    readers.add_argument(
        "--strict", action="store_true", help="refuse unknown fields, as Akash's console does (default)"
    )
    readers.add_argument("--lenient", action="store_true", help="overlook what Akash's providers overlook")


def run(args: argparse.Namespace, out: Output) -> int:
    """Show it. Raises UsageError E2003 for no such file, E2101 for one that breaks its rules, E2102 for one of no
    format, E2103 for one that is too much."""
    data = _load(args.file)
    settings = Settings(strictly=not args.lenient, template=not args.no_template, values=dict(args.value))
    try:
        found = read(data, settings, args.format)
    except FileRefused as refused:
        out.data(_refusal_data(args.file, refused), _refusal_text(refused))
        raise _error(args.file, refused, helps=not args.lenient and _lenient_helps(data)) from None
    out.data(_data(found), _text(found))
    return 0


def _value(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not NAME=VALUE")
    return name, value


def _load(path: Path) -> bytes:
    try:
        with path.expanduser().open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise fail("E2003", f"{path} cannot be read: {error.strerror}.") from error


def _lenient_helps(data: bytes) -> bool:
    """Whether the other reader takes an Akash file."""
    try:
        return detect(data).name == "akash" and bool(read(data, Settings(strictly=False), "akash"))
    except FileRefused:
        return False


def _error(path: Path, refused: FileRefused, *, helps: bool) -> FallowError:
    first, more = refused.problems[0], len(refused.problems) - 1
    what = f"{path.name}: {first}." + (f" And {more} more." if more else "")
    next_step = f"fallow import {path} --lenient   # Akash's providers would take it" if helps else ""
    return fail({"format": "E2102", "bound": "E2103"}.get(refused.why, "E2101"), what, next_step=next_step)


def _refusal_data(path: Path, refused: FileRefused) -> dict[str, Any]:
    return {"file": path.name, "accepted": False, "problems": msgspec.to_builtins(refused.problems)}


def _refusal_text(refused: FileRefused) -> str:
    rows = [(str(it.line or "-"), it.field or "-", it.met, it.accepted) for it in refused.problems]
    return table(("LINE", "FIELD", "FOUND", "ACCEPTED"), rows[:MOST_PROBLEMS_SHOWN])


# what it became -------------------------------------------------------------------------------------------------------


def _data(found: Import) -> dict[str, Any]:
    fields = msgspec.to_builtins(found)
    del fields["canonical"]
    return {"accepted": True, "started": False, "not_served": _not_served(found), **fields}


def _not_served(found: Import) -> list[str]:
    """Kinds of work that the file needs and nobody here does."""
    return sorted({workload.engine for workload in found.workloads} - set(KINDS))


def _text(found: Import) -> str:
    head = ("NAME", "TYPE", "COUNT", "IMAGE", "CPU", "MEMORY", "DISK", "GPU", "PORTS", "AT MOST")
    lines = [f"{found.format} {found.version}", "", table(head, [_row(workload) for workload in found.workloads])]
    volumes = [(workload.name, *_volume(it)) for workload in found.workloads for it in workload.volumes]
    if volumes:
        lines += ["", table(("OF", "VOLUME", "MOUNT", "SIZE", "KEPT"), volumes)]
    if found.digest:
        lines += ["", f"Hash on its own network: {found.digest}"]
    if found.price is not None:
        lines += ["", f"Price on its own network: {found.price.amount} {found.price.unit}"]
    if found.notes:
        lines += ["", "Not carried over:"]
        lines += [f"  line {note.line}  {note.field}: {note.reason}." for note in found.notes]
    missing = ", ".join(_not_served(found))
    lines += ["", "Nothing was started: files are read, and running them is a later step."]
    lines += [f"Not run by this version: {missing}."] if missing else []
    return "\n".join(lines)


def _row(workload: Workload) -> tuple[str, ...]:
    needs = workload.resources
    cpu = "-" if needs.cpu_millis is None else f"{needs.cpu_millis / 1000:g}"
    price = f"{workload.price.amount} {workload.price.unit}" if workload.price else "-"
    ports = ", ".join(f"{port.number}/{port.protocol}" for port in workload.ports)
    return (
        workload.name, workload.type, str(workload.count), workload.image or "-", cpu, _size(needs.memory_bytes),
        _size(needs.disk_bytes), _gpu(workload), ports or "-", price,
    )  # fmt: skip


def _gpu(workload: Workload) -> str:
    gpu = workload.resources.gpu
    return "-" if gpu is None else f"{gpu.count}x {' or '.join(gpu.models) or 'any'}"


def _volume(volume: Any) -> tuple[str, ...]:
    kept = "yes" if volume.persistent else "no"
    return (
        volume.name,
        volume.mount or "-",
        _size(volume.size_bytes),
        f"{kept} {volume.medium or volume.sync}".strip(),
    )


def _size(size: int | None) -> str:
    """In the largest unit that leaves at least 1."""
    if size is None:
        return "-"
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.4g} {unit}"
