from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.interop.compose import read
from fallow.interop.model import DiskVolume, FileRefused, GpuNeeds, Import, Port, Workload


def file(**service: Any) -> dict[str, Any]:
    return {"services": {"web": {"image": "nginx:1.27"} | service}, "volumes": {"data": {}}}


def carried(found: Any, values: dict[str, str] | None = None) -> Import:
    return read(json.dumps(found).encode(), values or {})


def web(**service: Any) -> Workload:
    return carried(file(**service)).workloads[0]


def notes(found: Any) -> set[str]:
    return {note.field for note in carried(found).notes}


def test_a_service() -> None:
    found = web(
        entrypoint=["/run"], command="serve --name 'a b'", environment=["A=1", "B"], working_dir="/srv",
        labels={"x": 1},
        depends_on={"db": {}}, deploy={"replicas": 3},
    )  # fmt: skip
    assert (found.entrypoint, found.args) == (("/run",), ("serve", "--name", "a b"))
    assert (found.env, found.working_dir, found.labels) == ({"A": "1", "B": None}, "/srv", {"x": "1"})
    assert (found.depends_on, found.count) == (("db",), 3)
    assert web(scale=2).count == 2 and web(deploy={"replicas": 0}).count == 0


def test_ports() -> None:
    ports = web(
        ports=["8080:80", 443, "127.0.0.1:53:53/udp", {"target": 9, "published": "10", "protocol": "udp"}],
        expose=["70"],
    )
    assert ports.ports == (
        Port(number=80, public=8080, reach=("world",)), Port(number=443, reach=("world",)),
        Port(number=53, public=53, protocol="udp", reach=("world",)),
        Port(number=9, public=10, protocol="udp", reach=("world",)),
        Port(number=70, reach=("services of this file",)),
    )  # fmt: skip


def test_volumes() -> None:
    found = web(volumes=["data:/d:ro", "./here:/x", "/scratch", {"type": "tmpfs", "target": "/t"}])
    assert found.volumes == (
        DiskVolume(name="data", mount="/d", persistent=True, read_only=True),
        DiskVolume(name="scratch2", mount="/scratch"),
        DiskVolume(name="scratch3", mount="/t", medium="ram"),
    )
    assert "services.web.volumes[1]" in notes(file(volumes=["data:/d", "./here:/x"]))


def test_resources() -> None:
    device = {"capabilities": ["gpu"], "count": 2, "driver": "nvidia"}
    limits = {"limits": {"cpus": "0.5", "memory": "512m"}, "reservations": {"devices": [device]}}
    found = web(deploy={"resources": limits}).resources
    assert (found.cpu_millis, found.memory_bytes, found.gpu) == (500, 2**29, GpuNeeds(count=2, models=("nvidia/*",)))
    assert web(cpus=2, mem_limit="1g").resources.memory_bytes == 2**30
    everything = {
        "resources": {"reservations": {"devices": [{"capabilities": ["gpu"], "count": "all", "device_ids": ["0"]}]}}
    }
    assert web(deploy=everything).resources.gpu == GpuNeeds(count=1)


def test_variables() -> None:
    image = "a/$NAME:${TAG:-1}${X+y}$$"
    assert carried(file(image=image), {"NAME": "n", "X": ""}).workloads[0].image == "a/n:1y$"
    assert carried(file(image=image), {"TAG": "2"}).workloads[0].image == "a/:2$"
    assert "services.web.image" in notes(file(image=image))
    with pytest.raises(FileRefused) as caught:
        carried(file(image="${TAG?say which}"))
    assert "say which" in str(caught.value)
    with pytest.raises(FileRefused) as caught:
        carried(file(command=["$X"] * 20), {"X": "y" * 10_000})
    assert caught.value.why == "bound"


def test_what_has_no_place() -> None:
    found = file(
        build=".",
        networks=["a"],
        restart="always",
        healthcheck={"test": "x"},
        env_file=".env",
        privileged=True,
        tty=True,
    ) | {"networks": {"a": {}}, "x-own": 1}
    names = ("build", "networks", "restart", "healthcheck", "env_file", "privileged", "tty")
    assert notes(found) == {"networks", *(f"services.web.{name}" for name in names)}


@pytest.mark.parametrize(
    ("service", "field"),
    [
        ({"image": ""}, "services.web"), ({"ports": ["80-90:80-90"]}, "services.web.ports[0]"),
        ({"ports": ["x"]}, "services.web.ports[0]"), ({"ports": ["70000"]}, "services.web.ports[0]"),
        ({"volumes": ["other:/x"]}, "services.web.volumes[0]"), ({"volumes": ["data:x"]}, "services.web.volumes[0]"),
        ({"cpus": "many"}, "services.web.cpus"), ({"mem_limit": "lots"}, "services.web.mem_limit"),
        ({"deploy": {"replicas": -1}}, "services.web.deploy.replicas"),
        ({"environment": 5}, "services.web.environment"),
    ],
)  # fmt: skip
def test_what_is_refused(service: dict[str, Any], field: str) -> None:
    with pytest.raises(FileRefused) as caught:
        web(**service)
    assert field in [problem.field for problem in caught.value.problems]


def test_files_without_services() -> None:
    for text in (b"", b"services: {}", b"services: 5", b"[]", b"services: {'a b': {image: x}}"):
        with pytest.raises(FileRefused):
            read(text, {})


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text("$:{}/.-aA1", max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)
FIELDS = (
    "image",
    "command",
    "environment",
    "ports",
    "volumes",
    "deploy",
    "depends_on",
    "expose",
    "cpus",
    "labels",
    "build",
)


@given(st.sampled_from(FIELDS), values)
def test_no_value_anywhere_is_more_than_a_refusal(field: str, value: Any) -> None:
    for found in (file(**{field: value}), file(**{field: [value]}), {"services": value}):
        try:
            carried(found)
        except FileRefused:
            continue
