"""What of the machine a run may see: programs, libraries, this package and the two that it needs.

Not the checkout's root: run folders, ledgers and corpora may lie there.
"""

from __future__ import annotations

import sys
from pathlib import Path

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SETTINGS = ("ld.so.cache", "localtime", "alternatives")  # of /etc
DEVICES = tuple(Path("/dev", name) for name in ("null", "zero", "full", "random", "urandom"))
# Without cpuinfo torch chooses other kernels, and other floats come out.
MACHINE = tuple(
    Path(path)
    for path in (
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/proc/sys/vm",
        "/sys/devices/system/cpu",
        "/sys/devices/system/node",
    )
)
OWN = ("stat", "statm", "status", "maps", "cgroup")  # of a run's own /proc/PID
OURS = ("evaluator", "sandbox", "search_space")


def readable() -> list[Path]:
    """Folders and files to read, those inside another left out."""
    root = Path(__file__).resolve().parent.parent
    paths = [Path(path) for path in (*SYSTEM, sys.prefix, sys.base_prefix, sys.exec_prefix)]
    paths += [Path("/etc", name) for name in SETTINGS] + [root / name for name in OURS]
    there = sorted({path for path in paths if path.exists()})
    return [path for path in there if not any(path.is_relative_to(p) for p in there if p != path)]
