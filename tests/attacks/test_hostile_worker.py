"""A stranger's code in place of the workload: what it tries as the worker, and that it gets nothing for it. Each attack
runs in each kind of box that this machine can build; the last test shows that outside of one they work."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from fallow.adapters.runners import boxing
from fallow.adapters.runners.box import LANDLOCK, NAMESPACES
from fallow.adapters.runners.process import ProcessRunner, ProcessWorker
from fallow.errors import FallowError
from fallow.node.folders import remove
from fallow.ports import WorkerLimits
from fallow.units import MIB

LAYERS = [layers for layers in (NAMESPACES, LANDLOCK) if not boxing._try(layers)]
TOLD = """
import json, os, socket, sys
link = socket.socket(fileno=int(sys.argv[-1]))
def told(act):
    try:
        return repr(act())
    except BaseException as error:
        return "refused: " + type(error).__name__
def say(**found):
    print(json.dumps(found), flush=True)
"""


def test_this_machine_can_build_a_box() -> None:
    """All that follows says nothing where there is none."""
    assert LAYERS


class Heard:
    """The lines that the hostile script printed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.news = asyncio.Event()

    def on_line(self, line: str) -> None:
        self.lines.append(line)
        self.news.set()

    async def answer(self) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while not any(line.startswith("{") for line in self.lines):
                self.news.clear()
                await self.news.wait()
        return json.loads(next(line for line in self.lines if line.startswith("{")))


@pytest.fixture(params=LAYERS)
def layers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(boxing, "strength", lambda: (request.param, ""))
    return request.param


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A node's home with keys, a worker's folder with an input, and another lease's folder beside it."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "identity.key").write_text("secret")
    for lease in ("mine", "other"):
        (tmp_path / "work" / lease / "in").mkdir(parents=True)
        (tmp_path / "work" / lease / "in" / "model").write_text("weights")
    return tmp_path


@asynccontextmanager
async def hostile(home: Path, script: str, **limits: Any) -> AsyncGenerator[tuple[ProcessWorker, Heard]]:
    """`script` where the worker's program would be."""
    heard, runner = Heard(), ProcessRunner((sys.executable, "-c", TOLD + script))
    async with runner.open(home / "work" / "mine", WorkerLimits(**limits), lambda _m: None, heard.on_line) as worker:
        yield worker, heard


async def tell(home: Path, script: str, **limits: Any) -> dict[str, Any]:
    async with hostile(home, script + "\nlink.recv(1)", **limits) as (_, heard):
        return await heard.answer()


def all_refused(found: dict[str, str]) -> bool:
    return bool(found) and all(answer.startswith("refused") for answer in found.values())


async def test_keys_home_and_other_leases_cannot_be_read(home: Path, layers: str) -> None:
    """The keys were an answer's text once: a tokenizer's configuration named `../../keys/identity.key`."""
    wanted = {
        "key": home / "keys" / "identity.key", "way": home / "work" / "mine" / ".." / ".." / "keys" / "identity.key",
        "other": home / "work" / "other" / "in" / "model", "shadow": "/etc/shadow", "bash": Path.home() / ".bashrc",
        "tests": Path(__file__).resolve(),
    }  # fmt: skip
    places = {name: str(path) for name, path in wanted.items()}
    script = f"say(**{{name: told(lambda: open(path).read()) for name, path in {places!r}.items()}})"
    assert all_refused(await tell(home, script))
    lists = [str(home), str(home / "keys"), str(Path.home()), "/", "/tmp", "/home", "/etc"]
    assert all_refused(await tell(home, f"say(**{{path: told(lambda: os.listdir(path)) for path in {lists!r}}})"))


async def test_a_link_leads_nowhere(home: Path, layers: str) -> None:
    """Neither made inside, nor laid there before by somebody with a longer arm."""
    (home / "work" / "mine" / "work").mkdir()
    (home / "work" / "mine" / "work" / "key").symlink_to(home / "keys" / "identity.key")
    script = f"say(link=told(lambda: os.symlink({str(home)!r}, 's')), before=told(lambda: open('key').read()))"
    assert all_refused(await tell(home, script))


async def test_inputs_are_read_and_never_changed(home: Path, layers: str) -> None:
    """They are hard links to the files of the node's store."""
    model = str(home / "work" / "mine" / "in" / "model")
    script = f"""
m = {model!r}
say(read=open(m).read(), write=told(lambda: open(m, "w")), append=told(lambda: open(m, "a")),
    mode=told(lambda: os.chmod(m, 0o777)), gone=told(lambda: os.unlink(m)), time=told(lambda: os.utime(m)),
    link=told(lambda: os.link(m, "mine")), cut=told(lambda: os.truncate(m, 0)), moved=told(lambda: os.replace(m, "x")),
    beside=told(lambda: open(m + "2", "w")))
"""
    found = await tell(home, script)
    assert found.pop("read") == "weights"
    assert all_refused(found), found
    assert Path(model).read_text() == "weights"


