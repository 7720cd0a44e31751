"""The short causal depthwise convolution that Mamba, DeltaNet and Hyena put before their core.

A part of primitives, not one of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from search_space.native import convolution as native


class ShortConv(nn.Module):
    """y_t = sum over i of w_i x_{t-i}, per channel, over ``kernel`` tokens.

    A sum of shifted inputs: of so few, it beats a convolution kernel (docs/log.md).
    """

    def __init__(self, channels: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = kernel**-0.5  # as nn.Conv1d starts
        self.weight = nn.Parameter(torch.empty(kernel, channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound)) if bias else None
        self.past, self.channels = kernel - 1, channels

    def init_state(self, batch: int) -> Tensor:
        """The inputs before the first, which are zero: (B, kernel - 1, C)."""
        return self.weight.new_zeros(batch, self.past, self.channels)

    def mix(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, L, C) and the last kernel - 1 inputs before it to y (B, L, C) and the same after it."""
        seen = x if state is None else torch.cat((state.to(x.dtype), x), 1)
        y = self._convolved(seen)[:, -x.shape[1] :]
        missing = max(0, self.past - seen.shape[1])
        last = F.pad(seen[:, seen.shape[1] - self.past + missing :], (0, 0, missing, 0))
        return y, last

    def _convolved(self, x: Tensor) -> Tensor:
        if native.applies(x, self.weight):
            return native.convolution(x, self.weight, self.bias)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return _Shifts.apply(x, self.weight.to(x.dtype), bias)

    @property
    def params(self) -> int:
        return self.weight.numel() + (0 if self.bias is None else self.channels)

    @property
    def flops(self) -> int:
        """Per token."""
        return 2 * self.weight.numel()

    @property
    def state(self) -> int:
        """Elements that decoding keeps per sequence."""
        return self.past * self.channels


class _Shifts(torch.autograd.Function):
    """y_t = b + sum over i of w_i x_{t-i}, with zeros before x (B, L, C); w (kernel, C), its last row for
    i = 0. The gradient is written out: every term is one pass, added in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.biased = b is not None
        y = x * w[-1] if b is None else torch.addcmul(b, x, w[-1])
        for i in range(1, min(w.shape[0], x.shape[1])):
            y[:, i:].addcmul_(x[:, :-i], w[-1 - i])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        dx, dw = dy * w[-1], torch.zeros_like(w)
        dw[-1] = (dy * x).sum((0, 1))
        for i in range(1, min(w.shape[0], x.shape[1])):
            dx[:, :-i].addcmul_(dy[:, i:], w[-1 - i])
            dw[-1 - i] = (dy[:, i:] * x[:, :-i]).sum((0, 1))
        return dx, dw, dy.sum((0, 1)) if ctx.biased else None
