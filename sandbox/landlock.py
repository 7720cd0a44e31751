"""Landlock: from now on this thread and its descendants open only what is listed (landlock(7)).

Also kept inside: TCP, signals and abstract sockets, as far as the kernel's version of it goes (`abi`); and
no process outside can be traced, nor its /proc read where that takes the same right. Not kept: looking
(stat), changing modes, owners and times, and sockets other than these: that is `sandbox.seccomp`'s.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from sandbox import kernel

CREATE, ADD_RULE, RESTRICT = 444, 445, 446  # the same numbers on every architecture
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = (1 << bit for bit in range(4))
MAKE_CHAR, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK = (1 << bit for bit in (6, 9, 10, 11))
TRUNCATE = 1 << 14
RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}  # version -> bits of rights on files that it knows
TCP = 0b11  # bind and connect, from version 4
SCOPED = 0b11  # abstract sockets and signals, from version 6
SIGNALS = 6  # the version from which signals stay inside
READ = EXECUTE | READ_FILE | READ_DIR
FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | 1 << 15  # rights that a file can have
SPECIAL = MAKE_CHAR | MAKE_SOCK | MAKE_FIFO | MAKE_BLOCK


class _Ruleset(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("files", "network", "scoped")]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def abi() -> int:
    """The version of Landlock that the kernel offers. Raises OSError where it has none."""
    return kernel.syscall(CREATE, None, 0, 1)


def restrict(
    read: Iterable[Path],
    write: Iterable[Path],
    devices: Iterable[Path] = (),
    names: Iterable[Path] = (),
) -> None:
    """Allow reading and executing below ``read``, also making and changing plain files and folders below
    ``write``, reading and writing ``devices``, and listing folders below ``names``; paths that do not
    exist are left out.

    Needs no_new_privs. Raises OSError.
    """
    version = abi()
    known = (1 << max(bits for since, bits in RIGHTS.items() if since <= version)) - 1
    rules = [(path, READ) for path in read]
    rules += [(path, known & ~SPECIAL & ~EXECUTE) for path in write]
    rules += [(path, READ_FILE | WRITE_FILE) for path in devices]
    rules += [(path, READ_DIR) for path in names]
    ruleset = _create(known, version)
    try:
        for path, rights in rules:
            if path.exists():
                _allow(ruleset, path, rights & known)
        kernel.syscall(RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _create(known: int, version: int) -> int:
    attributes = _Ruleset(known, TCP if version >= 4 else 0, SCOPED if version >= SIGNALS else 0)
    size = 24 if version >= SIGNALS else 16 if version >= 4 else 8
    return kernel.syscall(CREATE, ctypes.byref(attributes), size, 0)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        folder = stat.S_ISDIR(os.fstat(parent).st_mode)
        rule = _Beneath(rights if folder else rights & FILE, parent)
        kernel.syscall(ADD_RULE, ruleset, 1, ctypes.byref(rule), 0)
    finally:
        os.close(parent)
