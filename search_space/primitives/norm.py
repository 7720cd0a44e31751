"""RMSNorm with a gradient written out, in the type of its input.

torch's own is a dozen element-wise passes on the CPU and, under autocast, widens what follows it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from search_space.native import norm as native

EPSILON = 1e-6


class Norm(nn.Module):
    """x / rms(x) * w over the last dimension, Zhang & Sennrich 2019 (1910.07467)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        if native.applies(x, self.weight):
            return native.norm(x, self.weight)
        return _RMSNorm.apply(x, self.weight.to(x.dtype))


class _RMSNorm(torch.autograd.Function):
    """y = n w with n = x r and r = 1 / rms(x); dx = r (dn - n mean(n dn)) with dn = w dy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
        scale = length.square_().div_(x.shape[-1]).add_(EPSILON).rsqrt_().to(x.dtype)
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        normed, scale, weight = ctx.saved_tensors
        product = dy * normed
        mean = product @ weight[:, None] / -weight.shape[0]
        dx = (dy * weight).addcmul_(normed, mean).mul_(scale)
        return dx, product.flatten(0, -2).sum(0)
