"""Kills a supervisor, or its broker, in the middle of a run, and says what is left of them.

python tests/sandbox/orphans.py LEVEL supervisor|broker
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from sandbox import folder, tree
from sandbox.run import Limits, Sandbox

FAMILY = """
import os, time
for n in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork(): os._exit(0)
        break
while True: time.sleep(1)
"""


def supervise(level: str) -> None:
    """A supervisor that waits for a run that does not end."""
    sandbox = Sandbox(level=level)
    print(sandbox._broker._process.pid, flush=True)
    sandbox.run("f.py", {"f.py": FAMILY.encode()}, limits=Limits(wall_seconds=600))


def gone(pids: list[int], within: float) -> list[int]:
    """Those of these that live on after so many seconds."""
    deadline = time.monotonic() + within
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def folder_of(broker: int) -> Path:
    """Where a broker's runs take place, from its command line."""
    words = Path(f"/proc/{broker}/cmdline").read_text()
    return Path(words.partition('"folder": "')[2].partition('"')[0])


def main(level: str, victim: str) -> None:
    command = [sys.executable, __file__, level, "supervise"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        broker = int(supervisor.stdout.readline())
        expected = 6 + 2 * (
            level == "bubblewrap"
        )  # the warm parent, the keeper, the script, daemons
        while len(started := [p.pid for p in tree.descendants(broker)]) < expected:
            time.sleep(0.05)
        place = folder_of(broker)
        os.kill(broker if victim == "broker" else supervisor.pid, signal.SIGKILL)
        supervisor.wait()  # without its broker it fails
    left = gone([broker, *started], 10)
    print(json.dumps({"started": len(started), "left": left, "folder_left": place.exists()}))
    if place.exists():
        folder.empty(place)
        place.rmdir()


if __name__ == "__main__":
    supervise(sys.argv[1]) if sys.argv[2] == "supervise" else main(*sys.argv[1:])