async def test_what_it_may_write_is_its_own_folder(home: Path, layers: str) -> None:
    places = [str(home / "x"), str(home / "work" / "x"), "/tmp/fallow-x", "/dev/shm/x", "/usr/x", "/etc/x"]
    places.append(str(Path(boxing.__file__).with_name("evil.py")))
    script = (
        f"say(own=told(lambda: open('a', 'w').write('b')), **{{p: told(lambda: open(p, 'w')) for p in {places!r}}})"
    )
    found = await tell(home, script)
    assert found.pop("own") == "1"
    assert all_refused(found), found
    assert not any(Path(place).exists() for place in places)


@pytest.fixture
def listener() -> Iterator[int]:
    """A TCP port of this machine's, as the gateway has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: _accept(server), daemon=True)
        thread.start()
        yield server.getsockname()[1]


def _accept(server: socket.socket) -> None:
    try:
        server.accept()[0].close()
    except OSError:
        return


async def test_no_network_and_no_socket_of_the_owner(home: Path, layers: str, listener: int, tmp_path: Path) -> None:
    local = str(tmp_path / "api.sock")
    with socket.socket(socket.AF_UNIX) as api:
        api.bind(local)
        api.listen()
        script = f"""
def unix(path):
    with socket.socket(socket.AF_UNIX) as s: s.connect(path)
say(tcp=told(lambda: socket.create_connection(("127.0.0.1", {listener}), 2)), udp=told(lambda: socket.socket(type=2)),
    api=told(lambda: unix({local!r})), abstract=told(lambda: unix("\\0/tmp/.X11-unix/X0")),
    raw=told(lambda: socket.socket(17, 3)), link=told(lambda: socket.socket(16, 3)))
"""
        assert all_refused(await tell(home, script))


CALLS = {
    "x86_64": {
        "trace": (101, 16, 1, 0, 0), "users": (272, 0x1000_0000), "bpf": (321, 0, 0, 0), "keys": (250, 0, 0),
        "ring": (425, 1, 0), "mount": (165, 0, 0, 0, 0, 0),
    },
}  # fmt: skip
"""Of system calls that Python has no name for, by the processor's name."""


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Another process of the owner's."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.communicate(b"\n")


async def test_nothing_is_started_and_nobody_is_signalled(
    home: Path, layers: str, bystander: subprocess.Popen[bytes]
) -> None:
    script = f"""
import subprocess, ctypes
libc, pid = ctypes.CDLL(None, use_errno=True), {bystander.pid}
def call(*args):
    if libc.syscall(*args) < 0: raise OSError(ctypes.get_errno(), "no")
say(fork=told(os.fork), run=told(lambda: subprocess.run(["/bin/true"])), kill=told(lambda: os.kill(pid, 9)),
    all=told(lambda: os.kill(-1, 9)), parent=told(lambda: os.kill(os.getppid() or 2, 9)),
    spawn=told(lambda: os.posix_spawn("/bin/true", ["true"], {{}})), memfd=told(lambda: os.memfd_create("x")),
    **{{name: told(lambda: call(*args)) for name, args in {CALLS.get(os.uname().machine, {})!r}.items()}})
"""
    found = await tell(home, script)
    assert all_refused(found), found
    assert bystander.poll() is None


async def test_other_processes_cannot_be_looked_into(home: Path, layers: str) -> None:
    parent = os.getppid() if os.getppid() > 1 else 1 << 21  # inside, number 1 is the worker itself
    script = f"""
of = "/proc/{os.getpid()}/"
say(env=told(lambda: open(of + "environ", "rb").read()), fds=told(lambda: os.listdir(of + "fd")),
    root=told(lambda: os.listdir(of + "root")), cmd=told(lambda: open("/proc/{parent}/cmdline").read()))
"""
    assert all_refused(await tell(home, script))


async def test_no_process_is_left(home: Path, layers: str) -> None:
    async with hostile(home, "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nsay(on=1)\ntime.sleep(600)") as (
        worker,
        heard,
    ):
        await heard.answer()
        family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert (len(gone), alive) == (len(family), [])


async def _end(worker: ProcessWorker) -> str:
    async with asyncio.timeout(60):
        await worker.ended.wait()
    return worker.why


