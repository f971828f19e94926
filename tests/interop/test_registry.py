from __future__ import annotations

import json

import pytest
from tests.interop.akash.files import sdl

from fallow.interop.model import FileRefused
from fallow.interop.registry import FORMATS, Settings, by_name, detect, read


def test_a_file_says_what_it_is() -> None:
    assert detect(json.dumps(sdl()).encode()).name == "akash"
    assert read(json.dumps(sdl()).encode(), Settings()).format == "akash"


def test_what_it_is_can_be_said() -> None:
    assert by_name("akash") is FORMATS[0]
    with pytest.raises(KeyError):
        by_name("nomad")


@pytest.mark.parametrize("text", [b"", b"5", b"[]", b"a: 1"])
def test_what_it_is_not(text: bytes) -> None:
    with pytest.raises(FileRefused) as caught:
        detect(text)
    assert caught.value.why == "format"
    assert "Akash" in str(caught.value)
