"""A Bacalhau job: its rules, and what it becomes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from fallow.interop.amounts import cpu_millis, size_bytes
from fallow.interop.bacalhau.template import fill_in
from fallow.interop.folded import Folded, each_once
from fallow.interop.model import (
    DataPlace,
    FileRefused,
    GpuNeeds,
    Import,
    JobType,
    Placement,
    Port,
    Problem,
    Remark,
    Resources,
    Workload,
)
from fallow.interop.shape import Trouble, problems_of
from fallow.interop.tree import Path, compose, field_of, js_word, line_of, to_data

ENGINES = {"docker": "container"}
"""What an engine is called here, where it is called otherwise."""
TYPES: dict[str, JobType] = {"batch": "batch", "ops": "ops", "daemon": "daemon", "service": "service"}
EVERYWHERE = ("ops", "daemon")
OPERATORS = ("in", "notin", "exists", "!", "gt", "lt", "=", "==", "!=")
NETWORKS = ("default", "none", "host", "full", "http", "bridge")
WITH_PORTS = ("host", "full", "bridge")
OLD_MODULE = "/main.wasm"
"""Where a module is put that an old file gives by its source and not by the path of an input."""
DOMAIN = re.compile(r"\b([a-z0-9]+(-[a-z0-9]+)*\.)+[a-z]{2,}\b")
OF_THE_SERVER = ("ID", "State", "Version", "Revision", "CreateTime", "ModifyTime")
PLACES = {
    "ipfs": "CID",
    "urldownload": "URL",
    "inline": "URL",
    "local": "SourcePath",
    "localdirectory": "SourcePath",
    "s3managed": "JobID",
    "s3presigned": "PreSignedURL",
}
"""Which parameter of a source says where it is."""


def read(data: bytes, values: Mapping[str, str] | None) -> Import:
    """A job; `values` fill in its template, and with None it is none. Raises FileRefused."""
    root = compose(fill_in(data, values) if values is not None else data)
    if root is None:
        raise FileRefused(Problem(line=0, field="", met="an empty file", accepted="a job"))
    reader = _Reader()
    found = reader.job(to_data(root))
    if reader.troubles:
        raise FileRefused(*problems_of(reader.troubles, root))
    notes = [Remark(line=line_of(root, path), field=field_of(path), reason=reason) for path, reason in reader.notes]
    return Import(
        format="bacalhau",
        version="v1",
        name=reader.name,
        workloads=(found,),
        notes=tuple(sorted(notes, key=lambda note: note.line)),
    )


class _Reader:
    """Looks at one job, and keeps what is wrong and what has no place."""

    def __init__(self) -> None:
        self.troubles: list[Trouble] = []
        self.notes: list[tuple[Path, str]] = []
        self.name = ""

    def note(self, reason: str, path: Path) -> None:
        self.notes.append((path, reason))

    def overlooked(self, part: Folded) -> None:
        for key in part.unasked():
            self.note("Bacalhau does not know this field", (*part.path, key))

    def job(self, data: Any) -> Workload:
        job = Folded(data, (), self.troubles)
        if "job" in job.fields:
            job = job.part("Job")
        if "spec" in job.fields and "tasks" not in job.fields:
            job.trouble("a job of the interface V1beta1, which is gone", "a job with Tasks", job.at("Spec")[-1])
            return Workload(name="", type="batch")
        kind, tasks = self._kind(job), job.parts("Tasks")
        count = self._count(job, kind)
        self.name = job.word("Name")
        placement = self._constraints(job)
        self._top_notes(job)
        labels = job.pairs("Labels")
        if not tasks:
            job.trouble("no tasks", "Tasks: with one task")
            return Workload(name="", type=kind)
        for extra in tasks[1:]:
            self.note("only the first task counts, as with Bacalhau", extra.path)
        self.overlooked(job)
        return self._task(tasks[0], kind, count, placement, labels)

    def _kind(self, job: Folded) -> JobType:
        written = job.word("Type")
        if written not in TYPES:
            self.troubles.append(Trouble(repr(written) if written else "no type", ", ".join(TYPES), *job.at("Type")))
        return TYPES.get(written, "batch")

    def _count(self, job: Folded, kind: JobType) -> int:
        count = job.number("Count")
        if kind in EVERYWHERE:
            if count is not None and count > 1:
                met = f"{count} for a job that runs on every node"
                self.troubles.append(Trouble(met, "no count", *job.at("Count")))
            return 0
        return 1 if count is None else count

    def _constraints(self, job: Folded) -> Placement:
        found: list[str] = []
        for one in job.parts("Constraints"):
            key, operator, values = one.word("Key"), one.word("Operator").lower(), one.words("Values")
            if not key or operator not in OPERATORS:
                one.trouble(f"{key or 'no key'} {operator or 'no operator'}", f"a key and one of {' '.join(OPERATORS)}")
            found.append(" ".join([key, operator, ",".join(values)]).strip())
        if found:
            self.note("labels of Bacalhau's nodes; kept as a wish that nothing fulfils", job.at("Constraints"))
        return Placement(requires=tuple(found))

    def _top_notes(self, job: Folded) -> None:
        if job.word("Namespace", "default") not in ("", "default"):
            self.note("jobs here belong to an account, and there are no namespaces", job.at("Namespace"))
        if job.number("Priority", -(2**31)):
            self.note("jobs here wait by what they offer, not by a number", job.at("Priority"))
        for key in job.pairs("Meta"):
            reserved = key.startswith("bacalhau.org/")
            self.note("reserved by Bacalhau" if reserved else "there is no place for it", (*job.at("Meta"), key))
        for name in OF_THE_SERVER:
            if job.raw(name):
                self.note("set by Bacalhau's server, and ignored when a job is handed in", job.at(name))

    # the task

    def _task(self, task: Folded, kind: JobType, count: int, placement: Placement, labels: dict[str, str]) -> Workload:
        if not task.word("Name").strip():
            task.trouble("no name", "Name")
        engine = task.part("Engine")
        written = engine.word("Type")
        if not written.strip():
            self.troubles.append(Trouble("no engine", "Engine: with Type", *engine.path))
        params = engine.part("Params")
        outputs, publish = self._outputs(task), self._source(task.part("Publisher"), "")
        if outputs and publish is None:
            self.note("Bacalhau publishes results only with a Publisher; here they come back with the job", task.path)
        inputs = self._inputs(task)
        network, ports = self._network(task.part("Network"))
        timeouts = task.part("Timeouts")
        execution, total = timeouts.number("ExecutionTimeout"), timeouts.number("TotalTimeout")
        if task.pairs("Meta"):
            self.note("there is no place for it", task.at("Meta"))
        found = Workload(
            name=task.word("Name"),
            type=kind,
            engine=ENGINES.get(written.lower(), written.lower()),
            env=self._env(task) | self._engine_env(params),
            entrypoint=self._entrypoint(params),
            args=params.words("Parameters"),
            image=self._image(params, written.lower(), inputs),
            working_dir=params.word("WorkingDirectory"),
            ports=ports,
            resources=self._resources(task.part("Resources")),
            count=count,
            placement=placement,
            network=network,
            inputs=tuple(inputs),
            outputs=outputs,
            publish=publish,
            timeout_s=execution or total or None,
            queue_timeout_s=timeouts.number("QueueTimeout") or None,
            labels=labels,
        )
        for part in (task, timeouts, *([params] if written.lower() in ("docker", "wasm") else [])):
            self.overlooked(part)
        return found

    def _entrypoint(self, params: Folded) -> tuple[str, ...]:
        """A list for a container, a function's name for WASM."""
        value = params.raw("Entrypoint")
        return (value,) if isinstance(value, str) and value else params.words("Entrypoint") if value else ()

    def _image(self, params: Folded, engine: str, inputs: list[DataPlace]) -> str:
        """The container's image, or where the module is: a path of an input, or what old files have, an input
        itself."""
        if engine == "docker":
            image = params.word("Image")
            if not image.strip():
                self.troubles.append(Trouble("no image", "Image, as busybox:1.37", *params.path, "Image"))
            return image
        if engine != "wasm":
            return ""
        params.raw("ImportModules")
        if isinstance(params.raw("EntryModule"), dict):
            module = params.part("EntryModule")
            path = module.word("Target") or OLD_MODULE
            source = self._source(module.part("Source"), path, module.word("Alias"))
            if source is None:
                self.troubles.append(Trouble("no source", "Source: with Params", *module.path))
            else:
                inputs.append(source)
            return path
        module = params.word("EntryModule")
        if not module:
            self.troubles.append(Trouble("no module", "EntryModule, a path of an input", *params.path, "EntryModule"))
        return module

    def _env(self, task: Folded) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for name, value in task.pairs("Env").items():
            at = (*task.at("Env"), name)
            if not name.strip() or name.upper().startswith("BACALHAU_"):
                self.troubles.append(Trouble(repr(name), "a name that does not begin with BACALHAU_", *at))
            if value.startswith("env:"):
                self.note("a variable of the provider's machine, of which nothing is visible here", at)
            found[name] = None if value.startswith("env:") else value
        return found

    def _engine_env(self, params: Folded) -> dict[str, str | None]:
        """`K=V` lines for a container, a mapping for WASM."""
        if isinstance(params.raw("EnvironmentVariables"), dict):
            return dict(params.pairs("EnvironmentVariables"))
        pairs = (line.partition("=") for line in params.words("EnvironmentVariables"))
        return {name: value if sign else None for name, sign, value in pairs}

    def _resources(self, part: Folded) -> Resources:
        found: dict[str, int | None] = {}
        for name, measure in (("CPU", cpu_millis), ("Memory", size_bytes), ("Disk", size_bytes)):
            written = part.word(name)
            found[name] = measure(written) if written else None
            if written and found[name] is None:
                self.troubles.append(Trouble(repr(written), "an amount, as 0.5, 500m or 512Mb", *part.at(name)))
        gpus = part.word("GPU", "0") or "0"
        if not re.fullmatch(r"[0-9]{1,6}", gpus.strip()):
            self.troubles.append(Trouble(repr(gpus), "a whole number of GPUs", *part.at("GPU")))
            gpus = "0"
        gpu = GpuNeeds(count=int(gpus)) if int(gpus) else None
        self.overlooked(part)
        return Resources(cpu_millis=found["CPU"], memory_bytes=found["Memory"], disk_bytes=found["Disk"], gpu=gpu)

    def _network(self, part: Folded) -> tuple[str, tuple[Port, ...]]:
        kind = part.word("Type", "Default").strip().lower() or "default"
        domains, mapped = part.words("Domains"), part.parts("Ports")
        if kind not in NETWORKS:
            self.troubles.append(Trouble(repr(kind), ", ".join(NETWORKS), *part.at("Type")))
        if domains and kind != "http":
            self.troubles.append(Trouble(f"domains with network {kind}", "Type: HTTP beside them", *part.at("Domains")))
        for place, domain in enumerate(domains):
            if not DOMAIN.search(domain.strip().lower()) and not re.fullmatch(r"[0-9a-f.:]+", domain):
                self.troubles.append(Trouble(repr(domain), "a domain, as example.com", *part.at("Domains"), place))
        if mapped and kind not in WITH_PORTS:
            self.troubles.append(Trouble(f"ports with network {kind}", "Type: Host or Bridge", *part.at("Ports")))
        ports: list[Port] = []
        for one in mapped:
            static, target = one.number("Static", 1), one.number("Target", 1)
            name = one.word("Name")
            if not name or max(static or 0, target or 0) > 65535:
                one.trouble("a port without a name, or above 65535", "Name, Static and Target up to 65535")
            ports.append(Port(number=target or static or 0, public=static, reach=("world",), host_names=()))
        self.overlooked(part)
        return " ".join([kind, *domains]), tuple(ports)

    def _inputs(self, task: Folded) -> list[DataPlace]:
        found: list[DataPlace] = []
        targets: list[tuple[str, Path]] = []
        aliases: list[tuple[str, Path]] = []
        for one in task.parts("InputSources"):
            target = one.word("Target").strip()
            if not target:
                one.trouble("no target", "Target, the path that the job sees")
            source = self._source(one.part("Source"), target, one.word("Alias").strip())
            if source is None:
                one.trouble("no source", "Source: with Type")
            else:
                found.append(source)
            targets.append((target, one.path))
            aliases.append((one.word("Alias"), one.path))
            self.overlooked(one)
        each_once(targets, "the target", self.troubles.append)
        each_once(aliases, "the alias", self.troubles.append)
        return found

    def _source(self, part: Folded, path: str, name: str = "") -> DataPlace | None:
        """Where something comes from or goes to; None for nothing, as for an empty publisher."""
        kind, params = part.word("Type"), part.part("Params")
        if not kind and not params.fields and ("URL" not in str(part.fields)):
            return None
        details = {key: js_word(value) for key, value in params.fields.values() if not isinstance(value, (dict, list))}
        for key, value in params.fields.values():
            if isinstance(value, dict):
                inner = cast("dict[str, Any]", value)
                details |= {
                    f"{key}.{one}": js_word(it) for one, it in inner.items() if not isinstance(it, (dict, list))
                }
        folded = kind.lower() or "inline"
        if folded == "s3":
            place = f"s3://{params.word('Bucket')}/{params.word('Key')}"
        else:
            place = params.word(PLACES[folded]) if folded in PLACES else ""
        return DataPlace(kind=folded, place=place, path=path, name=name, details=details)

    def _outputs(self, task: Folded) -> tuple[DataPlace, ...]:
        found: list[DataPlace] = []
        for one in task.parts("ResultPaths"):
            name, path = one.word("Name"), one.word("Path")
            if not name.strip() or not path.startswith("/"):
                one.trouble(f"{name or 'no name'}: {path or 'no path'}", "Name, and a Path that begins with /")
            found.append(DataPlace(kind="result", path=path, name=name))
            self.overlooked(one)
        each_once([(it.name, task.at("ResultPaths")) for it in found], "the name", self.troubles.append)
        each_once([(it.path, task.at("ResultPaths")) for it in found], "the path", self.troubles.append)
        return tuple(found)
