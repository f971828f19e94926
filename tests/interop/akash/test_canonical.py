from __future__ import annotations

import hashlib

from fallow.interop.akash.canonical import canonical_json, digest_of


def test_sorted_without_spaces_and_with_gos_escapes() -> None:
    written = canonical_json([{"b": "<a & b>", "a": ["é\u2028\u0001\n", None]}])
    assert written == '[{"a":["é\u2028\\u0001\\n",null],"b":"\\u003ca \\u0026 b\\u003e"}]'
    assert digest_of(written) == hashlib.sha256(written.encode()).hexdigest()
