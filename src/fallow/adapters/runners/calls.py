"""Which system calls a worker has no business with. Numbers from the kernel's tables for x86-64 and for arm64."""

from __future__ import annotations

import errno
import os

from fallow.adapters.runners import kernel

_X86, _ARM = 0, 1
_NETWORK = "socket 41 198, connect 42 203, bind 49 200, listen 50 201, accept 43 202, accept4 288 242"
_PROCESSES = (
    "fork 57 -, vfork 58 -, ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, kcmp 312 272, "
    "pidfd_open 434 434, pidfd_getfd 438 438, pidfd_send_signal 424 424, process_madvise 440 440, "
    "rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240, tkill 200 130, setpriority 141 140, "
    "sched_setscheduler 144 119, sched_setparam 142 118, sched_setattr 314 274, ioprio_set 251 30, "
    "move_pages 279 239, migrate_pages 256 238"
)
_MEMORY_THAT_NOBODY_COUNTS = (
    "memfd_create 319 279, memfd_secret 447 447, shmget 29 194, shmat 30 196, msgget 68 186, semget 64 190, "
    "mq_open 240 180"
)
_KERNEL = (
    "mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, unshare 272 97, setns 308 268, "
    "mount_setattr 442 442, move_mount 429 429, open_tree 428 428, fsopen 430 430, fsmount 432 432, fsconfig 431 431, "
    "fspick 433 433, keyctl 250 219, add_key 248 217, request_key 249 218, bpf 321 280, perf_event_open 298 241, "
    "userfaultfd 323 282, io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427, "
    "init_module 175 105, finit_module 313 273, delete_module 176 106, kexec_load 246 104, kexec_file_load 320 294, "
    "reboot 169 142, swapon 167 224, swapoff 168 225, open_by_handle_at 304 265, name_to_handle_at 303 264, "
    "quotactl 179 60, acct 163 89, settimeofday 164 170, clock_settime 227 112, adjtimex 159 171, "
    "clock_adjtime 305 266, iopl 172 -, ioperm 173 -, sethostname 170 161, setdomainname 171 162, "
    "fanotify_init 300 262, syslog 103 116, vhangup 153 58, lookup_dcookie 212 18, mknod 133 -, mknodat 259 33"
)
_MODES_OF_FILES = (
    "chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, chown 92 -, fchown 93 55, lchown 94 -, "
    "fchownat 260 54, utime 132 -, utimes 235 -, futimesat 261 -, utimensat 280 88, setxattr 188 5, lsetxattr 189 6, "
    "fsetxattr 190 7, setxattrat 463 463, removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16, "
    "removexattrat 466 466"
)
"""What is hard-linked into a worker's folder is the store's own file, and Landlock does not look at these."""
_OF_ONESELF = "kill 62 129, tgkill 234 131, prlimit64 302 261, sched_setaffinity 203 122"
_CLONE, _CLONE3, _CLONE_THREAD = (56, 220), 435, 0x1_0000


def _numbers(table: str, machine: int) -> list[int]:
    rows = [row.split() for row in table.split(", ")]
    return [int(row[1 + machine]) for row in rows if row[1 + machine] != "-"]


def forbid() -> None:
    """No network, no new processes (threads are none), no look at other processes, no memory that belongs to no
    process, nothing that only administrators do, no change of files' modes and times; signals and limits for oneself
    alone."""
    machine = _ARM if os.uname().machine == "aarch64" else _X86
    tables = (_NETWORK, _PROCESSES, _MEMORY_THAT_NOBODY_COUNTS, _KERNEL, _MODES_OF_FILES)
    steps = [step for table in tables for n in _numbers(table, machine) for step in kernel.refuse(n, errno.EPERM)]
    for number in _numbers(_OF_ONESELF, machine):
        steps += kernel.only_with(number, (0, os.getpid()), errno.EPERM)
    # glibc makes threads by clone where there is no clone3, whose flags a filter cannot see
    steps += kernel.refuse(_CLONE3, errno.ENOSYS)
    steps += kernel.only_with_bit(_CLONE[machine], _CLONE_THREAD, errno.EAGAIN)
    kernel.filter_calls(steps)
