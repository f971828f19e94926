"""What Linux has for shutting a process in, and Python's library has no name for: namespaces and mounts, Landlock
(kernel 5.13) and seccomp filters. Facts from the kernel's user-space headers and its documentation (userspace-api/
landlock, userspace-api/seccomp_filter, mount_setattr(2)).

Imported by the program that starts workers before it has any library, so it uses the standard one alone. Every function
raises OSError when the kernel says no.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from collections.abc import Iterable

NEW_ALL = 0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000
"""CLONE_NEW: mounts, cgroups, host name, messages between processes, users, processes, network."""
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_SYS_MOUNT_SETATTR, _SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 442, 444, 445, 446
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER = 1, 22, 38, 2
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""What a filter sees of the processor: AUDIT_ARCH_*."""

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _call(name: str, *args: object) -> int:
    if sys.platform != "linux":
        raise OSError(f"{name}: only Linux has it")
    return _checked(name, getattr(_libc, name)(*args))


def unshare(flags: int) -> None:
    """Leave what is shared with the processes around."""
    _call("unshare", flags)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount `source`, of file system `kind`, at `target`."""
    _call("mount", source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode())


def read_only(target: str, *, below: bool = True) -> None:
    """Make what is mounted at `target`, and with `below` all that is mounted under it, unwritable and free of programs
    that change who they are."""
    attributes = struct.pack("=QQQQ", MS_RDONLY | MS_NOSUID, 0, 0, 0)
    flags = _AT_RECURSIVE if below else 0
    _call("syscall", _SYS_MOUNT_SETATTR, _AT_FDCWD, target.encode(), flags, attributes, len(attributes))


def change_root(new: str, old: str) -> None:
    """`new`, something mounted, becomes the root; the old one lies at `old` in it."""
    _call("syscall", _SYS_PIVOT_ROOT[os.uname().machine], new.encode(), old.encode())
    os.chdir("/")


def unmount(target: str) -> None:
    """Forget what is mounted there, whoever uses it still."""
    _call("umount2", target.encode(), _MNT_DETACH)


def die_with_parent() -> None:
    """This process is killed when the one that started it ends."""
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def give_up_privileges() -> None:
    """No program that is started from now on gains a right by being started."""
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


# Landlock -------------------------------------------------------------------------------------------------------------

READ = 1 | 1 << 2 | 1 << 3
"""Run files, read files, list folders."""
_WRITE_FILE, _REFER, _TRUNCATE, _DEVICE = 1 << 1, 1 << 13, 1 << 14, 1 << 15
WRITE = READ | _WRITE_FILE | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | _REFER | _TRUNCATE
"""All that and write, make, move and remove files and folders; no links to elsewhere, sockets or devices."""
DEVICE = 1 << 2 | _WRITE_FILE | _DEVICE
_OF_FILES = 1 | _WRITE_FILE | 1 << 2 | _TRUNCATE | _DEVICE
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}


def landlock_version() -> int:
    """Which Landlock the kernel has; 0 for none."""
    try:
        return _call("syscall", _SYS_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    except OSError:
        return 0


def landlock(rules: Iterable[tuple[str, int]]) -> None:
    """From now on files can only be reached as `rules` (path, rights) say, no TCP port can be used (version 4), and no
    process outside be signalled (version 6). Paths that do not exist are passed over."""
    version = landlock_version()
    known = (1 << _FS_BITS.get(version, 16)) - 1
    handled = struct.pack("=QQQ", known, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _call("syscall", _SYS_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), 0)
    try:
        for path, rights in rules:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            allowed = rights & known if os.path.isdir(path) else rights & known & _OF_FILES
            rule = struct.pack("=Qi", allowed, fd)
            try:
                _call("syscall", _SYS_ADD_RULE, ruleset, 1, rule, 0)
            finally:
                os.close(fd)
        _call("syscall", _SYS_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


# seccomp --------------------------------------------------------------------------------------------------------------

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
_X32 = 0x4000_0000
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
Steps = list[tuple[int, int, int, int]]


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> tuple[int, int, int, int]:
    return code, yes, no, value


def refuse(number: int, error: int) -> Steps:
    """System call `number` fails with `error`."""
    return [_step(_EQUAL, number, 0, 1), _step(_RETURN, _ERROR | error)]


def only_with(number: int, values: Iterable[int], error: int) -> Steps:
    """System call `number` is only allowed with one of `values` as its first argument (its lower half)."""
    tests = [_step(_EQUAL, value, 0, 1) for value in values]
    body: Steps = [_step(_LOAD, _FIRST_ARGUMENT_AT)]
    for test in tests:
        body += [test, _step(_RETURN, _ALLOW)]
    body.append(_step(_RETURN, _ERROR | error))
    return [_step(_EQUAL, number, 0, len(body)), *body]


def only_with_bit(number: int, bit: int, error: int) -> Steps:
    """System call `number` is only allowed with `bit` in its first argument."""
    body = [_step(_LOAD, _FIRST_ARGUMENT_AT), _step(_ANY_BIT, bit, 0, 1), _step(_RETURN, _ALLOW)]
    body.append(_step(_RETURN, _ERROR | error))
    return [_step(_EQUAL, number, 0, len(body)), *body]


def filter_calls(steps: Steps) -> None:
    """From now on every system call of this process, and of all that it starts, goes through `steps`, and is allowed
    when none decides. Calls by another processor's conventions end the process: their numbers mean other things."""
    architecture = ARCHITECTURES[os.uname().machine]
    program: Steps = [
        _step(_LOAD, _ARCHITECTURE_AT), _step(_EQUAL, architecture, 1, 0), _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT), _step(_AT_LEAST, _X32, 0, 1), _step(_RETURN, _KILL),
        *steps, _step(_RETURN, _ALLOW),
    ]  # fmt: skip
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    # struct sock_fprog: how many, and where
    told = struct.pack("@HP", len(program), ctypes.addressof(code))
    _call("prctl", _PR_SET_SECCOMP, _FILTER, ctypes.c_char_p(told), 0, 0)
