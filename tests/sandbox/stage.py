"""Runs all hostile programs as whoever runs this, at one level or outside, and prints what came of each.

    python tests/sandbox/stage.py landlock|bubblewrap|outside

One JSON object: program -> what is wrong (inside) or whether it reached its goal (outside).
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from hostile import ATTACKS, PRELUDE, Attack

from sandbox import folder, kernel, tree
from sandbox.run import Ended, Limits, Sandbox, SandboxError

KEY = "ARCHWRIGHT_TEST_KEY"
CHECKOUT = Path(__file__).parents[2]
SHM = Path("/dev/shm")


class Host:
    """What a hostile program might reach, and whether it did."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="archwright-host-"))
        self.folder.chmod(0o755)
        (self.folder / "open").mkdir()
        (self.folder / "open").chmod(0o777)
        self.mark = f"7777.{secrets.randbelow(10**9)}"
        self.key = secrets.token_hex(16)
        os.environ[KEY] = self.key
        self._files()
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.abstract, self.path = (socket.socket(socket.AF_UNIX) for _ in range(2))
        self.abstract.bind("")
        self.path.bind(str(self.folder / "socket"))
        self.datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.datagrams.bind(str(self.folder / "datagrams"))
        for listener in (self.tcp, self.abstract, self.path):
            listener.listen()
        for each in (self.tcp, self.udp, self.abstract, self.path, self.datagrams):
            each.setblocking(False)
        self._victim()
        self.before = self._state()

    def _files(self) -> None:
        secret = self.folder / "secret"
        with suppress(FileNotFoundError):
            secret.unlink()
        secret.write_text("the secret")
        secret.chmod(0o600)
        os.utime(secret, (10**9, 10**9))
        (self.folder / "labels.json").write_text("[1, 0, 1]")

    def _victim(self) -> None:
        self.victim = subprocess.Popen(["/bin/sleep", "8888", self.mark], start_new_session=True)

    def plan(self) -> str:
        return json.dumps(
            {
                "folder": str(self.folder),
                "checkout": str(CHECKOUT),
                "packages": sys.prefix,
                "mark": self.mark,
                "key_value": self.key,
                "tcp": self.tcp.getsockname()[1],
                "udp": self.udp.getsockname()[1],
                "abstract": self.abstract.getsockname().decode("latin-1"),
                "supervisor": os.getpid(),
                "victim": self.victim.pid,
            }
        )

    def _state(self) -> dict[str, object]:
        """Everything that must be the same after an attack."""
        pid, secret = self.victim.pid, self.folder / "secret"
        found = secret.stat() if secret.exists() else None
        alive = self.victim.poll() is None
        shared = Path("/proc/sysvipc/shm")
        return {
            "a file of the user": found and (found.st_mode, found.st_mtime, found.st_uid),
            "its content": secret.read_text() if found else None,
            "its attributes": os.listxattr(secret) if found else None,
            "the open folder": sorted(p.name for p in (self.folder / "open").iterdir()),
            "/dev/shm": sorted(p.name for p in SHM.iterdir() if "archwright" in p.name),
            "System V memory": len(shared.read_text().splitlines()) if shared.exists() else 0,
            "core_pattern": Path("/proc/sys/kernel/core_pattern").read_text(),
            "a process of the host": alive,
            "its limits": resource.prlimit(pid, resource.RLIMIT_NOFILE) if alive else None,
            "its priority": os.getpriority(os.PRIO_PROCESS, pid) if alive else None,
            "its cores": sorted(os.sched_getaffinity(pid)) if alive else None,
        }

    def changes(self) -> list[str]:
        """What is not as it was, and what arrived."""
        now = self._state()
        found = [name for name, value in self.before.items() if now[name] != value]
        for name in ("tcp", "abstract", "path"):
            with suppress(BlockingIOError):
                getattr(self, name).accept()[0].close()
                found.append(f"a connection to {name}")
        for name in ("udp", "datagrams"):
            with suppress(BlockingIOError):
                while getattr(self, name).recv(1000):
                    found.append(f"a datagram to {name}")
        return found + [f"process {pid} lives" for pid in self.survivors()]

    def survivors(self) -> list[int]:
        """Processes that carry the mark."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if path.read_bytes().split(b"\0")[1:2] == [self.mark.encode()]:
                    found.append(int(path.parent.name))
        return found

    def mend(self) -> None:
        """Make it as it was."""
        for pid in self.survivors():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in (*(self.folder / "open").iterdir(), SHM / "archwright-planted"):
            path.unlink(missing_ok=True)
        self.victim.kill()
        self.victim.wait()
        self._files()
        self._victim()

    def close(self) -> None:
        self.mend()
        self.victim.kill()
        self.victim.wait()
        shutil.rmtree(self.folder)


def outside(host: Host, attack: Attack) -> bool | None:
    """The positive control: whether the program reaches its goal as a plain process of the user."""
    if attack.control is None or (attack.control == "root" and os.getuid() != 0):
        return None
    base = Path(tempfile.mkdtemp())
    for part in ("0/in", "0/out", "0/tmp", "1/in"):
        (base / part).mkdir(parents=True)
    (base / "1/in/secret.txt").write_text("another's")
    for name, text in inside_inputs(host, attack).items():
        (base / "0/in" / name).write_text(text)
    try:
        return unprotected(host, attack, base / "0")
    finally:
        folder.empty(base)
        base.rmdir()


def unprotected(host: Host, attack: Attack, place: Path) -> bool:
    """Run it there, with a descriptor to write to, as a careless supervisor would."""
    reader, writer = os.pipe()
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "in/attack.py"],
            cwd=place,
            pass_fds=[writer],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    lasted = False
    try:
        process.wait(0.5 if attack.lasting else 20)
    except subprocess.TimeoutExpired:
        lasted = attack.lasting
    worked = lasted or "WORKED" in (place / "log").read_text()
    deadline = time.monotonic() + 5
    while not worked and time.monotonic() < deadline:  # a daemon takes a moment to become one
        worked = bool(host.changes())
    for left in tree.descendants(os.getpid()):
        if left.pid != host.victim.pid:
            os.kill(left.pid, signal.SIGKILL)
    process.wait()
    os.close(reader)
    os.close(writer)
    return worked


def inside_inputs(host: Host, attack: Attack) -> dict[str, str]:
    return {"attack.py": PRELUDE + attack.source, "plan.json": host.plan(), **attack.inputs}


def inside(host: Host, sandbox: Sandbox, attack: Attack) -> list[str]:
    """What is wrong after the program ran in the sandbox."""
    files = {name: text.encode() for name, text in inside_inputs(host, attack).items()}
    began = time.monotonic()
    ended = sandbox.run("attack.py", files, attack.results, attack.limits)
    late = time.monotonic() - began - attack.limits.wall_seconds
    wrong = list(host.changes())
    if attack.refused and "WORKED" in ended.log:
        wrong.append(f"it reached its goal: {ended.log}")
    if ended.outcome not in attack.outcomes:
        wrong.append(f"outcome {ended.outcome} ({ended.detail})")
    if ended.outcome.value != "ok" and ended.files:
        wrong.append("it has results")
    if late > 3:
        wrong.append(f"it ended {late:.1f} s late")
    return [f"{one} {_log(ended)}" for one in wrong]


LEFT = b"""
import os
for part in ('out', 'tmp'):
    for name in os.listdir(part): print('left', part, name)
