"""Rotary positions by our kernel (rotary.cpp): one pass from a projection to its heads, and one back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from search_space.native.library import call, heads_of, rows, takes


def applies(x: Tensor, head: int) -> bool:
    """Whether the kernel takes a projection to heads of that size."""
    return x.dim() == 3 and head % 2 == 0 and x.shape[2] % head == 0 and takes(x)


def rotary(x: Tensor, cos: Tensor, sin: Tensor, half: int) -> Tensor:
    """(B, L, N * P) to (B, N, L, P) as `ops.rotary.rotated` does, by cos and sin (L, N * P/2) in fp32."""
    return _Rotary.apply(x, cos, sin, half)


class _Rotary(torch.autograd.Function):
    """The gradient is turned back by the same angle."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, half: int) -> Tensor:
        batch, length, width = x.shape
        ctx.sizes = (batch, length, width // (2 * half), half)
        ctx.save_for_backward(cos, sin)
        y = heads_of(x, (batch, width // (2 * half), length, 2 * half))
        call(
            "rotary_forward", ctx.sizes, rows(x.unflatten(-1, (2, -1))), y.transpose(1, 2), cos, sin
        )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        batch, length, heads, half = ctx.sizes
        dx = dy.new_empty(batch, length, 2, heads * half)
        call("rotary_backward", ctx.sizes, rows(dy.transpose(1, 2)), dx, cos, sin)
        return dx.flatten(2), None, None, None
