"""Root's part: what the trusted stage keeps of root's power, and how a run loses all of it.

Each run of a root supervisor has a user id of its own, that no account and no other run has, so that
the kernel keeps its files, signals and process limit apart. Of an ordinary user nothing here is used.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox import kernel

KILL, SETGID, SETUID, SETPCAP = 5, 6, 7, 8  # linux/capability.h
VERSION = 0x20080522
FIRST, COUNT = 0x70000000, 1 << 28  # above what accounts and containers are given
SLOTS = 64  # runs at a time of one broker, at most


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Half(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def is_root() -> bool:
    """Whether this process may do as root does."""
    return os.geteuid() == 0


def run_uid(broker: int, slot: int) -> int:
    """The user (and group) id of a run, from its broker's PID and its place among that broker's runs.

    In a container that maps few ids it lies in their upper half.
    """
    number = broker * SLOTS + slot
    maps = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    first, count = max(((int(m[0]), int(m[2])) for m in maps), key=lambda m: m[1])
    if first + count >= FIRST + COUNT:
        return FIRST + number % COUNT
    half = count // 2
    return first + half + number % half


def trusted_stage() -> None:
    """Keep of root only what it takes to become a run's user and to end its processes, for good."""
    kept = (KILL, SETGID, SETUID, SETPCAP)
    _empty_bounding_set(kept)
    mask = sum(1 << capability for capability in kept)
    header, halves = _Header(VERSION, 0), (_Half * 2)(_Half(mask, mask, 0), _Half(0, 0, 0))
    kernel.checked(kernel.LIBC.capset(ctypes.byref(header), halves), "capset")


def become(uid: int) -> None:
    """Become a run's user for good, without groups and capabilities. Raises OSError."""
    _empty_bounding_set(())
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


@contextmanager
def files_as(uid: int | None) -> Iterator[None]:
    """Open files as a run's user for a while; signals and the rest stay ours. None: as we are."""
    if uid is None:
        yield
        return
    before = kernel.LIBC.setfsuid(uid)
    try:
        yield
    finally:
        kernel.LIBC.setfsuid(before)


def files_for(gid: int) -> None:
    """What this process makes from now on belongs to a run's group."""
    kernel.LIBC.setfsgid(gid)


def _empty_bounding_set(kept: tuple[int, ...]) -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        if capability not in kept:
            kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
