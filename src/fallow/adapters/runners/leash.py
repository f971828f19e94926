"""Runs another program on a leash: it dies with its parent, yields to everything else, and cannot dump core; and in a
box, where one is asked for.

Started as a file, `python -I -S leash.py PARENT NICE DATA_BYTES MEMBERS VIEW PROGRAM ARGS...`, so it imports the
standard library only and replaces itself by the program. A small program of its own, because the alternative
(`preexec_fn`) runs Python between fork and exec, which may deadlock in a process with threads.

Defends against: workers that outlive a killed provider, starve their owner's programs, or allocate faster than the
memory watchdog looks (DATA_BYTES bounds private memory; 0 means no bound). Not an address space limit: torch and CUDA
reserve far more of that than they use. MEMBERS is the file by which one enters a cgroup, empty for none. Programs that
try to escape are the box's task: VIEW is its `View` in words, and empty for our own programs.
"""

from __future__ import annotations

import contextlib
import os
import resource
import struct
import sys
import time
from pathlib import Path

SHORT_TURN_NS = 100_000
"""The shortest turn on a processor that Linux gives."""
GROUP_TRIES, GROUP_PAUSE_S = 20, 0.05
_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}


def leash(parent: int, nice: int, data_bytes: int) -> None:
    """Put this process on the leash; what it executes stays on it. Exits at once when `parent` is gone already."""
    if sys.platform == "linux":
        from fallow.adapters.runners import kernel

        kernel.die_with_parent()
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    if os.getppid() != parent:
        sys.exit(1)
    with contextlib.suppress(OSError):
        os.nice(nice)
    _give_way(nice)
    ask_for_turns(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if data_bytes:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))


def _give_way(nice: int) -> None:
    """Where Linux groups processes by their sessions, it shares processors among the groups first, and being nice
    counts inside one's group alone: a worker in a session of its own would get as much as all of a terminal's programs
    together. So the group is made nice too. Linux lets a user do that ten times a second."""
    group = Path("/proc/self/autogroup")
    if sys.platform != "linux" or os.getsid(0) != os.getpid() or not group.exists():
        return  # the group, if there is one, is our parent's
    for _ in range(GROUP_TRIES):
        try:
            group.write_text(str(nice), "ascii")
        except BlockingIOError:  # somebody else was just served
            time.sleep(GROUP_PAUSE_S)  # noqa: TID251 - nothing else runs in this process yet
        except OSError:  # not allowed, as in some containers
            return
        else:
            return


def ask_for_turns(turn_ns: int) -> bool:
    """Ask Linux (6.12 or later) for turns of this length, 0 for the usual, for the calling thread and all that it
    starts; -> whether it listened. Who asks for short turns gets no more of a processor, but gets it at once when it
    wakes, beside threads that compute without end: every process on a message's way wakes once for it. Who computes
    should not ask."""
    number = _SET_ATTRIBUTES.get(os.uname().machine) if sys.platform == "linux" else None
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    import ctypes

    # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period
    wanted = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, 0, os.nice(0), 0, turn_ns, 0, 0)
    return ctypes.CDLL(None, use_errno=True).syscall(number, 0, wanted, 0) == 0


def enter_box(view: str) -> None:
    """Shut this process in, or end it with a word on why not: nothing of a stranger's runs outside."""
    from fallow.adapters.runners import box

    try:
        box.enter(box.read_view(view))
    except OSError as error:
        print(f"the box could not be built: {error}", flush=True)  # noqa: T201 - the worker's log is read by its node
        os._exit(box.FAILED)


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[3]))
    leash(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    if sys.argv[4]:
        Path(sys.argv[4]).write_text("0", "ascii")
    if sys.argv[5]:
        enter_box(sys.argv[5])
    os.execv(sys.argv[6], sys.argv[6:])  # noqa: S606 - the point of this program
