"""A process and all that descends from it: who they are, what they use, and their end.

A daemon that forked twice has the nearest subreaper above for a parent, so that a keeper which is one
finds every process of its run below it. Reads /proc; does not limit anything.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

MEMORY = re.compile(rb"(?:RssAnon|RssShmem):\s*(\d+) kB")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """One line of /proc: state letter, parent, CPU seconds, threads."""

    pid: int
    state: str
    parent: int
    cpu: float
    threads: int


@dataclass(frozen=True)
class Use:
    """What a tree uses at a moment: memory in bytes, CPU seconds so far, processes with threads."""

    memory: int
    cpu: float
    tasks: int


def processes() -> Iterator[Process]:
    """All processes that /proc shows."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            text = _read(f"/proc/{name}/stat")
            if text:  # it may be gone by now
                fields = text.rpartition(b")")[2].split()
                cpu = sum(map(int, fields[11:15])) / TICKS
                yield Process(int(name), fields[0].decode(), int(fields[1]), cpu, int(fields[17]))


def descendants(root: int) -> list[Process]:
    """The living processes below one, nearest first, without itself."""
    by_parent: dict[int, list[Process]] = {}
    for process in processes():
        by_parent.setdefault(process.parent, []).append(process)
    found, parents = [], [root]
    while parents:
        children = by_parent.pop(parents.pop(0), [])
        parents += [child.pid for child in children]
        found += [child for child in children if child.state not in "ZX"]
    return found


def use(root: int) -> Use:
    """What the processes below one use, with the CPU seconds of those that ended."""
    living = descendants(root)
    memory = sum(_memory(process.pid) for process in living)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = spent.ru_utime + spent.ru_stime + sum(process.cpu for process in living)
    return Use(memory, cpu, sum(process.threads for process in living))


def tasks_of(uid: int) -> int:
    """Threads that a user runs, as RLIMIT_NPROC counts them."""
    count = 0
    for process in processes():
        with suppress(OSError):
            if os.stat(f"/proc/{process.pid}").st_uid == uid:
                count += process.threads
    return count


def end(root: int, patience: float = 10.0, codes: dict[int, int] | None = None) -> list[int]:
    """Kill all that is below a process, and reap what becomes its child; the PIDs that would not die.

    All are stopped before any is killed, since one that is not might fork between two looks. Signals
    reach a descendant whatever its session, group or handlers.
    """
    deadline = time.monotonic() + patience
    stopped: set[int] = set()
    while new := {process.pid for process in descendants(root)} - stopped:
        _signal(new, signal.SIGSTOP)
        stopped |= new
    while living := [process.pid for process in descendants(root)]:
        _signal(living, signal.SIGKILL)
        reap(codes)
        if time.monotonic() > deadline:
            return living
        time.sleep(0.001)
    reap(codes)
    return []


def reap(codes: dict[int, int] | None = None) -> None:
    """Take the exit codes of all children that ended, by PID, negative for a signal."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if codes is not None:
                codes[ended[0]] = os.waitstatus_to_exitcode(ended[1])


def _signal(pids: set[int] | list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _memory(pid: int) -> int:
    return sum(1024 * int(kilobytes) for kilobytes in MEMORY.findall(_read(f"/proc/{pid}/status")))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
