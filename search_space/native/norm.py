"""RMSNorm by our kernel (norm.cpp): in single precision, with one pass over memory forward and one back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from search_space.native.library import call, takes


def applies(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernel takes these."""
    return x.shape[-1:] == weight.shape and takes(x) and takes(weight)


def norm(x: Tensor, weight: Tensor) -> Tensor:
    """x / rms(x) * weight over the last dimension, in the type of x."""
    return _Norm.apply(x, weight.float())


class _Norm(torch.autograd.Function):
    """Keeps x and one scale a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x, weight, width = x.contiguous(), weight.contiguous(), x.shape[-1]
        ctx.sizes = (x.numel() // width, width)
        y, scales = torch.empty_like(x), x.new_empty(ctx.sizes[0], dtype=torch.float32)
        call("norm_forward", ctx.sizes, _flat(x), weight, _flat(y), scales)
        ctx.save_for_backward(x, weight, scales)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, scales = ctx.saved_tensors
        dx, dw = torch.empty_like(x), torch.empty_like(weight)
        given = (_flat(x), weight, scales, _flat(dy.contiguous()), _flat(dx), dw)
        call("norm_backward", ctx.sizes, *given)
        return dx, dw


def _flat(t: Tensor) -> Tensor:
    """One dimension, by which `call` knows that there are no strides."""
    return t.view(-1)
