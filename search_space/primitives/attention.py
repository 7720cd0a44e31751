"""`A`: causal multi-head attention with rotary positions, grouped KV heads and optional QK-norm.

Vaswani et al. 2017 (1706.03762); RoPE, Su et al. 2021 (2104.09864); GQA, Ainslie et al. 2023 (2305.13245).
The windowed, latent and cross-layer variants are primitives of their own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_space.primitives.base import Cost, Primitive

KVCache = tuple[Tensor, Tensor]  # keys and values so far, each (B, KV, T, P)


class Attention(Primitive):
    """softmax(QK'/sqrt(P) + causal mask) V over H heads of size P, the KV heads shared by groups."""

    code, title, source = "A", "causal attention", "Vaswani 2017; GQA 2305.13245"

    def __init__(
        self,
        d_model: int,
        *,
        head: int = 64,
        heads: int | None = None,
        kv: int | None = None,
        qk_norm: bool = False,
        rope_base: float = 10_000.0,
    ) -> None:
        """``head`` is the size P of a head, ``heads`` their number (default d_model / head), ``kv`` the
        number of KV heads (default: as many). Raises ValueError when they do not divide each other."""
        super().__init__()
        self.heads = heads or d_model // head
        self.head = head
        self.kv = kv or self.heads
        if self.heads * head != d_model and heads is None:
            raise ValueError(
                f"A: width {d_model} is not a multiple of the head size {head}: change head="
            )
        if self.heads % self.kv or head % 2:
            raise ValueError(
                f"A: {self.heads} heads of size {head} cannot share {self.kv} KV heads: "
                "kv= must divide the heads, and the head size must be even"
            )
        self.query = nn.Linear(d_model, self.heads * head, bias=False)
        self.key = nn.Linear(d_model, self.kv * head, bias=False)
        self.value = nn.Linear(d_model, self.kv * head, bias=False)
        self.out = nn.Linear(self.heads * head, d_model, bias=False)
        self.q_norm = nn.RMSNorm(head) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(head) if qk_norm else nn.Identity()
        self.rope_base = rope_base

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._project(x, start=0)
        y = causal_attention(q, _expand(k, self.heads), _expand(v, self.heads))
        return self.out(y.transpose(1, 2).flatten(2))

    def init_state(self, batch: int) -> KVCache:
        empty = self.key.weight.new_zeros(batch, self.kv, 0, self.head)
        return empty, empty

    def step(self, x: Tensor, state: KVCache) -> tuple[Tensor, KVCache]:
        q, k, v = self._project(x[:, None], start=state[0].shape[2])
        keys, values = torch.cat((state[0], k), dim=2), torch.cat((state[1], v), dim=2)
        y = attend(q, _expand(keys, self.heads), _expand(values, self.heads), mask=None)
        return self.out(y.transpose(1, 2).flatten(2))[:, 0], (keys, values)

    def _project(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (
            proj(x).unflatten(-1, (-1, self.head)).transpose(1, 2)  # (B, H or KV, L, P)
            for proj in (self.query, self.key, self.value)
        )
        angles = rope_angles(x.shape[1], self.head, self.rope_base, start, x.device)
        return rotate(self.q_norm(q), angles), rotate(self.k_norm(k), angles), v

    def cost(self, length: int) -> Cost:
        d, p = self.out.out_features, self.head
        inner, kv = self.heads * p, self.kv * p
        norms = 2 * p if isinstance(self.q_norm, nn.RMSNorm) else 0
        weights = 2 * d * inner + 2 * d * kv
        return Cost(
            params=weights + norms,
            flops_per_token=2 * weights + 4 * length * inner,
            state=2 * kv * length,
        )


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention over (B, H, L, P).

    Written out on the CPU, where it beats the fused kernel at proxy sizes (docs/log.md); the fused
    kernel elsewhere.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    length = q.shape[2]
    mask = torch.full((length, length), -math.inf, dtype=q.dtype, device=q.device).triu_(1)
    return attend(q, k, v, mask)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k' / sqrt(P) + mask) v over (B, H, L, P), written as two batched products."""
    batch, heads = q.shape[:2]
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    scale = q.shape[-1] ** -0.5
    if mask is None:
        scores = torch.bmm(q, k.transpose(1, 2)) * scale
    else:
        scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1).to(v.dtype), v).unflatten(0, (batch, heads))


def rope_angles(
    length: int, head: int, base: float, start: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """cos and sin, each (L, P/2), of the rotation at positions start .. start + L - 1."""
    frequency = base ** (-torch.arange(0, head, 2, device=device, dtype=torch.float32) / head)
    position = torch.arange(start, start + length, device=device, dtype=torch.float32)
    angle = position[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the two halves of the last dimension of x (B, H, L, P) by the given angles."""
    cos, sin = (a.to(x.dtype) for a in angles)
    one, two = x.chunk(2, dim=-1)
    return torch.cat((one * cos - two * sin, one * sin + two * cos), dim=-1)


def _expand(x: Tensor, heads: int) -> Tensor:
    """Repeat the KV heads of (B, KV, L, P) for each query head of their group."""
    groups = heads // x.shape[1]
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)
