"""The sandbox's public face: `Sandbox.run` runs code that nobody trusts and returns a typed `Ended`.

    with Sandbox() as sandbox:
        ended = sandbox.run("train.py", {"train.py": source}, [File("w.safetensors", "safetensors", 1 << 24)])

Supervisor (this process) -> broker -> warm parent -> keeper of a run -> the run. Not covered: kernel
exploits, side channels (timing, caches), GPU drivers. For hostile multi-tenant use run the workers in
virtual machines or gVisor.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from sandbox import levels
from sandbox.ended import Ended, Outcome, SandboxError
from sandbox.limits import Limits
from sandbox.results import File

__all__ = ["Ended", "File", "Limits", "Outcome", "Sandbox", "SandboxError"]


class Sandbox:
    """A broker with a warm parent that has torch imported; a context manager. Runs start within
    milliseconds, in forks that share nothing but what the warm parent had, which is no secret.

    ``require``: the lowest level that will do (`process`, `landlock`, `bubblewrap`); ``level``: exactly
    this one, instead of the best. ``unsafe`` allows `process`, which isolates nothing. ``workers``: runs
    at a time, further ones wait; ``threads``: of torch in each.

    Raises ValueError for a level that is none or not allowed, SandboxError where none holds that is good
    enough, with what to do about each.
    """

    level: str  # the one that the canary attacks proved

    def __init__(
        self,
        require: str = "landlock",
        level: str | None = None,
        unsafe: bool = False,
        workers: int = 16,
        threads: int = 1,
    ) -> None:
        self._broker = levels.start(levels.allowed(require, level, unsafe), workers, threads)
        self.level = self._broker.level
        if self.level == "process":
            print(levels.BANNER, file=sys.stderr)

    def run(
        self,
        task: str,
        inputs: Mapping[str, bytes],
        results: Sequence[File] = (),
        limits: Limits = Limits(),  # noqa: B008  (frozen)
    ) -> Ended:
        """Run a task in a fresh fork and wait for its end; may be called from many threads at a time.

        ``task``: `module:function`, of our own code or of a written file, called with the run's folder
        (Path), or the name of a written script (`train.py`), run as the main program with that folder as
        its working directory. In the folder: `in/` with ``inputs`` (name -> content, names may hold `/`),
        to read; `out/`, where the declared ``results`` are left; `tmp/`. Whatever else was written is gone.

        Raises ValueError for a name of a file that is no plain one, SandboxError for a fault of ours.
        """
        return self._broker.run(task, inputs, results, limits)

    def close(self) -> None:
        """End all runs and the broker."""
        self._broker.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
