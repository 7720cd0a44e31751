"""Where trainings stand, as bytes: what a rung hands to the next one so that training goes on.

Reads and writes no files, and never unpickles code: `unpack` takes tensors and plain values only.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

State = dict[str, Any]  # of one training: step, model, optimiser
States = dict[int, State]  # of a task's trainings, by their number in the profile's sweep


def capture(model: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> State:
    """The state after ``step`` steps; it shares its tensors with the model."""
    return {"step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict()}


def restore(model: nn.Module, optimiser: torch.optim.Optimizer, state: State) -> int:
    """Put a state into a new model and its new optimiser; returns the step it was taken at."""
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def pack(states: Mapping[str, States]) -> bytes:
    """The states of each task's trainings, by the task's label, as `torch.save` writes them."""
    buffer = io.BytesIO()
    torch.save(dict(states), buffer)
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, States]:
    """The states in packed bytes, on the CPU."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
