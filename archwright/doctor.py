"""Checks the environment and says what to do about each thing that is wrong. Changes nothing."""

from __future__ import annotations

import importlib
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from agents.llm import KEYS
from archwright.environment import default_workers, device_name
from evaluator import memory
from evaluator.tasks.lra import VARIABLE
from evaluator.tasks.text import NAMED, read_corpus
from sandbox import levels
from sandbox.run import Sandbox, SandboxError
from search_space.native.library import kernels

OURS = ("agents", "archwright", "evaluator", "sandbox", "search_space", "storage")


def checks(require: str = "landlock", unsafe: bool = False) -> list[dict[str, Any]]:
    """One row per check: name, ok (None: for information), detail with the way out.

    ``require`` and ``unsafe`` are what `sandbox.run.Sandbox` takes. Raises ValueError for a level that is
    none.
    """
    parts: tuple[Callable[[], Iterator[tuple[str, bool | None, str]]], ...] = (
        _python,
        _packages,
        _machine,
        partial(_sandbox, require, unsafe),
        _memory,
        _corpora,
        _keys,
        _ray,
    )
    return [{"name": n, "ok": ok, "detail": d} for part in parts for n, ok, d in part()]


def _python() -> Iterator[tuple[str, bool | None, str]]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield "python", sys.version_info >= (3, 11), f"{version} (3.11 or newer is needed)"
    yield "sqlite", sqlite3.sqlite_version_info >= (3, 35), sqlite3.sqlite_version


def _packages() -> Iterator[tuple[str, bool | None, str]]:
    """`openai-agents` installs a package named `agents` too, and the two overwrite each other."""
    root = Path(__file__).resolve().parent.parent
    for name in OURS:
        place = Path(str(importlib.import_module(name).__file__)).resolve()
        ok = place.parent.parent == root
        detail = str(place.parent.name) if ok else f"{place} is not ours: uninstall openai-agents"
        yield f"package {name}", ok, detail


def _machine() -> Iterator[tuple[str, bool | None, str]]:
    cores = len(os.sched_getaffinity(0))
    yield "torch", True, torch.__version__
    yield "device", True, device_name()
    if kernels() is None and not torch.cuda.is_available():
        yield "kernels", None, "none of ours, small models train more slowly: see README"
    yield "cores", True, f"{cores}; {default_workers()} workers by default"


def _sandbox(require: str, unsafe: bool) -> Iterator[tuple[str, bool | None, str]]:
    """Attacks the sandbox at each level; the best that held is the one that written code gets."""
    enough = levels.allowed(require, None, unsafe)
    isolating = [level for level in reversed(levels.LEVELS) if level != "process"]
    problems = {level: attacked(level, unsafe) for level in dict.fromkeys(isolating + enough)}
    for level, problem in problems.items():
        yield f"sandbox {level}", None if problem else True, problem or _held(level)
    held = [level for level in enough if problems[level] is None]
    if held:
        yield "sandbox", True, f"{held[0]}: written code would run at this level"
    else:
        yield "sandbox", False, f"none of {', '.join(enough)} holds: mend one of those above"


def _held(level: str) -> str:
    return levels.BANNER if level == "process" else "every canary attack failed"


def attacked(level: str, unsafe: bool) -> str | None:
    """Why a level of the sandbox does not hold here, with what mends it; None where it does."""
    try:
        Sandbox(level=level, unsafe=unsafe).close()
    except SandboxError as error:
        return str(error)
    return None


def _memory() -> Iterator[tuple[str, bool | None, str]]:
    machine, share = memory.readable(memory.machine()), memory.readable(memory.share())
    yield "memory", True, f"{machine}; {share} for each worker, if there is one per core"


def _corpora() -> Iterator[tuple[str, bool | None, str]]:
    for name in NAMED:
        try:
            corpus = read_corpus(name)
        except ValueError as error:
            yield f"corpus {name}", None, f"not there: {error}"
        else:
            yield f"corpus {name}", True, f"{len(corpus.data):,} bytes, sha256 {corpus.sha256}"
    folder = os.environ.get(VARIABLE, "")
    if not folder:
        yield VARIABLE, None, "not set: only needed for the Long Range Arena's data, in that folder"
    elif Path(folder).is_dir():
        yield VARIABLE, True, folder
    else:
        yield VARIABLE, False, f"{folder} is no folder: correct the path, or unset it"


def _keys() -> Iterator[tuple[str, bool | None, str]]:
    for key in KEYS:
        there = bool(os.environ.get(key, "").strip())
        yield key, None, "set" if there else "not set: only needed for models of this provider"


def _pid() -> int:
    return os.getpid()


def _ray() -> Iterator[tuple[str, bool | None, str]]:
    from archwright.executor import RayExecutor

    executor = RayExecutor(1)
    try:
        handle = executor.submit(_pid)
        done = executor.wait([handle], timeout=60)
        pid = executor.result(handle) if done else None
    finally:
        executor.close()
    ok = isinstance(pid, int) and pid != os.getpid()
    way_out = "a task ran in a worker" if ok else f"no worker answered ({pid}): run `ray stop`"
    yield "ray", ok, f"{metadata.version('ray')}, {way_out}"
