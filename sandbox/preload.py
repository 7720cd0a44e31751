"""What the warm parent imports and does once, so that no run pays for it: the gate's and training's tasks.

The first optimiser of a process imports torch's compiler, which takes seconds, and wraps its own methods;
done here it is neither waited for nor taken for tampering (`sandbox.tampering`).
"""

from __future__ import annotations

import os
import tempfile

import torch
from torch import nn

CACHE = "TORCHINDUCTOR_CACHE_DIR"


def load() -> None:
    """Import the tasks of ours and take one optimiser step, where nothing may be written.

    torch's compiler makes a folder for its cache when imported; told of one that is there, it does not.
    """
    os.environ[CACHE], tempfile.tempdir = "/", "/"
    import sandbox.gate.inside
    import sandbox.script
    import sandbox.training  # noqa: F401

    _step()
    tempfile.tempdir = None  # a run finds its own
    del os.environ[CACHE]


def _step() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([parameter], fused=True)
    parameter.sum().backward()
    nn.utils.clip_grad_norm_([parameter], 1.0)
    optimiser.step()
