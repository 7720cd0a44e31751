"""Where a run runs: commit, packages, device, for the ledger and for `doctor`; how many workers it takes."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from agents.llm import KEYS
from search_space.native.library import kernels

PACKAGES = (
    "archwright",
    "torch",
    "ray",
    "sqlalchemy",
    "anthropic",
    "openai",
    "optuna",
    "numpy",
    "scipy",
)
PER_GPU = (
    8  # workers: a small model leaves most of a GPU idle, and each takes half a gigabyte to start
)


def facts() -> dict[str, Any]:
    """The row that every driver session leaves in the ledger."""
    commit = _git("rev-parse", "HEAD")
    return {
        "git_commit": commit,
        "git_dirty": None if commit is None else bool(_git("status", "--porcelain")),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "device": device_name(),
        "sandbox": "none: compositions only, no written code",
    }


def device_name() -> str:
    """The accelerator, or the processor with the instruction set that torch uses of it and whose kernels.

    Both matter: other kernels give other floats.
    """
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    whose = "torch's kernels only" if kernels() is None else "own kernels"
    return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {whose}"


def default_workers() -> int:
    """Evaluations at a time: one per core, with GPUs at most `PER_GPU` for each."""
    cores, gpus = len(os.sched_getaffinity(0)), torch.cuda.device_count()
    return min(cores, PER_GPU * gpus) if gpus else cores


def _git(*arguments: str) -> str | None:
    """What git says of the folder of this code; None outside of a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    keyless = {name: value for name, value in os.environ.items() if name not in KEYS}
    try:
        done = subprocess.run(
            command, env=keyless, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
