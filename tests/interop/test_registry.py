from __future__ import annotations

import json

import pytest
from tests.interop.akash.files import sdl
from tests.interop.flux.specs import spec

from fallow.interop.model import FileRefused
from fallow.interop.registry import FORMATS, Settings, by_name, detect, read

FILES = {
    "akash": sdl(),
    "flux": spec(),
    "bacalhau": {"Name": "a", "Type": "batch", "TASKS": [{"Name": "main", "Engine": {"Type": "noop"}}]},
    "compose": {"services": {"web": {"image": "nginx"}}},
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_it_is(name: str) -> None:
    data = json.dumps(FILES[name]).encode()
    assert detect(data).name == name and read(data, Settings()).format == name


def test_a_template_may_be_no_yaml_yet() -> None:
    text = b"Name: {{ .a }} b\nType: batch\nTasks:\n  - Name: main\n    Engine: {Type: noop}\n"
    assert detect(text).name == "bacalhau"
    assert read(text, Settings(values={"a": "x"})).name == "x b"


def test_akash_is_the_strict_one_first() -> None:
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
