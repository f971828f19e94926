"""A manifest's canonical bytes and their hash, which Akash's chain keeps as the deployment's version.

JSON with sorted keys and no spaces, in UTF-8, with `<`, `>` and `&` escaped as Go's encoder does; quantities are texts.
"""

from __future__ import annotations

import hashlib
import json

from fallow.interop.tree import FieldMap


def canonical_json(groups: list[FieldMap]) -> str:
    """The manifest as text. A lone surrogate stays an escape, as in JavaScript."""
    text = json.dumps(groups, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    if "<" in text or ">" in text or "&" in text:
        text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return text


def digest_of(canonical: str) -> str:
    """SHA-256 of the canonical text, in hex."""
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()
