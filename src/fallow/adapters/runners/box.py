"""The box that a worker lives in: no root and no program from elsewhere is needed to build it.

Inside there are the system's libraries, Python, this package and what the work needs to read, and a folder to write.
There is no home, no key, no network, no other process, and no way to make one. Two layers hold that, of which either is
enough for files, and the filter of system calls for the rest:

- namespaces: the worker sees a root of its own, made of what it may see, and is process 1 of its own processes;
- Landlock: whatever path it opens, the kernel refuses what the rules do not name.

Some machines do not let a user make namespaces (containers without that right, Ubuntu's AppArmor profile); there the
second layer stands alone, and other processes' numbers and files' names can be seen, not their contents. Where neither
can be had, there is no box, and no worker for strangers: see `strength`.

Defends against: code of strangers that runs as the worker. Does not defend against: bugs of the kernel, or of a card's
driver for workers that are given cards.
"""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path

from fallow.adapters.runners import calls, kernel

TYPE_CHECKING = False  # importing `typing` takes longer than building the box
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

NAMESPACES, LANDLOCK = "namespaces", "landlock"
MIN_ALONE = 3
"""From this version of Landlock on (kernel 6.2) it knows truncation; without namespaces, no mount stands in for it."""
INNER_ID = 1000
MAX_THREADS = 1_024
MAX_OPEN_FILES = 4_096
FAILED = 97
"""How the program that builds the box exits when it cannot."""
_LIBRARIES = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
_SETTINGS = ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives", "/etc/OpenCL", "/etc/vulkan")
_MACHINE = ("/sys/devices/system",)
_MACHINE_WITH_CARDS = ("/sys",)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_OF_PROC = ("cpuinfo", "meminfo", "stat", "version", "filesystems", "sys/vm", "sys/kernel", "driver")
_OLD = "/.old"


class View:
    """What a worker sees: the folder where it lives and writes, paths that it may read, whether it has cards, by which
    layers it is held, and how large a file may get (0: no bound). Not a dataclass, whose import takes longer than
    building the box."""

    def __init__(
        self,
        work: str,
        reads: Sequence[str] = (),
        layers: str = NAMESPACES,
        file_bytes: int = 0,
        *,
        cards: bool = False,
    ) -> None:
        self.work, self.reads, self.layers, self.file_bytes, self.cards = work, reads, layers, file_bytes, cards

    def words(self) -> str:
        """For the command line of the program that builds the box."""
        return json.dumps(self.__dict__)


def read_view(text: str) -> View:
    """The inverse of `words`."""
    return View(**json.loads(text))


def enter(view: View) -> None:
    """Shut this process in; returns in the process that is inside, which is another one with namespaces, and not at all
    in the one that waits for it. Raises OSError when the kernel does not let us."""
    if view.layers not in (NAMESPACES, LANDLOCK):
        raise OSError(f"nobody knows how to build it of {view.layers!r}")
    if view.layers == NAMESPACES:
        _namespaces(view)
    kernel.give_up_privileges()
    version = kernel.landlock_version()
    if view.layers == LANDLOCK and version < MIN_ALONE:
        raise OSError(f"Landlock version {version} alone keeps nobody from cutting files that may only be read")
    if version:
        kernel.landlock(_rules(view))
    _bound(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    if view.file_bytes:
        _bound(resource.RLIMIT_FSIZE, view.file_bytes)
    os.chdir(view.work)
    calls.forbid()


def _bound(what: int, most: int) -> None:
    """At most so many, or what we may have ourselves where that is less."""
    hard = resource.getrlimit(what)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _visible(view: View) -> list[str]:
    """What can be read, apart from where the worker lives: the shortest paths that cover everything."""
    wanted = [*_LIBRARIES, *_SETTINGS, *(_MACHINE_WITH_CARDS if view.cards else _MACHINE), *view.reads]
    found = sorted({place for path in wanted for place in (path, os.path.realpath(path)) if os.path.exists(path)})
    return [path for path in found if not any(path.startswith(f"{other}/") for other in found)]


def _devices(view: View) -> list[str]:
    cards = [str(path) for path in Path("/dev").glob("nvidia*")] if view.cards else []
    return [path for path in (*_DEVICES, *cards, *(["/dev/dri"] if view.cards else [])) if os.path.exists(path)]


def _rules(view: View) -> list[tuple[str, int]]:
    inside = view.layers == NAMESPACES
    rules = [(path, kernel.READ) for path in _visible(view)]
    rules += [(path, kernel.DEVICE) for path in _devices(view)]
    rules += [(f"/proc/{name}", kernel.READ) for name in (*_OF_PROC, str(os.getpid()))] if not inside else []
    rules += [("/proc", kernel.READ), ("/etc/passwd", kernel.READ), ("/dev", 1 << 3)] if inside else []
    return [*rules, (view.work, kernel.WRITE)]


# namespaces -----------------------------------------------------------------------------------------------------------


def _namespaces(view: View) -> None:
    user, group = os.getuid(), os.getgid()
    kernel.unshare(kernel.NEW_ALL)
    Path("/proc/self/setgroups").write_text("deny", "ascii")
    Path("/proc/self/uid_map").write_text(f"{INNER_ID} {user} 1", "ascii")
    Path("/proc/self/gid_map").write_text(f"{INNER_ID} {group} 1", "ascii")
    child = os.fork()
    if child:
        _wait_for(child)
    kernel.die_with_parent()
    _own_root(view)
    _bound(resource.RLIMIT_NPROC, MAX_THREADS)


def _wait_for(child: int) -> NoReturn:
    """Outside, for as long as the worker lives; then end as it did. All files are closed, so that nobody thinks the
    worker still listens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.closerange(0, 1 << 20)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _own_root(view: View) -> None:
    """A root in memory, with what may be seen mounted into it at the places where it was. Whoever is inside when it is
    done cannot mount, so cannot undo it."""
    seen, devices = _visible(view), _devices(view)
    sources = {path: os.path.realpath(path) for path in (*seen, *devices, view.work)}
    links = {path: os.readlink(path) for path in seen if os.path.islink(path) and path.count("/") == 1}
    kernel.mount("nothing", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    stage = view.work
    kernel.mount("tmpfs", stage, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755,size=1m,nr_inodes=4096")
    os.mkdir(stage + _OLD)
    kernel.change_root(stage, stage + _OLD)
    for path, target in links.items():
        os.symlink(target, path)
    for path, source in sources.items():
        if path not in links:
            _bind(_OLD + source, path)
            if path in seen:
                kernel.read_only(path)
    _proc()
    Path("/etc").mkdir(exist_ok=True)
    Path("/etc/passwd").write_text(f"worker:x:{INNER_ID}:{INNER_ID}:worker:/:/bin/false\n", "ascii")
    kernel.unmount(_OLD)
    os.rmdir(_OLD)
    kernel.read_only("/", below=False)


def _bind(source: str, path: str) -> None:
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).touch()
    kernel.mount(source, path, flags=kernel.MS_BIND | kernel.MS_REC)


def _proc() -> None:
    os.makedirs("/proc", exist_ok=True)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
