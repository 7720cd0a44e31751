"""A seccomp filter: system calls that no honest training needs are refused for good (seccomp(2)).

A list of what is denied, above a border of numbers: calls newer than the list answer ENOSYS. x86-64 and
aarch64; other architectures' calls kill, x32's answer ENOSYS. What a call's *pointer* leads to no filter
sees: files are `sandbox.landlock`'s.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sandbox import kernel

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, IS, HAS, FROM, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06  # BPF: ld abs, jeq, jset, jge, ret
NUMBER, ARCH, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
NEWEST = 463  # of the calls that this file knows; from here on ENOSYS

# name: number on x86-64, on aarch64 (-1: not there)
DENIED = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # the kernel's large attack surfaces
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "personality": (135, 92),
    "modify_ldt": (154, -1),
    "uselib": (134, -1),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "memfd_secret": (447, 447),
    # mounts and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "unshare": (272, 97),
    "setns": (308, 268),
    # the machine
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, -1),
    "ioperm": (173, -1),
    "vhangup": (153, 58),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    # files by other ways than open, which Landlock does not see
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "truncate": (76, 45),
    "mknod": (133, -1),
    "mknodat": (259, 33),
    "chown": (92, -1),
    "fchown": (93, 55),
    "lchown": (94, -1),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "inotify_init": (253, -1),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    # memory that outlives a process or that the keeper cannot count, and channels between runs
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    # every network, every kind of unix socket (one of a pair could send to any address)
    "socket": (41, 198),
    "socketpair": (53, 199),
}
# They answer as if they had done it: copying a file sets its mode and times, and must not fail; yet the
# paths of others' files must be out of reach.
IGNORED = {
    "chmod": (90, -1),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "utime": (132, -1),
    "utimes": (235, -1),
    "futimesat": (261, -1),
    "utimensat": (280, 88),
}
# Their arguments lie behind a pointer; C libraries then use the older call.
UNKNOWN = {"clone3": (435, 435), "openat2": (437, 437)}
PARTLY = {
    "clone": (56, 220),
    "ioctl": (16, 29),
    "fcntl": (72, 25),
    "open": (2, -1),
    "openat": (257, 56),
    "creat": (85, -1),
    "mkdir": (83, -1),
    "mkdirat": (258, 34),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "tkill": (200, 130),
    "pidfd_send_signal": (424, 424),
}
NAMESPACES = 0x7E020080  # every CLONE_NEW* flag
SETUID = 0o6000  # and setgid
TERMINAL = (0x5412, 0x541C, 0x8901, 0x8902)  # TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP
OWNER = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: a signal to anyone


@dataclass(frozen=True)
class Rule:
    """Refuse a call if the low half of an argument `is` one of the values, is `not` one, or `has` a bit."""

    name: str
    argument: int
    test: Literal["is", "not", "has"]
    values: tuple[int, ...]


RULES = (
    Rule("clone", 0, "has", (NAMESPACES,)),
    Rule("ioctl", 1, "is", TERMINAL),
    Rule("fcntl", 1, "is", OWNER),
    Rule("open", 2, "has", (SETUID,)),
    Rule("openat", 3, "has", (SETUID,)),
    Rule("creat", 1, "has", (SETUID,)),
    Rule("mkdir", 1, "has", (SETUID,)),
    Rule("mkdirat", 2, "has", (SETUID,)),
    # only itself: as the same user it could starve, or end, the supervisor
    Rule("prlimit64", 0, "not", (0,)),
    Rule("setpriority", 0, "not", (0,)),
    Rule("setpriority", 1, "not", (0,)),
    Rule("ioprio_set", 0, "not", (1,)),
    Rule("ioprio_set", 1, "not", (0,)),
    Rule("sched_setaffinity", 0, "not", (0,)),
    Rule("sched_setscheduler", 0, "not", (0,)),
    Rule("sched_setparam", 0, "not", (0,)),
    Rule("sched_setattr", 0, "not", (0,)),
)


def own_signals(pid: int) -> tuple[Rule, ...]:
    """For kernels on which Landlock lets signals out: a process may signal itself and its group only."""
    return (
        Rule("kill", 0, "not", (0, pid)),
        Rule("tgkill", 0, "not", (pid,)),
        Rule("rt_sigqueueinfo", 0, "not", (pid,)),
        Rule("rt_tgsigqueueinfo", 0, "not", (pid,)),
        Rule("tkill", 0, "has", (0xFFFFFFFF,)),
        Rule("pidfd_send_signal", 0, "not", ()),
    )


def install(extra: tuple[Rule, ...] = (), trusted: bool = False) -> None:
    """Install the filter in this thread and its descendants; a ``trusted`` stage may change modes, which
    it needs to remove a folder that was closed to it. Needs no_new_privs.

    Raises OSError, or NotImplementedError on an architecture that has no table here.
    """
    machine = platform.machine()
    if machine not in AUDIT_ARCH:
        raise NotImplementedError(f"seccomp: no system-call table for {machine}")
    code = b"".join(program(machine, extra, {} if trusted else IGNORED))
    text = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    loaded = Program(len(code) // 8, ctypes.addressof(text))
    kernel.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(loaded))


def program(
    machine: str, extra: tuple[Rule, ...] = (), ignored: dict[str, tuple[int, int]] = IGNORED
) -> Iterator[bytes]:
    """The filter's instructions for an architecture."""
    column = list(AUDIT_ARCH).index(machine)
    yield _step(LOAD, ARCH)
    yield _step(IS, AUDIT_ARCH[machine], 1, 0)
    yield _step(RETURN, KILL_PROCESS)
    yield _step(LOAD, NUMBER)
    yield _step(FROM, NEWEST, 0, 1)
    yield _step(RETURN, ERRNO | errno.ENOSYS)
    for table, error in ((DENIED, errno.EPERM), (ignored, 0), (UNKNOWN, errno.ENOSYS)):
        for numbers in table.values():
            if numbers[column] >= 0:
                yield _step(IS, numbers[column], 0, 1)
                yield _step(RETURN, ERRNO | error)
    for rule in (*RULES, *extra):
        if PARTLY[rule.name][column] >= 0:
            yield from _checked(rule, PARTLY[rule.name][column])
    yield _step(RETURN, ALLOW)


def _checked(rule: Rule, number: int) -> Iterator[bytes]:
    """Compare an argument, refuse or fall through with the call's number loaded again."""
    refuse = _step(RETURN, ERRNO | errno.EPERM)
    load = _step(
        LOAD, ARGUMENTS + 8 * rule.argument
    )  # the low half: both machines are little-endian
    if rule.test == "not":  # any equal value jumps over the refusal
        count = len(rule.values)
        tests = [_step(IS, value, count - at, 0) for at, value in enumerate(rule.values)]
        body = [load, *tests, refuse]
    else:
        code = IS if rule.test == "is" else HAS
        body = [load, *(step for v in rule.values for step in (_step(code, v, 0, 1), refuse))]
    yield _step(IS, number, 0, len(body) + 1)
    yield from body
    yield _step(LOAD, NUMBER)


def _step(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, false, value)
