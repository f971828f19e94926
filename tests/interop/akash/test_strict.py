"""What refers to what, and the manifest."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.interop.akash.files import changed, digest, problems, sdl, strictly, text

from fallow.interop.akash.canonical import canonical_json

WEB, RESOURCES = "services.web", "profiles.compute.web.resources"
PERSISTENT = {"size": "1Gi", "name": "data", "attributes": {"persistent": True, "class": "beta3"}}


def two() -> dict[str, Any]:
    """A web service and its database, which only the first may reach."""
    file = sdl()
    file["services"]["db"] = {"image": "postgres:16", "expose": [{"port": 5432, "to": [{"service": "web"}]}]}
    file["deployment"]["db"] = {"dc": {"profile": "web", "count": 2}}
    return file


def leased(**expose: Any) -> dict[str, Any]:
    file = changed(f"{WEB}.expose.0", {"port": 80, "to": [{"global": True, "ip": "front"}], **expose})
    return changed("endpoints", {"front": {"kind": "ip"}}, file)


@pytest.mark.parametrize(
    ("file", "field"),
    [
        (changed("deployment", {}), "deployment"),
        (changed("deployment.web", {"elsewhere": {"profile": "web", "count": 1}}), "deployment.web.elsewhere"),
        (changed("deployment.web.dc.profile", "big"), "deployment.web.dc.profile"),
        (changed("deployment.ghost", {"dc": {"profile": "web", "count": 1}}), "deployment.ghost"),
        (changed("profiles.placement.dc.pricing", {}), "profiles.placement.dc.pricing"),
        (changed("endpoints", {"front": {"kind": "ip"}}), "endpoints.front"),
        (changed("endpoints", {"other": {"kind": "ip"}}, leased()), "services.web.expose[0].to[0].ip"),
        (changed(f"{WEB}.params", {"storage": {"data": {"mount": "/d"}}}), "services.web.params.storage.data"),
        (changed(f"{RESOURCES}.storage", [PERSISTENT]), "services.web.params.storage.data"),
    ],
)
def test_names_that_lead_nowhere(file: dict[str, Any], field: str) -> None:
    assert field in [problem.field for problem in problems(strictly, file)]


def test_two_volumes_in_one_place() -> None:
    file = changed(f"{RESOURCES}.storage", [{"size": "1Gi", "name": "a"}, {"size": "1Gi", "name": "b"}])
    mounts = {"a": {"mount": "/x"}, "b": {"mount": "/x"}}
    (found,) = problems(strictly, changed(f"{WEB}.params", {"storage": mounts}, file))
    assert "where a is" in found.met


def test_a_port_of_a_leased_address_is_taken_once() -> None:
    file = leased()
    file["services"]["web"]["expose"].append({"port": 8080, "as": 80, "to": [{"global": True, "ip": "front"}]})
    (found,) = problems(strictly, file)
    assert "port 80 TCP of front" in found.met
    file["services"]["web"]["expose"][1]["proto"] = "udp"
    assert problems(strictly, file) == ()


def test_the_whole_manifest_of_a_small_file() -> None:
    """Computed once by Akash's own library from this very file."""
    assert canonical_json(strictly(sdl())) == (
        '[{"name":"dc","services":[{"args":null,"command":null,"count":1,"credentials":null,"env":null,'
        '"expose":[{"endpointSequenceNumber":0,"externalPort":80,"global":true,"hosts":null,'
        '"httpOptions":{"maxBodySize":1048576,"nextCases":["error","timeout"],"nextTimeout":0,"nextTries":3,'
        '"readTimeout":60000,"sendTimeout":60000},"ip":"","port":80,"proto":"TCP","service":""}],'
        '"image":"nginx:1.27","name":"web","resources":{"cpu":{"units":{"val":"500"}},'
        '"endpoints":[{"sequence_number":0}],"gpu":{"units":{"val":"0"}},"id":1,'
        '"memory":{"size":{"val":"536870912"}},"storage":[{"name":"default","size":{"val":"1073741824"}}]}}]}]'
    )


