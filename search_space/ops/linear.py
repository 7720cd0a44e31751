"""Linear attention with decay: one chunked core for linear attention, GLA, retention and SSD.

They are one recurrence and differ in the decay only: none, one per channel of the state and token
(GLA), one per head (retention), one per head and token (SSD, in `ops/ssd.py`). Feature maps, scales,
norms and gates belong to the primitives.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from search_space.native import scan as native
from search_space.ops.chunks import (
    Impl,
    carry,
    chunk_size,
    chunked,
    grouped,
    unchunked,
    wide,
)

State = Tensor | None
TINY, LARGEST = 1e-30, 64.0  # of a weight; of a logarithm, far below what single precision holds


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, state: State = None, impl: Impl = "chunk"
) -> tuple[Tensor, Tensor]:
    """S_t = S_{t-1} + k_t v_t',  o_t = S_t' q_t: Katharopoulos et al. 2020 (2006.16236, eq. 16-20).

    q and k (B, L, H, K) after the feature map, v (B, L, H, V), ``state`` (B, H, K, V). The normaliser
    is one more value channel of ones, which the caller adds and divides by.
    """
    g = wide(v).new_zeros(1, v.shape[1], v.shape[2], 1)
    return decayed_attention(q, k, v, g, state, impl)


def gla(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: State = None, impl: Impl = "chunk"
) -> tuple[Tensor, Tensor]:
    """S_t = diag(exp(g_t)) S_{t-1} + k_t v_t',  o_t = S_t' q_t: Yang et al. 2024 (2312.06635, eq. 3).

    q, k and the log-decay g <= 0 (B, L, H, K), v (B, L, H, V), ``state`` (B, H, K, V).
    """
    return decayed_attention(q, k, v, g, state, impl)


def retention(
    q: Tensor, k: Tensor, v: Tensor, state: State = None, impl: Impl = "chunk"
) -> tuple[Tensor, Tensor]:
    """S_t = gamma_h S_{t-1} + k_t v_t',  o_t = S_t' q_t: Sun et al. 2023 (2307.08621, eq. 6).

    gamma_h = 1 - 2^(-5 - h) for head h = 0, 1, ... (eq. 8). q and k (B, L, H, K) already rotated,
    v (B, L, H, V), ``state`` (B, H, K, V).
    """
    head = torch.arange(v.shape[2], dtype=wide(v).dtype, device=v.device)
    g = torch.log1p(-(2.0 ** (-5 - head)))
    return decayed_attention(
        q, k, v, g[None, None, :, None].expand(1, v.shape[1], -1, 1), state, impl
    )


def decayed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    state: State,
    impl: Impl,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = diag(exp(g_t)) S_{t-1} + w_t k_t v_t',  o_t = S_t' q_t, for each head.

    q and k (B, L, G, K) with G dividing H, v (B, L, H, V); g (B or 1, L, H, 1) decays a whole head, or
    (B, L, H, K) each channel of it (then G = H). ``weight`` w >= 0 (B, L, H, 1) needs a decay of whole
    heads; without it w = 1. Returns o (B, L, H, V) and S (B, H, K, V).
    """
    q, k, g = q.to(v.dtype), k.to(v.dtype), wide(g)
    state, weight = (None if t is None else wide(t) for t in (state, weight))
    run = _naive if impl == "naive" else _chunk
    if impl == "chunk" and native.applies(q, k, v, g, state, weight):
        run = native.scan
    o, state = run(q, k, v, g, state, weight)
    return o.to(v.dtype), state


