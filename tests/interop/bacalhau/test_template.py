from __future__ import annotations

import pytest

from fallow.interop.bacalhau.template import fill_in
from fallow.interop.model import FileRefused


def test_names_are_replaced() -> None:
    assert fill_in(b"a: {{.x}}\nb: '{{ .y_1 }}'", {"x": "1", "y_1": "two"}) == b"a: 1\nb: 'two'"
    assert fill_in(b"a  {{- .x -}}  b{{/* why */}}", {"x": "1"}) == b"a1b"
    assert fill_in(b"plain", {}) == b"plain"


@pytest.mark.parametrize("text", [b"a\n{{.missing}}", b"a\n{{ range .x }}", b"a\n{{ .x | upper }}", b"a\n{{\xff}}"])
def test_what_cannot_be_filled_in_is_named_with_its_line(text: bytes) -> None:
    with pytest.raises(FileRefused) as caught:
        fill_in(text, {"x": "1"})
    assert caught.value.problems[0].line == 2


def test_values_cannot_make_a_file_endless() -> None:
    with pytest.raises(FileRefused) as caught:
        fill_in(b"{{.x}}" * 1000, {"x": "y" * 10_000})
    assert caught.value.why == "bound"
