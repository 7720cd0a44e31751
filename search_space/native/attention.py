"""Causal attention of small heads by our kernel (attention.cpp), with its gradient.

Scores are never in memory: a head's queries meet its keys in registers, and the backward pass makes them
again (as FlashAttention does, 2205.14135). Large heads, other types and other devices are torch's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from search_space.native.library import call, like, rows, takes

# Sizes that are compiled: of larger heads torch's products are faster (docs/log.md).
HEADS = (4, 8, 16)


def applies(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the kernel takes these queries, keys and values."""
    if k.shape != v.shape or k.dim() != 4 or q.shape != (k.shape[0], q.shape[1], *k.shape[2:]):
        return False
    shared = k.shape[1] > 0 and q.shape[1] % k.shape[1] == 0
    return shared and q.shape[3] in HEADS and takes(q, k, v)


def attention(q: Tensor, k: Tensor, v: Tensor, window: int, sink: int) -> Tensor:
    """What `causal_attention` computes: q (B, H, L, P), k and v (B, KV, L, P) to (B, H, L, P)."""
    return _Attention.apply(q, k, v, window, sink)


class _Attention(torch.autograd.Function):
    """Keeps the logarithm of each query's sum, from which the weights are made again."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, window: int, sink: int) -> Tensor:
        q, k, v = rows(q), rows(k), rows(v)
        batch, heads, length, head = q.shape
        window, sink = min(window or length, length), min(sink, length)
        ctx.sizes = (batch, heads, k.shape[1], length, head, window, sink)
        o, sums = like(q), q.new_empty(batch, heads * length, dtype=torch.float32)
        call("attention_forward", ctx.sizes, q, k, v, o, sums)
        ctx.save_for_backward(q, k, v, o, sums)
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, o, sums = ctx.saved_tensors
        dq, dk, dv = like(q), like(k), like(v)
        call("attention_backward", ctx.sizes, q, k, v, o, sums, rows(dy), dq, dk, dv)
        return dq, dk, dv, None, None
