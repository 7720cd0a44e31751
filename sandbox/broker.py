"""The broker: starts the warm parent, lives as long as the supervisor, and leaves nothing behind.

A process of its own, since what dies with its parent dies with the launching *thread*. Holds no secret.
`python -m sandbox.broker CONFIG`; its stdin closes when the supervisor wants it gone, and a descriptor
of the supervisor's process tells of a supervisor that was killed.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from sandbox import folder, kernel, tree


def main() -> None:
    """Start the warm parent and wait for the end of it, of the supervisor or of stdin."""
    config = json.loads(sys.argv[1])
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    supervisor = os.pidfd_open(config["supervisor"])
    if os.getppid() != config["supervisor"]:
        return  # it died before we could look
    try:
        warm = subprocess.Popen(
            command(config), stdin=subprocess.DEVNULL, pass_fds=[config["control"]]
        )
        os.close(config["control"])
        _wait(0, supervisor, os.pidfd_open(warm.pid))
    finally:
        left = tree.end(os.getpid())
        folder.remove(Path(config["ground"]))
        sys.exit(f"processes that would not die: {left}" if left else 0)


def command(config: dict[str, Any]) -> list[str]:
    """How the warm parent is started: isolated from the user's variables and working directory."""
    return [sys.executable, "-I", "-B", "-m", "sandbox.warm", json.dumps(config)]


def _wait(*descriptors: int) -> None:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    poll.poll()


if __name__ == "__main__":
    main()
