from __future__ import annotations

from typing import Any

from tests.interop.akash.files import changed, sdl, text

from fallow.interop.akash.carry import read
from fallow.interop.model import DiskVolume, GpuNeeds, Port, Price, Secret

WEB, RESOURCES = "services.web", "profiles.compute.web.resources"


def notes(file: Any, *, strictly: bool = True) -> set[str]:
    return {note.field for note in read(text(file), strictly=strictly).notes}


def test_a_small_file() -> None:
    found = read(text(sdl()))
    (web,) = found.workloads
    assert (found.format, found.version, web.name, web.type, web.image) == (
        "akash",
        "2.0",
        "web",
        "service",
        "nginx:1.27",
    )
    assert web.ports == (Port(number=80, public=80, reach=("world",)),)
    needs = web.resources
    assert (needs.cpu_millis, needs.memory_bytes, needs.disk_bytes, needs.gpu) == (500, 2**29, 2**30, None)
    assert web.price == Price(amount="100", unit="uakt per block, each instance")
    assert len(found.digest) == 64


def test_what_becomes_of_the_parts() -> None:
    gpu = {"units": 2, "attributes": {"vendor": {"nvidia": [{"model": "a100"}]}}}
    data = {"size": "1Gi", "name": "data", "attributes": {"persistent": True, "class": "beta3"}}
    file = changed(f"{RESOURCES}.gpu", gpu, changed(f"{RESOURCES}.storage", [{"size": "2Gi"}, data]))
    file = changed(f"{WEB}.params", {"storage": {"data": {"mount": "/d", "readOnly": True}}}, file)
    file = changed(f"{WEB}.env", ["A=1=2", "B"], changed(f"{WEB}.command", ["sh", "-c"], file))
    file = changed(f"{WEB}.credentials", {"host": "h", "username": "u", "password": "secret"}, file)
    file["services"]["web"]["expose"][0]["to"].append({"service": "db"})
    (web,) = read(text(file)).workloads
    assert web.resources.gpu == GpuNeeds(count=2, models=("nvidia/a100",)) and web.resources.disk_bytes == 2**31
    assert web.volumes == (
        DiskVolume(name="data", mount="/d", size_bytes=2**30, persistent=True, medium="beta3", read_only=True),
    )
    assert web.env == {"A": "1=2", "B": None} and web.entrypoint == ("sh", "-c")
    assert web.registry == Secret(host="h", user="u")
    assert set(web.ports[0].reach) == {"world", "db"}


def test_any_gpu_and_a_leased_address() -> None:
    gpu = {"units": 1, "attributes": {"vendor": {"nvidia": None}}}
    file = changed(f"{RESOURCES}.gpu", gpu, changed("endpoints", {"front": {"kind": "ip"}}))
    file = changed(f"{WEB}.expose.0.to", [{"global": True, "ip": "front"}], file)
    (web,) = read(text(file)).workloads
    assert web.resources.gpu == GpuNeeds(count=1)
    assert web.ports[0].reach == ("ip front",)


def test_everything_without_a_place_here_is_told_with_its_line() -> None:
    file = changed(
        "profiles.placement.dc.attributes", {"host": "akash"}, changed("endpoints", {"front": {"kind": "ip"}})
    )
    file = changed("profiles.placement.dc.signedBy", {"allOf": ["a"]}, changed("include", ["x"], file))
    file = changed(f"{WEB}.expose.0.to", [{"global": True, "ip": "front"}], file)
    file = changed(
        f"{WEB}.expose.0.http_options", {"next_tries": 1}, changed(f"{WEB}.dependencies", [{"service": "x"}], file)
    )
    file = changed(f"{WEB}.params", {"permissions": {"read": ["logs"]}}, file)
    assert notes(file) == {
        "endpoints", "include", "services.web.dependencies", "services.web.expose[0].http_options",
        "services.web.params.permissions", "profiles.placement.dc.attributes", "profiles.placement.dc.signedBy",
        "profiles.placement.dc.pricing",
    }  # fmt: skip
    lines = [note.line for note in read(text(file)).notes]
    assert lines == sorted(lines) and 0 not in lines


def test_the_lenient_reader_tells_what_it_overlooked() -> None:
    file = changed(f"{WEB}.restart", "always", changed("reclamation", {"min_window": "24h"}))
    file = changed(f"{WEB}.params", {"tee": "cpu"}, file)
    assert notes(file, strictly=False) >= {"services.web.restart", "reclamation", "services.web.params.tee"}
    file["services"]["spare"] = {"image": "x"}
    assert "services.spare" in notes(file, strictly=False)
