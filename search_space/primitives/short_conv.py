"""The short causal depthwise convolution that Mamba, DeltaNet and Hyena put before their core.

A part of primitives, not one of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
        length = x.shape[1]
        if state is None:
            state = self.init_state(x.shape[0])
        seen = torch.cat((state.to(x.dtype), x), 1)
        weight = self.weight.to(x.dtype)
        y = sum(w * seen[:, i : i + length] for i, w in enumerate(weight))
        return y if self.bias is None else y + self.bias.to(x.dtype), seen[:, length:]

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
