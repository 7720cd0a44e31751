"""What the warm parent imports and does once, so that no run pays for it: the gate's and training's tasks.

The first optimiser of a process imports torch's compiler, which takes seconds, and wraps its own methods;
done here it is neither waited for nor taken for tampering (`sandbox.tampering`).
"""

from __future__ import annotations

import torch
from torch import nn


def load() -> None:
    """Import the tasks of ours and take one optimiser step."""
    import sandbox.gate.inside
    import sandbox.training  # noqa: F401

    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([parameter], fused=True)
    parameter.sum().backward()
    nn.utils.clip_grad_norm_([parameter], 1.0)
    optimiser.step()
