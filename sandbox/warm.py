"""The warm parent: confines itself, imports torch once, then forks a keeper for each run.

Holds no secret: its environment is scrubbed and it was started by the broker, not forked from the
supervisor. `python -m sandbox.warm CONFIG`, with the control socket as an inherited descriptor.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import evaluator  # noqa: F401  (the folder above the packages cannot be searched once confined)
import search_space  # noqa: F401
from sandbox import confine, kernel
from sandbox.ground import Ground

REQUEST = 1 << 16  # bytes of one, at most


def main() -> None:
    """Serve until the supervisor closes the control socket."""
    config = json.loads(sys.argv[1])
    control = socket.socket(fileno=config.pop("control"))
    ground = Ground(**config)
    confine.warm(ground.level, Path(ground.folder))
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # the broker has one thread only
    import torch

    from sandbox import keeper, preload

    preload.load()
    torch.set_num_threads(1)  # a pool of threads would not survive the forks
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    gc.collect()
    gc.freeze()  # its pages stay shared with the forks
    control.send(b"ready")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, REQUEST, 1)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            _keep(keeper.keep, descriptors[0], json.loads(message), ground)
        os.close(descriptors[0])


def _keep(keep: Any, descriptor: int, request: dict[str, Any], ground: Ground) -> None:
    """One keeper's whole life; a fault of ours goes to our own log, and the link is closed by the exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        keep(socket.socket(fileno=descriptor), request, ground)
    except Exception:  # noqa: BLE001  (the sandbox's border: the supervisor learns it from the link)
        traceback.print_exc()
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
