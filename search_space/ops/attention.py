"""Softmax attention over (B, H, L, P): causal, or within a window and to sink tokens.

Projections and positions belong to the primitives.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from search_space.native import attention as native
from search_space.ops.chunks import Impl, grouped

BLOCK = (
    64  # queries at a time where there are two blocks: what the mask hides of a block is left out
)


class KV(NamedTuple):
    """Keys (rotated) and values of a layer, (B, KV, T, P), and who may see them.

    A query sees the last ``window`` keys, its own included, and the first ``sink``; all earlier ones
    when the window is 0.
    """

    keys: Tensor
    values: Tensor
    window: int = 0
    sink: int = 0


def causal_attention(q: Tensor, kv: KV, impl: Impl = "chunk") -> Tensor:
    """Attention of the queries (B, H, L, P) at positions 0 .. L - 1 to keys of the same positions.

    On the CPU our kernel for small heads, else written out, where it beats torch's fused kernel at proxy
    sizes (docs/log.md); that one elsewhere. A window costs what it holds; ``naive`` masks the whole square.
    """
    if impl == "chunk" and native.applies(q, kv.keys, kv.values):
        return native.attention(q, kv.keys, kv.values, kv.window, kv.sink)
    length, (k, v) = q.shape[2], _expanded(q, kv)
    if kv.window and length > kv.window:
        if impl == "chunk":
            return _windowed(q, k, v, kv.window, min(kv.sink, length))
        position = torch.arange(length, device=q.device)
        return attend(q, k, v, _masked(position, position, kv.window, kv.sink).to(q.dtype))
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    mask = _causal_mask(length, q.dtype, q.device)
    if length < 2 * BLOCK:
        return attend(q, k, v, mask)
    return torch.cat(
        [
            attend(q[:, :, a:b], k[:, :, :b], v[:, :, :b], mask[a:b, :b])
            for a, b in pairwise((*range(0, length, BLOCK), length))
        ],
        2,
    )


def cached_attention(q: Tensor, kv: KV) -> Tensor:
    """Attention of one query (B, H, 1, P) to a cache, which holds nothing that it may not see."""
    return attend(q, *_expanded(q, kv), mask=None)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k' / sqrt(P) + mask) v over (B, H, L, P), written as two batched products."""
    batch, heads = q.shape[:2]
    q, k, v = (t.flatten(0, 1) for t in (q * q.shape[-1] ** -0.5, k, v))
    k = k.transpose(1, 2)
    scores = torch.bmm(q, k) if mask is None else torch.baddbmm(mask, q, k)
    return torch.bmm(scores.softmax(-1).to(v.dtype), v).unflatten(0, (batch, heads))


@lru_cache(maxsize=16)
def _causal_mask(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((length, length), -math.inf, dtype=dtype, device=device).triu_(1)


def _windowed(q: Tensor, k: Tensor, v: Tensor, window: int, sink: int) -> Tensor:
    """Blocks of ``window`` queries, each with the keys of its own block, the one before and the sinks."""
    length, blocks = q.shape[2], math.ceil(q.shape[2] / window)
    fill = blocks * window - length
    position = torch.arange(-window, blocks * window, device=q.device).view(-1, window)
    near = torch.cat((position[:-1], position[1:]), 1)  # (blocks, 2 window)
    mask = _masked(position[1:], near, window, 0)
    if sink:  # a sink inside the window is seen there, not twice
        first = torch.arange(sink, device=q.device).expand(blocks, -1)
        hidden = first[:, None] > position[1:, :, None] - window
        mask = torch.cat((mask.new_zeros(()).masked_fill(hidden, -math.inf), mask), -1)
    q = F.pad(q, (0, 0, 0, fill)).unflatten(2, (blocks, window))
    k, v = (_near(t, window, blocks, sink) for t in (k, v))
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask.to(q.dtype)
    return (scores.softmax(-1).to(v.dtype) @ v).flatten(2, 3)[:, :, :length]


def _near(t: Tensor, window: int, blocks: int, sink: int) -> Tensor:
    """Keys or values (B, H, L, P) to what each block can see, (B, H, blocks, sink + 2 window, P)."""
    fill = blocks * window - t.shape[2]
    padded = F.pad(t, (0, 0, window, fill)).unflatten(2, (blocks + 1, window))
    parts = [t[:, :, None, :sink].expand(-1, -1, blocks, -1, -1)] if sink else []
    return torch.cat((*parts, padded[:, :, :-1], padded[:, :, 1:]), 3)


def _masked(query: Tensor, key: Tensor, window: int, sink: int) -> Tensor:
    """0 where a query's position sees a key's, else -inf: (..., Q) and (..., T) to (..., Q, T)."""
    distance = query[..., :, None] - key[..., None, :]
    near = (distance < window) | (key < sink)[..., None, :]
    seen = (distance >= 0) & near & (key >= 0)[..., None, :]
    return torch.zeros(seen.shape, device=query.device).masked_fill(~seen, -math.inf)


def attention_flops(length: int, inner: int, window: int = 0, sink: int = 0) -> float:
    """FLOPs per token of both products of `causal_attention` for heads of ``inner`` channels in all."""
    if not window or length <= window:
        return 4 * length * inner
    return 4 * math.ceil(length / window) * window / length * (2 * window + sink) * inner


def _expanded(q: Tensor, kv: KV) -> tuple[Tensor, Tensor]:
    heads = q.shape[1]
    return grouped(kv.keys, heads, 1), grouped(kv.values, heads, 1)
