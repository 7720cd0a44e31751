"""What of the machine a run may see: programs, libraries, this package and the two that it needs.

Not the checkout's root: run folders, ledgers and corpora may lie there. Nor the texts that come with
programs and are corpora of ours, which hold what a model is scored on.
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
# Corpora of `evaluator.tasks.text`, from any of the folders above, /bin and /lib among them: Python's help,
# its documentation and Debian's Bible.
TEXTS = (
    "python*/pydoc_data", "lib*/python*/pydoc_data", "local/lib*/python*/pydoc_data",
    "share/doc/python*/html", "bible", "bin/bible", "bible.data*", "lib/bible.data*",
)  # fmt: skip


def readable() -> list[Path]:
    """Folders and files to read, those inside another left out."""
    root = Path(__file__).resolve().parent.parent
    paths = [Path(path) for path in (*SYSTEM, sys.prefix, sys.base_prefix, sys.exec_prefix)]
    paths += [Path("/etc", name) for name in SETTINGS] + [root / name for name in OURS]
    there = sorted({path for path in paths if path.exists()})
    return [path for path in there if not any(path.is_relative_to(p) for p in there if p != path)]


def texts() -> list[Path]:
    """Where such texts are on this machine."""
    return sorted({found for root in _roots() for text in TEXTS for found in root.glob(text)})


def exposed(path: Path) -> bool:
    """Whether a run could read this path."""
    place = path.expanduser().resolve()
    within = [any(place.is_relative_to(p) for p in paths) for paths in (_roots(), texts())]
    return within == [True, False]


def programs() -> tuple[list[Path], list[Path]]:
    """What is readable without those texts, and the folders that had to be taken apart for it, of which
    the names may be listed. What a link in such a folder leads to is allowed by its own path or not at all.
    """
    whole: list[Path] = []
    apart: list[Path] = []
    left, hidden = _roots(), texts()
    while left:
        path = left.pop()
        if any(text.is_relative_to(path) for text in hidden):
            apart.append(path)
            left += [p for p in path.iterdir() if not p.is_symlink() and p not in hidden]
        else:
            whole.append(path)
    return whole, apart


def _roots() -> list[Path]:
    """The readable paths without links, so that there is one way to each file."""
    return sorted({path.resolve() for path in readable()})