FILL = """
n = 0
while True:
    with open(f"f{n}", "wb") as f: f.write(bytes(1 << 20))
    n += 1
"""
HIDE = """
import time
held = []
while True:
    f = open("f", "wb+"); os.unlink("f"); f.write(os.urandom(1 << 20)); f.flush(); held.append(f); time.sleep(0.01)
"""
MAP = """
import mmap, time
held = []
while True:
    with open("f", "wb+") as f:
        f.write(os.urandom(1 << 20)); f.flush(); held.append(mmap.mmap(f.fileno(), 1 << 20))
    os.unlink("f"); time.sleep(0.01)
"""


@pytest.mark.parametrize(
    "script", [FILL, HIDE, MAP], ids=["many files", "files without a name", "mapped, without a name"]
)
async def test_a_disk_cannot_be_filled(home: Path, layers: str, script: str) -> None:
    async with hostile(home, script, disk_bytes=24 * MIB) as (worker, _):
        assert (await _end(worker)).startswith("out of disk: it has written")


async def test_files_cannot_be_hidden_in_the_deep(home: Path, layers: str) -> None:
    """Folders in folders, until no name is long enough for what lies in the last."""
    script = """
while True:
    os.mkdir("d" * 200); os.chdir("d" * 200)
"""
    async with hostile(home, script) as (worker, _):
        assert (await _end(worker)).startswith("out of disk: it has written")
    remove(home / "work" / "mine")
    assert not (home / "work" / "mine").exists()


async def test_threads_are_bounded(home: Path, layers: str) -> None:
    script = """
from threading import Event, Thread, stack_size
stack_size(32768)
never = Event()
while True: Thread(target=never.wait, daemon=True).start()
"""
    async with hostile(home, script) as (worker, heard):
        why = await _end(worker)
    assert why.startswith("too many threads") or any("can't start new thread" in line for line in heard.lines), why


async def test_one_file_gets_no_larger_than_the_disk_that_was_leased(home: Path, layers: str) -> None:
    script = """
import signal
signal.signal(25, signal.SIG_IGN)
def grow():
    with open("f", "wb") as f:
        for _ in range(64): f.write(bytes(1 << 20)); f.flush()
say(grow=told(grow), hole=told(lambda: os.truncate("f", 1 << 40)))
"""
    assert all_refused(await tell(home, script, disk_bytes=16 * MIB))
    assert sum(path.stat().st_size for path in (home / "work" / "mine" / "work").iterdir()) <= 16 * MIB


THREADS = """
from threading import Event, Thread
held, never = [], Event()
while True: Thread(target=lambda: (held.append(bytearray(1 << 20)), never.wait())).start()
"""


@pytest.mark.parametrize(
    "script",
    [
        "held = []\nwhile True: held.append(bytearray(1 << 20))",
        "import mmap\nheld = []\nwhile True:\n m = mmap.mmap(-1, 1 << 20); m.write(bytes(1 << 20)); held.append(m)",
        THREADS,
    ],
    ids=["private", "shared", "threads"],
)
async def test_memory_is_bounded(home: Path, layers: str, script: str) -> None:
    async with hostile(home, script + "\n", ram_bytes=100 * MIB) as (worker, _):
        why = await _end(worker)
    assert why.startswith(("out of memory", "exited with status 1")), why


async def test_where_no_box_can_be_had_nothing_runs_unless_the_owner_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boxing, "strength", lambda: ("", "the kernel has no Landlock"))
    with pytest.raises(FallowError) as refused:
        ProcessRunner().guard()
    assert (refused.value.code, refused.value.cause) == ("E1809", "the kernel has no Landlock")
    with pytest.raises(OSError, match="no box"):
        async with hostile(home, "say(ran=1)"):
            pass
    assert ProcessRunner(boxed=False).guard().startswith("nothing")


async def test_a_box_that_cannot_be_built_lets_nothing_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says no only when the box is built, after the machine was found able."""
    monkeypatch.setattr(boxing, "strength", lambda: ("unheard-of", ""))
    async with hostile(home, "say(ran=1)") as (worker, heard):
        assert await _end(worker) == "exited with status 97"
    assert [line.split(":")[0] for line in heard.lines] == ["the box could not be built"]


async def test_outside_of_a_box_the_attacks_work(home: Path) -> None:
    """Else what is tested above would be nothing."""
    key, heard = str(home / "keys" / "identity.key"), Heard()
    attack = f"say(key=open({key!r}).read(), socket=told(socket.socket), child=told(lambda: os.system('true')))"
    script = f"{TOLD}{attack}\nlink.recv(1)"
    runner = ProcessRunner((sys.executable, "-c", script), boxed=False)
    async with runner.open(home / "work" / "mine", WorkerLimits(), lambda _m: None, heard.on_line):
        found = await heard.answer()
    assert found["key"] == "secret"
    assert not any(answer.startswith("refused") for answer in found.values())
