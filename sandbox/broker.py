"""The broker: starts the warm parent, lives as long as the supervisor, and leaves nothing behind.

A process of its own, since what dies with its parent dies with the launching *thread*. Holds no secret.
`python -m sandbox.broker CONFIG`; its stdin closes when the supervisor wants it gone, and a descriptor
of the supervisor's process tells of a supervisor that was killed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from sandbox import bubblewrap, folder, kernel, tree
from sandbox.ground import Ground


def main() -> None:
    """Start the warm parent and wait for the end of it, of the supervisor or of stdin."""
    config = json.loads(sys.argv[1])
    control, parent = config.pop("control"), config.pop("supervisor")
    ground = Ground(**config, broker=os.getpid())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of the clean-up below
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    supervisor = os.pidfd_open(parent)
    if os.getppid() != parent:
        return  # it died before we could look
    try:
        warm = subprocess.Popen(
            command(ground, control), stdin=subprocess.DEVNULL, pass_fds=[control], cwd="/"
        )
        os.close(control)
        _wait(0, supervisor, os.pidfd_open(warm.pid))
    finally:
        left = tree.end(os.getpid())
        folder.empty(Path(ground.folder))
        Path(ground.folder).rmdir()
        if left:
            sys.exit(f"processes that would not die: {left}")


def command(ground: Ground, control: int) -> list[str]:
    """How the warm parent is started: isolated from the user's variables and working directory."""
    config = json.dumps({**asdict(ground), "control": control})
    plain = [sys.executable, "-I", "-B", "-m", "sandbox.warm", config]
    return bubblewrap.wrapped(plain, ground) if ground.level == "bubblewrap" else plain


def _wait(*descriptors: int) -> None:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    poll.poll()


if __name__ == "__main__":
    main()
