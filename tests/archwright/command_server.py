"""Runs `archwright` commands, each in a process forked from this one, which has imported everything.

Such a process is a real one, with its own arguments, environment, folder, output and exit code; only
the seconds that importing torch takes are saved. Reads one JSON object a line from stdin and answers
with the exit code.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import archwright.cli
import archwright.console
import archwright.estimate
import archwright.inspection
import archwright.replay
import archwright.single


def serve() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            run(json.loads(line))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(job: dict[str, Any]) -> None:
    """The command of a job, in this process, which ends with it."""
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    for descriptor, path in ((1, job["out"]), (2, job["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv = ["archwright", *job["arguments"]]
    code: Any = 0
    try:
        archwright.cli.main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001  (as the interpreter would)
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    serve()
