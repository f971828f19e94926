"""Quantities in SDL files, as the strict reader understands them: `512Mi`, `0.5`, `500m`. Values come out as the
decimal text that goes into the manifest. Numbers are doubles, as where the rules come from (chain-sdk
`ts/src/sdl/sizes.ts`)."""

from __future__ import annotations

import math
import re
from typing import Any

from fallow.interop.tree import js_number

SIZE = re.compile(r"([0-9.]+)([a-zA-Z])([a-zA-Z]*)")
CPU = re.compile(r"([0-9.]+)([a-zA-Z]*)")
LEADING_NUMBER = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+")
LEADING_WHOLE = re.compile(r"\s*([-+]?[0-9]+)")
PREFIXES = "kmgtpe"


def _leading(text: str) -> float | None:
    """The number at the start, as JavaScript's parseFloat: 1.2.3 is 1.2."""
    found = LEADING_NUMBER.match(text)
    return float(found[0]) if found else None


def size_text(written: str) -> str | None:
    """Bytes, rounded up; the second letter tells 1024 from 1000. None for what is no size: a unit is needed."""
    match = SIZE.fullmatch(written)
    value = _leading(match[1]) if match else None
    if match is None or value is None:
        return None
    power = PREFIXES.find(match[2].lower()) + 1
    amount = value * float((1024 if match[3].lower() == "i" else 1000) ** power)
    return js_number(float(math.ceil(amount))) if math.isfinite(amount) else None


def cpu_text(units: Any) -> str | None:
    """Thousandths of a CPU. A text may end in m; a number is of whole CPUs."""
    if not isinstance(units, str):
        return js_number(units * 1000) if math.isfinite(units * 1000) else None
    match = CPU.fullmatch(units)
    value = _leading(match[1]) if match else None
    if match is None or value is None or not math.isfinite(value):
        return None
    return js_number(value if match[2].lower() == "m" else value * 1000)


def gpu_text(units: Any) -> str | None:
    """A count of GPUs; of a text the number it begins with."""
    if not isinstance(units, str):
        return js_number(units)
    match = LEADING_WHOLE.match(units)
    return js_number(float(match[1])) if match else None
