"""Amounts as people write them for containers: `0.5` or `500m` CPUs, `512Mb`, `1GiB`, `2g` of memory."""

from __future__ import annotations

import re

CPU = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(m?)")
SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([kmgtpe]?)(i?)(b?)")
POWERS = "kmgtpe"


def cpu_millis(text: str) -> int | None:
    """Thousandths of a CPU; None for no amount."""
    match = CPU.fullmatch(text.strip().lower())
    return None if match is None else round(float(match[1]) * (1 if match[2] else 1000))


def size_bytes(text: str, *, binary: bool = False) -> int | None:
    """Bytes; None for no amount. `Ki` is always 1024, and `k` is 1000, or with `binary` 1024."""
    match = SIZE.fullmatch(text.strip().lower().replace(",", ""))
    if match is None or (match[3] and not match[2]):
        return None
    base = 1024 if match[3] or binary else 1000
    return int(float(match[1]) * base ** (POWERS.find(match[2]) + 1 if match[2] else 0))
