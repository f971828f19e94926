from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.interop.bacalhau.job import read
from fallow.interop.model import DataPlace, FileRefused, GpuNeeds, Import, Port, Resources


def job(task: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A small batch job; `task` adds to its task, `changes` to the job."""
    engine = {
        "Type": "docker",
        "Params": {"Image": "busybox:1.37", "Entrypoint": ["/bin/sh"], "Parameters": ["-c", "true"]},
    }
    return {
        "Name": "small",
        "Type": "batch",
        "Count": 2,
        "Tasks": [{"Name": "main", "Engine": engine} | (task or {})],
    } | changes


def carried(found: Any) -> Import:
    return read(json.dumps(found).encode(), None)


def fields(found: Any) -> list[str]:
    with pytest.raises(FileRefused) as caught:
        carried(found)
    return [problem.field for problem in caught.value.problems]


def folded(value: Any, how: Any, *, kept: bool = False) -> Any:
    """The same with all keys in another case, but for those that are a person's own."""
    if isinstance(value, dict):
        return {
            key if kept else how(key): folded(one, how, kept=key in ("Env", "Labels", "Meta"))
            for key, one in value.items()
        }
    return [folded(one, how) for one in value] if isinstance(value, list) else value


def test_a_small_job() -> None:
    found = carried(job())
    (work,) = found.workloads
    assert (found.name, work.type, work.count, work.engine, work.image) == (
        "small",
        "batch",
        2,
        "container",
        "busybox:1.37",
    )
    assert (work.entrypoint, work.args) == (("/bin/sh",), ("-c", "true"))
    assert not found.notes


@pytest.mark.parametrize("how", [str.lower, str.upper, str.title])
def test_the_case_of_keys_means_nothing(how: Any) -> None:
    full = job({"Env": {"aB": "1"}, "Resources": {"CPU": "500m"}}, Labels={"xY": "z"})
    assert carried(folded(full, how)).workloads == carried(full).workloads


def test_the_interface_wraps_the_same_job() -> None:
    wrapped = {"Job": job({"Publisher": {}})}
    assert carried(wrapped).workloads == carried(job()).workloads


def test_everything_a_task_may_have() -> None:
    bucket = {"Type": "s3", "Params": {"Bucket": "b", "Key": "k/", "Filter": "*.csv"}}
    (work,) = carried(
        job({
            "Env": {"A": "1", "B": "env:HOME"},
            "Resources": {"CPU": 1.5, "Memory": "512Mb", "Disk": "1GiB", "GPU": "2"},
            "InputSources": [{"Source": bucket, "Target": "/in", "Alias": "x"}],
            "ResultPaths": [{"Name": "out", "Path": "/out"}],
            "Publisher": {"Type": "local"},
            "Network": {"Type": "Bridge", "Ports": [{"Name": "http", "Static": 8080, "Target": 80}]},
            "Timeouts": {"ExecutionTimeout": 60, "QueueTimeout": 5},
        })
    ).workloads  # fmt: skip
    assert work.env == {"A": "1", "B": None}
    assert work.resources == Resources(
        cpu_millis=1500, memory_bytes=512_000_000, disk_bytes=2**30, gpu=GpuNeeds(count=2)
    )
    source = {"Bucket": "b", "Key": "k/", "Filter": "*.csv"}
    assert work.inputs == (DataPlace(kind="s3", place="s3://b/k/", path="/in", name="x", details=source),)
    assert work.outputs == (DataPlace(kind="result", path="/out", name="out"),)
    assert work.publish == DataPlace(kind="local")
    assert work.ports == (Port(number=80, public=8080, reach=("world",)),) and work.network == "bridge"
    assert (work.timeout_s, work.queue_timeout_s) == (60, 5)


def test_wasm_old_and_new() -> None:
    source = {"Type": "inline", "Params": {"URL": "data:application/wasm;base64,AGFzbQ=="}}
    new = job({
        "Engine": {"Type": "wasm", "Params": {"EntryModule": "/main.wasm", "Entrypoint": "_start"}},
        "InputSources": [{"Source": source, "Target": "/main.wasm"}],
    })  # fmt: skip
    old = job({"Engine": {"Type": "wasm", "Params": {"EntryModule": {"Source": source}, "Entrypoint": "_start"}}})
    assert carried(old).workloads == carried(new).workloads
    assert carried(new).workloads[0].entrypoint == ("_start",)


def test_engines_that_nobody_knows_keep_their_name() -> None:
    (work,) = carried(job({"Engine": {"Type": "Flibble", "Params": {"Some": "data"}}})).workloads
    assert work.engine == "flibble"


@pytest.mark.parametrize("kind", ["ops", "daemon"])
def test_jobs_of_every_node_have_no_count(kind: str) -> None:
    assert carried(job(Type=kind, Count=0)).workloads[0].count == 0
    assert fields(job(Type=kind, Count=2)) == ["Count"]


@pytest.mark.parametrize(
    ("found", "field"),
    [
        (job(Type="cron"), "Type"), (job(Type=""), "Type"), (job(Count=-1), "Count"), (job(Count="x"), "Count"),
        (job(Tasks=[]), ""), (job(Tasks=[5]), "Tasks[0]"), (job({"Name": " "}), "Tasks[0]"),
        (job({"Engine": {}}), "Tasks[0].Engine"),
        (job({"Engine": {"Type": "docker"}}), "Tasks[0].Engine.Params.Image"),
        (job({"Env": {"BACALHAU_X": "1"}}), "Tasks[0].Env.BACALHAU_X"),
        (job({"Engine": {"Type": "wasm"}}), "Tasks[0].Engine.Params.EntryModule"),
        (job({"Env": {"": "1"}}), "Tasks[0].Env."),
        (job({"Resources": {"CPU": "many"}}), "Tasks[0].Resources.CPU"),
        (job({"Resources": {"GPU": "x"}}), "Tasks[0].Resources.GPU"),
        (job({"Resources": {"Memory": "1 lot"}}), "Tasks[0].Resources.Memory"),
        (job({"Timeouts": {"QueueTimeout": -1}}), "Tasks[0].Timeouts.QueueTimeout"),
        (job({"InputSources": [{"Source": {"Type": "s3"}}]}), "Tasks[0].InputSources[0]"),
        (job({"InputSources": [{"Target": "/x"}]}), "Tasks[0].InputSources[0]"),
        (job({"InputSources": [{"Source": {"Type": "s3"}, "Target": "/x"}] * 2}), "Tasks[0].InputSources[1]"),
        (job({"ResultPaths": [{"Name": "a", "Path": "b"}]}), "Tasks[0].ResultPaths[0]"),
        (job({"Network": {"Type": "wifi"}}), "Tasks[0].Network.Type"),
        (job({"Network": {"Type": "none", "Ports": [{"Name": "a"}]}}), "Tasks[0].Network.Ports"),
        (job({"Network": {"Domains": ["a.b"]}}), "Tasks[0].Network.Domains"),
        (job({"Network": {"Type": "http", "Domains": ["%"]}}), "Tasks[0].Network.Domains[0]"),
        (job(Constraints=[{"Key": "a", "Operator": "like"}]), "Constraints[0]"),
        ({"APIVersion": "V1beta1", "Spec": {}}, "Spec"),
    ],
)  # fmt: skip
def test_what_is_refused(found: Any, field: str) -> None:
    assert field in fields(found)


def test_what_has_no_place() -> None:
    task = job({"Meta": {"a": "b"}, "Colour": "red", "ResultPaths": [{"Name": "o", "Path": "/o"}]})["Tasks"][0]
    found = carried(
        job(
            Tasks=[task, task],
            Namespace="mine",
            Priority=5,
            Meta={"bacalhau.org/x": "1"},
            ID="j-1",
            Constraints=[{"Key": "gpu", "Operator": "exists"}],
        )
    )
    assert {note.field for note in found.notes} == {
        "Namespace", "Priority", "Meta.bacalhau.org/x", "ID", "Constraints", "Tasks[1]",
        "Tasks[0]", "Tasks[0].Meta", "Tasks[0].Colour",
    }  # fmt: skip
    assert found.workloads[0].placement.requires == ("gpu exists",)


def test_templates() -> None:
    text = b"Name: {{.name}}\nType: batch\nTasks:\n  - Name: main\n    Engine: {Type: noop}\n"
    assert read(text, {"name": "x"}).name == "x"
    with pytest.raises(FileRefused):
        read(text, {})
    assert read(text.replace(b"{{.name}}", b'"{{.name}}"'), None).name == "{{.name}}"


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
PLACES = ("Name", "Type", "Count", "Tasks", "Labels", "Meta", "Constraints", "Job", "Priority", "ID")
IN_TASKS = (
    "Name",
    "Engine",
    "Env",
    "Publisher",
    "InputSources",
    "ResultPaths",
    "Resources",
    "Network",
    "Timeouts",
    "Meta",
)


@given(st.sampled_from(PLACES), st.sampled_from(IN_TASKS), values, values)
def test_no_value_anywhere_is_more_than_a_refusal(outer: str, inner: str, one: Any, other: Any) -> None:
    for found in (
        job({inner: one}),
        job(**{outer: other}),
        job({inner: {"Type": "docker", "Params": one}}),
        job({inner: [other]}),
    ):
        try:
            carried(found)
        except FileRefused:
            continue
