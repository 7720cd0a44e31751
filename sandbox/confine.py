"""The confinement of the warm parent, and the tighter one of each run inside it.

Both are for good and descend. Level `process` confines nothing: see `sandbox.levels`.
"""

from __future__ import annotations

import os
from pathlib import Path

from sandbox import kernel, landlock, limits, privileges, seccomp, tree
from sandbox.limits import Limits
from sandbox.paths import DEVICES, MACHINE, OWN, programs, readable


def warm(level: str, ground: Path) -> None:
    """Confine the warm parent: it may read programs and /proc, and write below ``ground``. No run reads
    what it may not, the texts of our corpora among it.

    Raises OSError or NotImplementedError where the kernel lacks what the level takes.
    """
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    if level == "process":
        return
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if privileges.is_root():
        privileges.trusted_stage()
    whole, apart = programs()
    landlock.restrict([*whole, Path("/proc"), *MACHINE], [ground], DEVICES, apart)
    seccomp.install(trusted=True)


def child(level: str, place: Path, limit: Limits, uid: int | None) -> None:
    """Confine a run to its folder and its limits, as a user of its own where we are root."""
    others = tree.tasks_of(os.getuid()) if uid is None else 0
    if level == "process":
        limits.apply(limit, others)
        return
    own = [Path(f"/proc/{os.getpid()}/{name}") for name in OWN]
    if uid is not None:
        privileges.become(uid)
    limits.apply(limit, others)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    landlock.restrict([*readable(), *MACHINE, *own, place], [place / "out", place / "tmp"], DEVICES)
    outward = uid is None and landlock.abi() < landlock.SIGNALS
    seccomp.install(seccomp.own_signals(os.getpid()) if outward else ())