"""


def leftovers(sandbox: Sandbox) -> list[str]:
    """What the next run finds; the slots take turns."""
    ended = sandbox.run("a.py", {"a.py": LEFT})
    return [] if (ended.outcome, ended.log) == ("ok", "") else [f"next run: {ended}"]


def _log(ended: Ended) -> str:
    return f"[{ended.outcome} {ended.detail} | {ended.log[-300:]}]"


def sleeper(sandbox: Sandbox) -> threading.Thread:
    """Another candidate's run that goes on all the while, with something to steal."""

    def sleep() -> None:
        with suppress(SandboxError):  # closing the sandbox ends it
            sandbox.run(
                "s.py",
                {"s.py": b"import time; time.sleep(900)", "secret.txt": b"another's"},
                limits=Limits(wall_seconds=900),
            )

    thread = threading.Thread(target=sleep)
    thread.start()
    time.sleep(0.2)
    return thread


def main(where: str) -> dict[str, object]:
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)  # the daemons of the controls are ours to end
    host = Host()
    rows: dict[str, object] = {}
    try:
        if where == "outside":
            for name, attack in ATTACKS.items():
                rows[name] = outside(host, attack)
                host.mend()
            return rows
        with Sandbox(level=where, workers=3) as sandbox:
            thread = sleeper(sandbox)
            for name, attack in ATTACKS.items():
                try:
                    rows[name] = inside(host, sandbox, attack)
                except SandboxError as error:
                    rows[name] = [f"the sandbox failed: {error}"]
                host.mend() if rows[name] else None
            rows["leftovers"] = leftovers(sandbox) + leftovers(sandbox)
        thread.join()
        return rows
    finally:
        host.close()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
