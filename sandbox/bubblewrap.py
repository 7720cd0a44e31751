"""The command line that puts the warm parent into namespaces of its own with `bwrap`.

It sees programs and libraries read-only, a /proc and /dev of its own, no network, and for each slot a
tmpfs of bounded size, which rlimits could not hold. The rest is confined from within, as at level
`landlock`. An ordinary user gets a user namespace. Root does not: it keeps what `privileges` needs for a
user id per run, since what is root inside could write the host's /proc/sys.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sandbox import privileges
from sandbox.ground import Ground
from sandbox.paths import readable

NAMESPACES = ("pid", "net", "ipc", "uts", "cgroup-try")
CAPABILITIES = ("CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP")


def wrapped(command: list[str], ground: Ground) -> list[str]:
    """The command inside bwrap. Raises FileNotFoundError where that is not installed."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise FileNotFoundError("bwrap is not installed")
    return [bwrap, *_namespaces(), *_files(ground), "--", *command]


def _namespaces() -> list[str]:
    options = [f"--unshare-{name}" for name in NAMESPACES]
    options += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if privileges.is_root():
        return options + [word for name in CAPABILITIES for word in ("--cap-add", name)]
    return [*options, "--unshare-user"]


def _files(ground: Ground) -> list[str]:
    """Mounts; the folders above them first, since a run's own user must pass through each."""
    bound = [*readable(), Path("/sys/devices/system")]
    above = {parent for path in (*bound, Path(ground.folder, "0")) for parent in path.parents}
    options = ["--proc", "/proc", "--dev", "/dev"]
    for folder in sorted(above - {Path("/")}):
        options += ["--perms", "0755", "--dir", str(folder)]
    for path in bound:
        options += ["--ro-bind-try", str(path), str(path)]
    for number in range(ground.slots):
        options += ["--size", str(ground.slot_bytes), "--tmpfs", str(ground.slot(number))]
    return [*options, "--chdir", "/", "--remount-ro", "/dev", "--remount-ro", "/"]
