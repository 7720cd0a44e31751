"""Rotary positions: Su et al. 2021 (2104.09864), on the two halves of a head."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from search_space.native import rotary as native


def rotated(x: Tensor, head: int, base: float, start: int = 0) -> Tensor:
    """Heads (B, N, L, P) of a projection x (B, L, N * P), at positions start .. start + L - 1.

    ``head`` is P. The projection holds the first halves of all heads, then their second halves, so
    that both are rows long enough for vector instructions (docs/log.md): the same layer as with head
    after head, with the rows of its weights in another order.
    """
    length, half, heads = x.shape[1], head // 2, x.shape[-1] // head
    if native.applies(x, head):
        angles = _angles(length, half, heads, base, start, x.device, torch.float32)
        return native.rotary(x, *angles, half)
    one, two = x.chunk(2, dim=-1)
    cos, sin = _angles(length, half, heads, base, start, x.device, x.dtype)
    turned = torch.stack((one * cos - two * sin, one * sin + two * cos), 2)
    return turned.unflatten(-1, (-1, half)).permute(0, 3, 1, 2, 4).flatten(3)


@lru_cache(maxsize=64)  # every layer and step of a training asks for the same few
def _angles(
    length: int,
    half: int,
    heads: int,
    base: float,
    start: int,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """cos and sin, each (L, heads * P/2), of the rotation of every channel; computed in fp32."""
    frequency = base ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
    position = torch.arange(start, start + length, device=device, dtype=torch.float32)
    angle = (position[:, None] * frequency).repeat(1, heads)
    return angle.cos().to(dtype), angle.sin().to(dtype)
