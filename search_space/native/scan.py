"""The recurrence of linear attention by our kernel (scan.cpp), step by step, with its gradient.

At the sizes of proxies a tile of the state fits into registers, so that steps beat chunks, which are products
and passes over memory. Large states, other types and other devices are torch's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from search_space.native.library import call, like, rows, takes

CHUNKS_WIN = 128 * 64  # numbers of a head's state from which products are faster (docs/log.md)


def applies(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None, weight: Tensor | None
) -> bool:
    """Whether the kernel takes these, the last three in single precision. With a decay for each channel no
    state is too large: chunks have no short form for it."""
    small = g.shape[3] > 1 or k.shape[3] * v.shape[3] < CHUNKS_WIN
    single = all(t is None or t.dtype is torch.float32 for t in (g, state, weight))
    return small and single and _fit(q, k, v, g, state, weight) and takes(q, k, v)


def _fit(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None, weight: Tensor | None
) -> bool:
    """Whether the shapes are those that `decayed_attention` names, to the letter."""
    (batch, length, groups, keys), (_, _, heads, values) = k.shape, v.shape
    one, each = (heads, 1), (groups, keys)
    return (
        q.shape == k.shape
        and v.shape[:2] == (batch, length)
        and groups > 0
        and heads % groups == 0
        and g.shape[0] in (1, batch)
        and g.shape[1] == length
        and (g.shape[2:] == one or (groups == heads and g.shape[2:] == each))
        and (state is None or state.shape == (batch, heads, keys, values))
        and (weight is None or weight.shape == (batch, length, *one))
    )


def scan(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What `ops.linear.decayed_attention` computes, in its shapes, where it applies."""
    batch, length, heads, values = v.shape
    if state is None:
        state = g.new_zeros(batch, heads, k.shape[3], values)
    if weight is None:
        weight = g.new_ones(1, 1, 1, 1).expand(batch, length, heads, 1)
    return _Scan.apply(q, k, v, g.expand(batch, -1, -1, -1), state, weight)


class _Scan(torch.autograd.Function):
    """Keeps its inputs only: the backward pass makes the states of one head at a time again."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        q, k, v, g, weight = (rows(t.transpose(1, 2)) for t in (q, k, v, g, weight))
        batch, heads, length, values = v.shape
        ctx.sizes = (batch, heads, k.shape[1], length, k.shape[3], values, g.shape[3])
        given = (q, k, v, g, weight, state.flatten())
        o, end = v.new_empty(batch, length, heads, values), state.new_empty(state.shape)
        call("scan_forward", ctx.sizes, *given, o.transpose(1, 2), end.view(-1))
        ctx.save_for_backward(*given)
        return o, end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor, dend: Tensor) -> tuple[Tensor, ...]:
        given = q, k, v, g, weight, _ = ctx.saved_tensors
        dq, dk, dv, dg, dweight = (like(t) for t in (q, k, v, g, weight))
        dend, do = dend.contiguous(), rows(do.transpose(1, 2))
        dstate = torch.empty_like(dend)
        made = (dq, dk, dv, dg, dweight, dstate.view(-1))
        call("scan_backward", ctx.sizes, *given, do, dend.view(-1), *made)
        return *(t.transpose(1, 2) for t in (dq, dk, dv, dg)), dstate, dweight.transpose(1, 2)
