"""How long written code waits for its sandbox, and how soon it is gone, at each level that holds here.

A start is what a gate or a probe pays: from the call to the first line of its task, with torch imported.
Beside it what it would cost in an interpreter of its own. It says nothing of how well a level isolates.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from evaluator.bench import Figure
from sandbox.levels import LEVELS
from sandbox.run import File, Limits, Sandbox, SandboxError

FIRST = "import json, time, torch\njson.dump(time.monotonic(), open('out/when.json', 'w'))"
DAEMONS = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork(): os._exit(0)
        break
while True: time.sleep(1)
"""


@dataclass(frozen=True)
class Size:
    """How often each is measured."""

    cold: int = 5
    warm: int = 50
    kills: int = 5


FULL, QUICK = Size(), Size(1, 2, 1)


def bench(size: Size) -> dict[str, Any]:
    """The JSON keys of `archwright bench sandbox`, without its figures: seconds of a cold start, and
    ``levels``, each what `one_level` returns or, under ``error``, why it does not hold."""
    cold = [_timed(_cold) for _ in range(size.cold)]
    return {
        "cold_seconds": asdict(Figure.of(cold)),
        "levels": {name: _level(name, size) for name in LEVELS[1:]},
    }


def _level(level: str, size: Size) -> dict[str, Any]:
    began = time.monotonic()
    try:
        with Sandbox(level=level) as sandbox:
            return {"open_seconds": time.monotonic() - began, **one_level(sandbox, size)}
    except SandboxError as error:
        return {"error": str(error)}


def one_level(sandbox: Sandbox, size: Size) -> dict[str, Any]:
    """Seconds: ``start``, from the call to the task's first line; ``round_trip``, until its result is
    there; ``kill``, from the wall-clock limit to the answer, with three daemons to find."""
    starts, trips = zip(*(_warm(sandbox) for _ in range(size.warm)), strict=True)
    limits = Limits(wall_seconds=0.5)
    kills = [
        _timed(lambda: sandbox.run("d.py", {"d.py": DAEMONS.encode()}, limits=limits))
        - limits.wall_seconds
        for _ in range(size.kills)
    ]
    measured = {"start": starts, "round_trip": trips, "kill": kills}
    return {name: asdict(Figure.of(values)) for name, values in measured.items()}


def _warm(sandbox: Sandbox) -> tuple[float, float]:
    """All processes share the monotonic clock."""
    began = time.monotonic()
    ended = sandbox.run("w.py", {"w.py": FIRST.encode()}, [File("when.json", "json", 100)])
    return ended.files["when.json"] - began, time.monotonic() - began


def _cold() -> None:
    subprocess.run([sys.executable, "-c", "import torch"], check=True)


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