def _naive(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: State, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    if state is None:
        state = wide(v).new_zeros(v.shape[0], v.shape[2], k.shape[3], v.shape[3])
    q, k = (grouped(wide(t), v.shape[2]) for t in (q, k))
    v = wide(v) if weight is None else wide(v) * weight
    outputs = []
    for q_t, k_t, v_t, g_t in zip(*(t.unbind(1) for t in (q, k, v, g)), strict=True):
        state = g_t.exp()[..., None] * state + k_t[..., :, None] * v_t[..., None, :]
        outputs.append((state * q_t[..., :, None]).sum(-2))
    return torch.stack(outputs, 1), state


def _chunk(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: State, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    length, size = v.shape[1], chunk_size(k.shape[3], v.shape[1])
    q, k, v, g = (chunked(t, size) for t in (q, k, v, g))  # (B, chunks, H, size, ...)
    v = v.contiguous()  # once, not for each product
    c = g.cumsum(-2)  # log-decay since the chunk's start
    if g.shape[-1] > 1:
        o, state = _channel_decay(q, k, v, c, state)
    else:
        # A key's weight is decay that it was spared: no pass over k or v. At weight 0 no gradient.
        spared = 0 if weight is None else chunked(wide(weight), size).clamp_min(TINY).log()
        # Time innermost, for rows that are long: (..., 1, T).
        c, keys = (t.transpose(-1, -2) for t in (c, c - spared))
        o, state = _head_decay(q, k, v, c, keys, state)
    return unchunked(o, length), state


def _head_decay(
    q: Tensor, k: Tensor, v: Tensor, c: Tensor, keys: Tensor, state: State
) -> tuple[Tensor, Tensor]:
    """Chunks whose decay is one number per head and token: outputs and the state after the last.

    ``c`` and ``keys`` (..., 1, T) are the log-decays of queries and keys: key j reaches query i times
    e^(c_i - keys_j). Products are in the type of v, states and decays in that of c, which is wide.
    """
    o, end = _Inside.apply(q, k, v, c, keys), c[..., -1:]
    q, k = (t.transpose(-1, -2) for t in (q, k))
    added = _times(k, (end - keys).exp().to(k.dtype)) @ v
    if state is None and v.shape[1] == 1:  # one chunk from nothing
        return o, wide(added[:, 0])
    before, state = carry(end.exp(), added, state)
    q = _times(q, c.exp().to(q.dtype)).transpose(-1, -2)
    return o + q @ before.to(q.dtype), state


class _Inside(torch.autograd.Function):
    """o = (q k' D) v within a chunk, D_ij = e^(c_i - d_j) for i >= j else 0, its gradient written out:
    autograd would keep and pass through every (T, T) step on the way to D.

    With S = q k' D, the gradient of c_i is do_i' o_i and that of d_i is -dv_i' v_i: the sums over a row
    and a column of dS S, since dS = do v'.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, c: Tensor, d: Tensor) -> Tensor:
        # Above the diagonal, where a product of 0 awaits it, the exponential must not overflow.
        decay = (c.transpose(-1, -2) - d).clamp_max_(LARGEST).exp_().to(v.dtype)
        scores = _times((q @ k.transpose(-1, -2)).tril_(), decay)
        o = scores @ v
        ctx.save_for_backward(q, k, v, o, decay, scores)
        ctx.decays = c.shape
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, o, decay, scores = ctx.saved_tensors
        do = do.contiguous()
        dv = scores.transpose(-1, -2) @ do
        dscores = (do @ v.transpose(-1, -2)).mul_(decay)
        dproduct = _ungrouped(dscores, q.shape[2]).tril_()
        dc = dd = None
        if any(ctx.needs_input_grad[3:]):
            through = wide(do * o).sum(-1), wide(dv * v).sum(-1).neg_()
            dc, dd = (t.unsqueeze(-2).sum_to_size(ctx.decays) for t in through)
        return dproduct @ k, dproduct.transpose(-1, -2) @ q, dv, dc, dd


def _times(shared: Tensor, own: Tensor) -> Tensor:
    """What the heads (dimension 2) of a group share times what each has of its own, nothing repeated."""
    groups = shared.shape[2]
    return (shared.unsqueeze(3) * own.unflatten(2, (groups, -1))).flatten(2, 3)


def _ungrouped(t: Tensor, groups: int) -> Tensor:
    """Sums over the heads (dimension 2) that share a group: the gradient of `grouped`."""
    return t if t.shape[2] == groups else t.unflatten(2, (groups, -1)).sum(3)


def _channel_decay(
    q: Tensor, k: Tensor, v: Tensor, c: Tensor, state: State
) -> tuple[Tensor, Tensor]:
    """As `_head_decay`, with a decay for every channel of the key."""
    end = c[..., -1:, :]
    added = (k * (end - c).exp()).transpose(-1, -2) @ wide(v)
    o = _decayed_scores(wide(q), wide(k), c) @ wide(v)
    if state is None and v.shape[1] == 1:
        return o, added[:, 0]
    before, state = carry(end.exp().transpose(-1, -2), added, state)
    return o + (q * c.exp()) @ before, state


def _decayed_scores(q: Tensor, k: Tensor, c: Tensor) -> Tensor:
    """sum over channels of q_i k_j exp(c_i - c_j) for i >= j, else 0: (..., T, K) to (..., T, T).

    Halves T until it is 1. The block between the two halves is a product of q exp(c_i - e) and
    k exp(e - c_j) with e the decay up to their border: both exponents are <= 0, so no decay overflows,
    where the form exp(c_i) exp(-c_j) does. No (T, T, K) tensor is made.
    """
    half = q.shape[-2] // 2
    if half == 0:
        return (q * k).sum(-1, keepdim=True)
    (q1, q2), (k1, k2), (c1, c2) = (t.split(half, -2) for t in (q, k, c))
    edge = c1[..., -1:, :]
    between = (q2 * (c2 - edge).exp()) @ (k1 * (edge - c1).exp()).transpose(-1, -2)
    pairs = (torch.stack(pair, -3) for pair in ((q1, q2), (k1, k2), (c1, c2)))
    first, second = _decayed_scores(*pairs).unbind(-3)
    upper = torch.cat((first, torch.zeros_like(between)), -1)
    return torch.cat((upper, torch.cat((between.to(second.dtype), second), -1)), -2)


def linear_flops(
    length: int, key: int, value: int, heads: int, groups: int, per_channel: bool = False
) -> float:
    """FLOPs per token of the chunked core's matrix products, over a sequence of ``length``."""
    size = chunk_size(key, length)
    filled = math.ceil(length / size) * size / length  # the last chunk is filled up
    scores = (size - 1 if per_channel else 2 * size) * key * groups  # halving skips the upper half
    states = (2 if length <= size else 4) * key * value  # one chunk has no state to read
    return filled * (scores + (2 * size * value + states) * heads)
