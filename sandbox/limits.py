"""What one run may use, and the part of it that the kernel holds by itself (rlimits).

Does not watch: totals over a tree of processes are the keeper's (`sandbox.keeper`).
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

# In bytes; 1, unlike 0, also keeps a core from a pipe in core_pattern (fs/coredump.c).
NO_CORE = 1
SPARE = 1 << 30  # address space that torch takes on a CPU over the memory that it uses
FORKS = 8  # times the limit on processes before the kernel refuses; the keeper comes first


@dataclass(frozen=True)
class Limits:
    """Seconds, bytes and counts of one run; each is for all its processes together, unless it says so.

    Reaching one ends the run, with the outcome of that name.
    """

    wall_seconds: float = 60.0
    cpu_seconds: float = 120.0
    # Anonymous and shared memory, what torch took at start included; for each fork again, since nobody can
    # see from outside what it still shares.
    memory_bytes: int = 2 << 30
    processes: int = 64  # threads are counted too
    open_files: int = 256  # of each process
    file_bytes: int = 256 << 20  # of each file
    scratch_bytes: int = 512 << 20  # of all files written
    scratch_files: int = 10_000  # and folders
    output_bytes: int = 1 << 20  # of stdout and stderr


def apply(limits: Limits, others: int = 0) -> None:
    """Bound this process and its descendants for good; ``others`` are tasks that its user runs already."""
    bounds = {
        resource.RLIMIT_CORE: NO_CORE,
        resource.RLIMIT_CPU: int(limits.cpu_seconds) + 1,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NPROC: others + FORKS * limits.processes,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_AS: _address_space() + limits.memory_bytes + SPARE,
    }
    for kind, bound in bounds.items():
        _, hard = resource.getrlimit(kind)
        lowest = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (lowest, lowest))


def _address_space() -> int:
    """Bytes that this process has mapped already: libraries, and what was reserved."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
