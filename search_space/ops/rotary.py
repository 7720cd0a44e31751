"""Rotary positions: Su et al. 2021 (2104.09864), on the two halves of a head."""

from __future__ import annotations

import torch
from torch import Tensor


def rope_angles(
    length: int, head: int, base: float, start: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """cos and sin, each (L, P/2), of the rotation at positions start .. start + L - 1."""
    frequency = base ** (-torch.arange(0, head, 2, device=device, dtype=torch.float32) / head)
    position = torch.arange(start, start + length, device=device, dtype=torch.float32)
    angle = position[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the two halves of the last dimension of x (B, H, L, P) by the given angles."""
    cos, sin = (a.to(x.dtype) for a in angles)
    one, two = x.chunk(2, dim=-1)
    return torch.cat((one * cos - two * sin, one * sin + two * cos), dim=-1)
