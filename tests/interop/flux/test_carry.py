from __future__ import annotations

import json

import pytest
from tests.interop.flux.specs import TIERED, spec, with_part

from fallow.interop.flux.carry import read
from fallow.interop.model import DiskVolume, FileRefused, Port, Price, Remark


def notes(found: object) -> dict[str, str]:
    return {note.field: note.reason for note in read(json.dumps(found).encode()).notes}


def test_a_small_one() -> None:
    found = read(json.dumps(with_part(domains=["a.example"])).encode())
    (web,) = found.workloads
    assert (found.format, found.version, found.name, web.count, web.image) == ("flux", "8", "demo", 3, "nginx:1.27")
    assert web.ports == (Port(number=80, public=31000, reach=("world",), host_names=("a.example",)),)
    assert web.env == {"A": "1", "B": None}
    assert (web.resources.cpu_millis, web.resources.memory_bytes, web.resources.disk_bytes) == (1000, 10**9, 10**10)
    assert found.price == Price(amount="2.22", unit="USD per month, all instances")


def test_folders() -> None:
    written = "g:/data|m:logs:/var/log|f:one.conf:/etc/one.conf|0:/other|c:rest"
    (web,) = read(json.dumps(with_part(containerData=written)).encode()).workloads
    kept = "the primary's copy counts"
    assert web.volumes == (
        DiskVolume(name="data", mount="/data", persistent=True, sync=kept),
        DiskVolume(name="logs", mount="/var/log", persistent=True, sync=kept),
        DiskVolume(name="one.conf", mount="/etc/one.conf", persistent=True, medium="file", sync=kept),
    )
    assert "compose[0].containerData" in notes(with_part(containerData=written))
    assert "compose[0].containerData" in notes(with_part(containerData="nowhere"))
    assert "compose[0].containerData" in notes(with_part(containerData=5))


def test_what_has_no_place() -> None:
    found = notes(spec(contacts=["a@b"], geolocation=["acEU"], enterprise="x", nodes=["n"], staticip=True))
    assert set(found) == {"owner", "expire", "contacts", "geolocation", "nodes", "staticip", "enterprise"}
    assert "compose[0].tiered" in notes(with_part(7, **TIERED))
    assert "compose[0].repotag" in notes(with_part(repotag=["x"]))
    assert "compose[0].repoauth" in notes(with_part(repoauth="x") | {"enterprise": "y"})


def test_notes_and_refusals_have_lines() -> None:
    text = json.dumps(spec(), indent=1)
    assert all(isinstance(note, Remark) and note.line > 1 for note in read(text.encode()).notes)
    with pytest.raises(FileRefused) as caught:
        read(text.replace("31000", "22").encode())
    assert caught.value.problems[0].field == "compose[0].ports[0]" and caught.value.problems[0].line > 5
    for nothing in (b"", b"[]", b"5"):
        with pytest.raises(FileRefused):
            read(nothing)
