"""Quantities in SDL files, as Go's parser decodes them (chain-sdk `go/sdl/units.go`): fractions are cut off, suffixes
must be spelled as they are here, and a size may do without one."""

from __future__ import annotations

import re

from fallow.interop.akash.decode import kind_of
from fallow.interop.shape import Trouble
from fallow.interop.tree import Node, Scalar

SUFFIXES = {
    letter + binary: (1024 if binary else 1000) ** power
    for power, letter in enumerate("KMGTPE", 1)
    for binary in ("i", "")
}
SUFFIXES["k"] = SUFFIXES.pop("K")
FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
UINT = re.compile(r"[0-9]{1,20}")
MAX_UINT64 = 2**64 - 1


def _scaled(text: str, factor: int, most: int) -> int | None:
    """A decimal times a factor, as doubles, cut to a whole number."""
    if len(text) > 64 or not FLOAT.fullmatch(text):
        return None
    value = float(text) * float(factor)
    return int(value) if 0 <= value <= most else None


def _read(node: Node | None, troubles: list[Trouble], value: int | None, accepted: str) -> int:
    if value is None:
        troubles.append(Trouble(kind_of(node), accepted))
    return value or 0


def _text(node: Node | None) -> str:
    return node.text if type(node) is Scalar else ""


def bytes_of(node: Node | None, troubles: list[Trouble]) -> int:
    """A size: 0 for nothing."""
    return 0 if node is None else _read(node, troubles, _bytes(_text(node), SUFFIXES), "a size, as 512Mi")


def _bytes(text: str, suffixes: dict[str, int]) -> int | None:
    suffix = next((name for name in suffixes if text.endswith(name)), "")
    return _scaled(text.removesuffix(suffix), suffixes.get(suffix, 1), MAX_UINT64)


def cpu_of(node: Node | None, troubles: list[Trouble]) -> int:
    """Thousandths of a CPU: `500m` whole ones, else of a decimal number."""
    if node is None:
        return 0
    text = _text(node)
    if text.endswith("m"):
        digits = text[:-1]
        value = int(digits) if UINT.fullmatch(digits) and int(digits) < 2**32 else None
    else:
        value = _scaled(text, 1000, 2**32 - 1)
    return _read(node, troubles, value, "a number of CPUs, as 0.5 or 500m")


def gpu_of(node: Node | None, troubles: list[Trouble]) -> int:
    """A whole number of GPUs."""
    if node is None:
        return 0
    text = _text(node)
    value = int(text) if UINT.fullmatch(text) and int(text) <= MAX_UINT64 else None
    return _read(node, troubles, value, "a whole number of GPUs")


def ram_key(node: Node | None, troubles: list[Trouble]) -> str:
    """A GPU's memory as it stands in an attribute: whole gibibytes."""
    binary = {name: factor for name, factor in SUFFIXES.items() if name.endswith("i")}
    return f"{_read(node, troubles, _bytes(_text(node), binary), 'a size, as 80Gi') // 1024**3}Gi"
