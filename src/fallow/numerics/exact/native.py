"""The compiled kernel: built on first use where there is a C compiler, and done without elsewhere."""

from __future__ import annotations


def available() -> bool:
    """Whether the compiled kernel can be used here."""
    return False


def reason() -> str:
    """Why it cannot."""
    return "not built yet"
