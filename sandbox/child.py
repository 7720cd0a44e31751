"""The forked process in which untrusted code runs: calls the task and turns its end into an exit code.

From its first line of the task on, everything here is the program's to change.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys
import traceback
from pathlib import Path

import torch

from evaluator import memory

CRASHED, NO_MEMORY = 1, 98  # exit codes


def prepare(folder: Path, output: int, report: int, threads: int) -> None:
    """What takes no confinement: the log as the only file but for ``report``, the folder as home, threads."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, report)
    os.closerange(report + 1, os.sysconf("SC_OPEN_MAX"))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.update(HOME=str(folder / "tmp"), TMPDIR=str(folder / "tmp"), USER="sandbox")
    torch.set_num_threads(threads)


def main(task: str, folder: Path) -> int:
    """Run the task and return this process's exit code; nothing is raised."""
    try:
        run(task, folder)
    except SystemExit as error:
        return _code(error.code)
    except BaseException as error:  # noqa: BLE001  (the border: whatever the program raises is its word)
        _say(error)
        return NO_MEMORY if memory.ran_out(error) else CRASHED
    finally:
        sys.stdout.flush()
    return 0


def run(task: str, folder: Path) -> None:
    """Run a script of `in/` as the main program, or call `module:function` with the run's folder.

    The written files come last on the import path: they shadow nothing that we or torch import.
    """
    sys.path.append(str(folder / "in"))
    if task.endswith(".py"):
        sys.argv = [task]
        runpy.run_path(str(folder / "in" / task), run_name="__main__")
    else:
        module, _, function = task.partition(":")
        getattr(importlib.import_module(module), function)(folder)


def _code(code: object) -> int:
    """What `sys.exit` means by its argument."""
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)
    return CRASHED


def _say(error: BaseException) -> None:
    """The traceback without our own frames, which say nothing of the program."""
    frames = traceback.TracebackException.from_exception(error)
    frames.stack[:] = [f for f in frames.stack if f.filename not in (__file__, runpy.__file__)]
    frames.stack[:] = [f for f in frames.stack if not f.filename.startswith("<frozen")]
    print("".join(frames.format()), file=sys.stderr)