def test_kinds_of_endpoints() -> None:
    def endpoints(file: dict[str, Any]) -> Any:
        return strictly(file)[0]["services"][0]["resources"]["endpoints"]

    assert endpoints(changed(f"{WEB}.expose.0.as", 8080)) == [{"kind": 1, "sequence_number": 0}]
    assert endpoints(changed(f"{WEB}.expose.0.proto", "udp")) == [{"kind": 1, "sequence_number": 0}]
    assert endpoints(leased()) == [{"sequence_number": 0}, {"kind": 2, "sequence_number": 1}]
    assert endpoints(changed(f"{WEB}.expose.0.to", [])) == []


def test_services_are_sorted_and_share_the_number_of_their_profile() -> None:
    services = strictly(two())[0]["services"]
    assert [(it["name"], it["resources"]["id"]) for it in services] == [("db", 1), ("web", 1)]
    file = two()
    file["profiles"]["compute"]["small"] = file["profiles"]["compute"]["web"]
    file["profiles"]["placement"]["dc"]["pricing"]["small"] = {"denom": "uakt", "amount": 1}
    file["deployment"]["web"]["dc"]["profile"] = "small"
    assert [it["resources"]["id"] for it in strictly(file)[0]["services"]] == [1, 2]


def test_gpus_and_volumes_become_attributes() -> None:
    gpu = {"units": 2, "attributes": {"vendor": {"nvidia": [{"model": "a100", "ram": "80Gi", "interface": "sxm"}]}}}
    storage = [PERSISTENT, {"size": "1Gi", "name": "shm", "attributes": {"class": "ram"}}]
    file = changed(f"{RESOURCES}.gpu", gpu, changed(f"{RESOURCES}.storage", storage))
    file = changed(f"{WEB}.params", {"storage": {"data": {"mount": "/d"}, "shm": {"mount": "/dev/shm"}}}, file)
    resources = strictly(file)[0]["services"][0]["resources"]
    key = "vendor/nvidia/model/a100/ram/80Gi/interface/sxm"
    assert resources["gpu"] == {"units": {"val": "2"}, "attributes": [{"key": key, "value": "true"}]}
    assert resources["storage"][0]["attributes"] == [
        {"key": "class", "value": "beta3"}, {"key": "persistent", "value": "true"},
    ]  # fmt: skip
    assert resources["storage"][1]["attributes"][1] == {"key": "persistent", "value": "false"}


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        return {key: shuffled(value[key], chance) for key in keys}
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


letters = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff\ufffe\uffff")
"""Without what YAML does not allow to stand for itself."""
names = st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True)


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """Files that are in order."""
    file = sdl()
    for name in draw(st.sets(names, max_size=4)) - {"web"}:
        service = copy.deepcopy(file["services"]["web"])
        service["env"] = draw(st.lists(st.text(letters, max_size=8), max_size=3))
        service["image"] = draw(st.text(letters, min_size=1, max_size=9))
        service["expose"][0]["port"] = draw(st.integers(1, 65535))
        file["services"][name] = service
        file["deployment"][name] = {"dc": {"profile": "web", "count": draw(st.integers(1, 50))}}
    units = draw(st.one_of(st.integers(1, 64), st.sampled_from([0.1, 0.29, 2.3, "100m", "1.5"])))
    file["profiles"]["compute"]["web"]["resources"]["cpu"]["units"] = units
    return file


@settings(max_examples=40)
@given(files(), st.randoms(use_true_random=False))
def test_the_order_of_keys_and_the_way_of_writing_never_change_the_hash(
    file: dict[str, Any], chance: random.Random
) -> None:
    expected = digest(strictly(text(file)))
    assert digest(strictly(text(shuffled(file, chance)))) == expected
    for ascii_only in (True, False):
        assert digest(strictly(json.dumps(file, ensure_ascii=ascii_only).encode())) == expected
    flow = yaml.safe_dump(file, default_flow_style=True, width=10_000).encode()
    assert digest(strictly(flow)) == expected


@settings(max_examples=40)
@given(files())
def test_the_canonical_form_is_its_own(file: dict[str, Any]) -> None:
    written = canonical_json(strictly(file))
    assert canonical_json(json.loads(written)) == written
