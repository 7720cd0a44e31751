"""The short causal depthwise convolution that Mamba, DeltaNet and Hyena put before their core.

A part of primitives, not one of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ShortConv(nn.Conv1d):
    """y_t = sum over i of w_i x_{t-i}, per channel, over ``kernel`` tokens."""

    def __init__(self, channels: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__(channels, channels, kernel, groups=channels, bias=bias)
        self.past = kernel - 1

    def init_state(self, batch: int) -> Tensor:
        """The inputs before the first, which are zero: (B, kernel - 1, C)."""
        return self.weight.new_zeros(batch, self.past, self.in_channels)

    def mix(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, L, C) and the last kernel - 1 inputs before it to y (B, L, C) and the same after it."""
        if state is None:
            state = self.init_state(x.shape[0])
        seen = torch.cat((state.to(x.dtype), x), 1)
        return self(seen.transpose(1, 2)).transpose(1, 2), seen[:, x.shape[1] :]

    @property
    def params(self) -> int:
        biases = 0 if self.bias is None else self.in_channels
        return self.weight.numel() + biases

    @property
    def flops(self) -> int:
        """Per token."""
        return 2 * self.weight.numel()

    @property
    def state(self) -> int:
        """Elements that decoding keeps per sequence."""
        return self.past * self.in_channels
