"""Attacks that a sandbox makes on itself at its start: a level counts only if each is seen to fail.

Harmless where they succeed. `attack` runs inside, as any task would; `Bait` is laid out and looked after
outside. The full suite is tests/sandbox; these are the borders that differ from machine to machine.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sandbox import kernel

PTRACE, SEIZE = {"x86_64": 101, "aarch64": 117}, 0x4206
CLONE_NEWUSER = 0x10000000
SECRET = "canary-secret"


class Bait:
    """What the attacks reach for: a file of the user, a folder open to all, two listening sockets."""

    def __enter__(self) -> Bait:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self.secret = self.folder / "secret"
            self.secret.write_text(SECRET)
            self.secret.chmod(0o600)
            self.folder.chmod(0o777)
            self._tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            self._unix = stack.enter_context(socket.socket(socket.AF_UNIX))
            self._unix.bind("")  # a free abstract name
            self._unix.listen()
            self._stack = stack.pop_all()
        return self

    def plan(self) -> bytes:
        """Where the attacks find it."""
        return json.dumps(
            {
                "pid": os.getpid(),
                "folder": str(self.folder),
                "port": self._tcp.getsockname()[1],
                "name": self._unix.getsockname().decode("latin-1"),
            }
        ).encode()

    def disturbed(self) -> list[str]:
        """What was done to it, as far as it can be seen from outside."""
        found = [] if {p.name for p in self.folder.iterdir()} == {"secret"} else ["write a file"]
        if self.secret.read_text() != SECRET:
            found.append("change a file")
        if self.secret.stat().st_mode & 0o777 != 0o600:
            found.append("change a file's mode")
        return found

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def attack(folder: Path) -> None:
    """Try each, and write down what became of it: None where it worked, else the error."""
    plan = json.loads((folder / "in" / "plan.json").read_text())
    report = {name: _tried(one, plan) for name, one in ATTACKS.items()}
    (folder / "out" / "canary.json").write_text(json.dumps(report))
    if os.fork() == 0:  # a daemon, for the keeper to find
        os.setsid()
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep", "600"])
        os._exit(0)


def _tried(one: Callable[[dict[str, Any]], object], plan: dict[str, Any]) -> str | None:
    try:
        one(plan)
    except OSError as error:
        return f"{error}"
    return None


def _read(plan: dict[str, Any]) -> None:
    Path(plan["folder"], "secret").read_text()


def _write(plan: dict[str, Any]) -> None:
    Path(plan["folder"], "planted").write_text("x")


def _mode(plan: dict[str, Any]) -> None:
    """Pretends to work inside: the bait tells."""
    Path(plan["folder"], "secret").chmod(0o666)
    raise OSError("seen from outside")


def _environment(plan: dict[str, Any]) -> None:
    Path(f"/proc/{plan['pid']}/environ").read_bytes()


def _signal(plan: dict[str, Any]) -> None:
    os.kill(plan["pid"], 0)


def _trace(plan: dict[str, Any]) -> None:
    kernel.syscall(PTRACE[os.uname().machine], SEIZE, plan["pid"], 0, 0)


def _tcp(plan: dict[str, Any]) -> None:
    socket.create_connection(("127.0.0.1", plan["port"]), timeout=1).close()


def _unix(plan: dict[str, Any]) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(plan["name"].encode("latin-1"))


def _namespace(_: dict[str, Any]) -> None:
    kernel.checked(kernel.LIBC.unshare(ctypes.c_int(CLONE_NEWUSER)), "unshare")


ATTACKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "read a file of the user": _read,
    "write a file": _write,
    "change a file's mode": _mode,
    "read the supervisor's environment": _environment,
    "signal the supervisor": _signal,
    "trace the supervisor": _trace,
    "connect over TCP": _tcp,
    "connect to an abstract socket": _unix,
    "make a user namespace": _namespace,
}
