"""The kernels of each instruction set, one after the other."""

from __future__ import annotations

import ctypes

import pytest
import torch

from search_space.native import build, library


@pytest.fixture(params=build.SETS)
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An instruction set whose kernels are in use; its tests are skipped where it cannot run."""
    chosen, ours = request.param, torch.backends.cpu.get_cpu_capability()
    names = list(build.SETS)
    if ours not in names or names.index(chosen) < names.index(ours):
        pytest.skip(f"this processor has {ours}, not {chosen}")
    if not build.library(chosen).exists():
        pytest.skip("the installation found no compiler")
    loaded = ctypes.CDLL(str(build.library(chosen)))
    monkeypatch.setattr(library, "kernels", lambda: loaded)
    return chosen
