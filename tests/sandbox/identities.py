"""Run a command as root, or as an ordinary user, from a test that root runs; else as who we are.

Python may lie below a closed home (/root), where no ordinary user gets to. In a mount namespace of its own
the command then finds that home open, with nothing in it but Python, its packages and this checkout.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]
STAGE = Path(__file__).with_name("stage.py")
NEEDED = (sys.base_prefix, sys.prefix, CHECKOUT)
USERS = {"root": None, "user": 65534}
OURS = ["root", "user"] if os.getuid() == 0 else ["user"]


def run_as(who: str, command: list[str], **more: object) -> subprocess.CompletedProcess[str]:
    """The command's end, with its output as text."""
    if who != "root" and os.getuid() == 0:
        user = str(USERS[who])
        command = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", *command]
    return subprocess.run(opened(command), capture_output=True, text=True, cwd="/", **more)  # type: ignore[call-overload,no-any-return]


def stage(who: str, where: str) -> dict[str, Any]:
    """What `stage` printed. A level that the machine does not offer is skipped, but never by CI."""
    done = _staged(who, where)
    if "SandboxError" in done.stderr and not os.environ.get("CI"):
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@cache
def _staged(who: str, where: str) -> subprocess.CompletedProcess[str]:
    return run_as(who, [sys.executable, str(STAGE), where], timeout=300)


def opened(command: list[str]) -> list[str]:
    """The command where what it needs can be reached by anyone."""
    closed = sorted({str(top) for path in NEEDED if (top := _closed(Path(path).resolve()))})
    if os.getuid() != 0 or not closed:
        return command
    script = "set -e; aside=$(mktemp -d); mount -t tmpfs tmpfs $aside\n"
    within = [str(path) for path in NEEDED if any(Path(path).is_relative_to(top) for top in closed)]
    for number, path in enumerate(within):
        script += f"mkdir $aside/{number}; mount --bind {shlex.quote(path)} $aside/{number}\n"
    for top in closed:
        script += f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(top)}\n"
    for number, path in enumerate(within):
        script += (
            f"mkdir -p {shlex.quote(path)}; mount --bind $aside/{number} {shlex.quote(path)}\n"
        )
    script += 'umount -l $aside; rmdir $aside; exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command]


def _closed(path: Path) -> Path | None:
    """The first folder on the way to a path that others cannot pass."""
    way = [*reversed(path.parents), path]
    return next((folder for folder in way if not folder.stat().st_mode & 0o001), None)
