from __future__ import annotations

from fallow.interop.akash.collate import collation_key


def test_names_are_sorted_as_javascript_does() -> None:
    """Expected: what `names.sort((a, b) => a.localeCompare(b))` gives in Node 20."""
    names = [
        "a b",
        "a_b",
        "a-b",
        "a.b",
        "a1",
        "a10",
        "a2",
        "ab",
        "aB",
        "Ab",
        "AB",
        "b",
        "B",
        "e",
        "E",
        "é",
        "ea",
        "éa",
        "eb",
    ]
    assert sorted(set(names), key=collation_key) == names
    signs = " _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$019aAbBzZ"
    assert sorted(set(signs), key=collation_key) == list(signs)
