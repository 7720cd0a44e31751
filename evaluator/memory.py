"""Memory of a worker process: freed blocks stay with it, and it never takes more than its share.

A candidate too large for its worker then meets an allocation that fails, which is its own typed failure,
and not the kernel, which would kill the worker and look like a fault of the machine. Only Linux and its
C library are tuned; elsewhere nothing is done. It does not watch a GPU's memory, which has its own limit.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
KEPT = 1 << 30  # bytes that are free at the heap's end before they go back to the system
PART = 0.9  # of the machine is for the workers; the rest for the driver, Ray and the system
SLACK = 64 << 20  # bytes below the limit where small allocations begin to fail, torch's or not
GROUPS = Path("/sys/fs/cgroup")
TORCH = "allocate memory"  # how its CPU allocator says that it could not
ASKED = re.compile(r"tried to allocate ([\d.]+) (\w+)", re.IGNORECASE)
DATA = re.compile(r"VmData:\s*(\d+) kB")
_refusals: list[str] = []  # the allocations that failed in this process


@cache
def keep_freed() -> None:
    """Tell glibc, once, not to hand freed blocks back: fresh pages for each step's tensors cost up to
    a third of a training step (docs/log.md)."""
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(M_MMAP_MAX, 0)
        tune(M_TRIM_THRESHOLD, KEPT)


def bound(workers: int | None = None) -> None:
    """Bound this process to its share of the machine among so many workers, by default one per core.

    A lower limit that it has already stays. Not with CUDA, whose reservations of address space would
    count: there the GPU's memory is what a model fills. RLIMIT_DATA and not RLIMIT_AS, which counts
    libraries and what is shared, Ray's object store among it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    finite = [x for x in (soft, hard) if x != resource.RLIM_INFINITY]
    if not torch.cuda.is_available():
        limit = min([share(workers), *finite])
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def share(workers: int | None = None) -> int:
    """Bytes for each of so many workers on this machine, by default one per core."""
    return int(PART * machine()) // (workers or len(os.sched_getaffinity(0)))


def machine() -> int:
    """Bytes of memory: the machine's, or less where a control group has less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_group_limits(Path("/proc/self/cgroup"), GROUPS)])


def _group_limits(memberships: Path, mount: Path) -> Iterator[int]:
    """The limits of this process's control groups and of those around them, of either version."""
    lines = memberships.read_text().splitlines() if memberships.exists() else []
    for _, kinds, group in (line.split(":", 2) for line in lines):
        root = mount / "memory" if kinds else mount
        name = "memory.limit_in_bytes" if kinds else "memory.max"
        if kinds and "memory" not in kinds.split(","):
            continue
        inner = root / group.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(root) and (folder / name).is_file():
                text = (folder / name).read_text().strip()
                yield from [int(text)] if text.isdigit() else []  # or "max"


def ran_out(error: BaseException) -> bool:
    """Whether an error, of whatever type, is for want of memory: at the limit anything may fail first,
    torch's allocator, oneDNN's compiler, an import or Python itself."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or TORCH in str(error):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    limit, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return False
    with _room(limit, hard), suppress(PermissionError):  # /proc is closed to written code
        found = DATA.search(Path("/proc/self/status").read_text())
        return found is not None and limit - 1024 * int(found[1]) < SLACK
    return False


@contextmanager
def _room(limit: int, hard: int) -> Iterator[None]:
    """A little more than the limit for a moment, to look at what happened."""
    more = limit if limit == resource.RLIM_INFINITY else limit + SLACK
    more = more if hard == resource.RLIM_INFINITY else min(more, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def refused(error: BaseException) -> str:
    """What running out of memory means, in one sentence; from then on `exhausted` is true."""
    limit, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with _room(limit, hard):
        if not isinstance(error, torch.OutOfMemoryError):  # from a full GPU torch recovers
            _refusals.append(str(error))
        return _sentence(str(error), limit)


def _sentence(said: str, limit: int) -> str:
    within = "what is there" if limit == resource.RLIM_INFINITY else readable(limit)
    found = ASKED.search(said)
    amount, unit = found.groups() if found else ("", "")
    asked = readable(int(amount)) if unit == "bytes" else f"{amount} {unit}"
    return (
        f"memory: an evaluation must stay within {within}, not take "
        f"{f'another {asked}' if found else 'more'}; use a smaller preset or pattern, or fewer workers."
    )


def exhausted() -> bool:
    """Whether an allocation failed in this process. Python and torch are not written to go on from
    there: modules stay half imported, kernels uncompiled, and the heap in pieces."""
    return bool(_refusals)


def readable(size: float) -> str:
    """Bytes with a unit that leaves the number below 1024."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
