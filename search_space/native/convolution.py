"""The short causal convolution by our kernel (convolution.cpp), with its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from search_space.native.library import call, rows, takes


def applies(x: Tensor, weights: Tensor) -> bool:
    """Whether the kernel takes x (B, L, C) and weights (kernel, C)."""
    return x.dim() == 3 and x.shape[2] == weights.shape[1] and takes(x) and takes(weights)


def convolution(x: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    """y_t = bias + sum over i of w_i x_{t-i}: x (B, L, C), weights (kernel, C), of which w_0 is the last
    row, bias (C)."""
    bias = weights.new_zeros(weights.shape[1]) if bias is None else bias
    bias = bias.float().expand(weights.shape[1])  # raises RuntimeError where it does not fit
    return _Convolution.apply(x, weights.float(), bias)


class _Convolution(torch.autograd.Function):
    """Rows of channels need not be side by side, so a slice of a projection is not copied."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
        x, weights, bias = rows(x), weights.contiguous(), bias.contiguous()
        ctx.sizes = (*x.shape, weights.shape[0])
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        call("convolution_forward", ctx.sizes, x[:, None], weights, bias, y[:, None])
        ctx.save_for_backward(x, weights)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        x, weights = ctx.saved_tensors
        dx = torch.empty_like(x, memory_format=torch.contiguous_format)
        dweights, dbias = torch.empty_like(weights), weights.new_empty(weights.shape[1])
        given = (x[:, None], weights, rows(dy)[:, None], dx[:, None], dweights, dbias)
        call("convolution_backward", ctx.sizes, *given)
        return dx, dweights, dbias
