"""What is refused of a schema before a grammar is made of it."""

from __future__ import annotations

from typing import Any

import pytest

from fallow.errors import FallowError
from fallow.workloads.schema_bounds import (
    MAX_JOINED_PATTERNS,
    MAX_MULTIPLE,
    MAX_NAME_PATTERNS,
    MAX_PROPERTIES,
    MAX_REFERENCES,
    check_schema,
)


def deep(inner: Any) -> dict[str, Any]:
    return {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"items": {"items": inner}}}]}


TOO_MUCH = {
    "$ref": {"allOf": [{"$ref": "#"}] * (MAX_REFERENCES + 1)},
    "properties": {"properties": {str(n): {} for n in range(MAX_PROPERTIES + 1)}},
    "patternProperties": {"patternProperties": {str(n): {} for n in range(MAX_NAME_PATTERNS + 1)}},
    "pattern": {"allOf": [{"pattern": "a"}] * (MAX_JOINED_PATTERNS + 1)},
    "multipleOf": {"multipleOf": MAX_MULTIPLE + 1},
    "minProperties": {"minProperties": 2, "required": ["a"]},
}


@pytest.mark.parametrize("word", TOO_MUCH)
def test_too_much_is_refused_by_name_however_deep_it_is(word: str) -> None:
    for schema in (TOO_MUCH[word], deep(TOO_MUCH[word])):
        with pytest.raises(FallowError, match="is not supported") as refused:
            check_schema(schema)
        assert word in refused.value.what


@pytest.mark.parametrize(
    "schema",
    [
        {}, {"multipleOf": 0.01}, {"multipleOf": "x"}, {"minProperties": 2, "required": ["a", "b"]},
        {"enum": [TOO_MUCH["multipleOf"]]}, {"const": TOO_MUCH["$ref"]}, {"properties": []}, {"allOf": 7},
        {"properties": {"multipleOf": {"type": "integer"}}},
    ],
)  # fmt: skip
def test_what_is_small_or_only_data_passes(schema: dict[str, Any]) -> None:
    check_schema(schema)
