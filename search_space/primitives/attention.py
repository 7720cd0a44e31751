"""`A`: causal multi-head attention with rotary positions, grouped KV heads and optional QK-norm.

Vaswani et al. 2017 (1706.03762); RoPE, Su et al. 2021 (2104.09864); GQA, Ainslie et al. 2023 (2305.13245).
Also the part that the windowed, latent and cross-layer variants share; they have files of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from search_space.ops.attention import KV, attention_flops, cached_attention, causal_attention
from search_space.ops.rotary import rotated
from search_space.primitives.base import Cost, Primitive
from search_space.primitives.norm import Norm


class AttentionLayer(Primitive):
    """Queries and the output projection of H heads of size P; where K and V come from is the subclass's.

    ``kv`` counts the KV heads, ``window`` (0: none) and ``sink`` say what a query sees.
    """

    window, sink = 0, 0

    def __init__(
        self,
        d_model: int,
        head: int,
        heads: int | None,
        kv: int | None,
        qk_norm: bool,
        rope_base: float,
    ) -> None:
        super().__init__()
        if d_model % head and heads is None:
            raise ValueError(
                f"{self.code}: width {d_model} is not a multiple of the head size {head}: change head="
            )
        self.head, self.heads = head, heads or d_model // head
        self.kv = kv or self.heads
        if self.heads % self.kv or head % 2:
            raise ValueError(
                f"{self.code}: {self.heads} heads of size {head} cannot share {self.kv} KV heads: "
                "kv= must divide the heads, and the head size must be even"
            )
        self.inner = self.heads * head
        self.out = nn.Linear(self.inner, d_model, bias=False)
        self.q_norm = Norm(head) if qk_norm else nn.Identity()
        self.rope_base = rope_base

    def attach(self, source: Primitive | None) -> Primitive | None:
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_kv(x, None)[0]

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state, _ = self.step_kv(x, state, None)
        return y, state

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, heads * P) to (B, heads, L, P)."""
        return x.unflatten(-1, (-1, self.head)).transpose(1, 2)

    def _rotate(self, x: Tensor, norm: nn.Module, start: int) -> Tensor:
        """A projection (B, L, heads * P) to its heads (B, heads, L, P), normed and rotated."""
        if isinstance(norm, Norm):  # over a head, whose halves are apart (`rotated`)
            heads = x.unflatten(-1, (2, -1, self.head // 2)).transpose(2, 3).flatten(3)
            x = norm(heads).unflatten(-1, (2, -1)).transpose(2, 3).flatten(2)
        return rotated(x, self.head, self.rope_base, start)

    def _attend(self, query: Tensor, kv: KV) -> Tensor:
        """The layer's output (B, L, D) from projected queries (B, L, heads * P) of a whole sequence."""
        q = self._rotate(query, self.q_norm, 0)
        return self.out(causal_attention(q, kv).transpose(1, 2).flatten(2))

    def _attend_one(self, query: Tensor, kv: KV, position: int) -> Tensor:
        """The layer's output (B, D) for one token's projected query (B, 1, heads * P)."""
        q = self._rotate(query, self.q_norm, position)
        return self.out(cached_attention(q, kv).flatten(1))

    def _cost(self, length: int, weights: int, norms: int, state: int, seen: int) -> Cost:
        """``weights`` of all projections, ``state`` kept, ``seen`` keys at token L in decoding."""
        return Cost(
            params=weights + norms,
            flops_per_token=2 * weights
            + attention_flops(length, self.inner, self.window, self.sink),
            state=state,
            step_flops=2 * weights + 4 * seen * self.inner,
            step_reads=weights + norms + state,
        )


class Attention(AttentionLayer):
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
        super().__init__(d_model, head, heads, kv, qk_norm, rope_base)
        self.sizes = (self.inner, self.kv * head, self.kv * head)  # of Q, K and V
        self.qkv = nn.Linear(d_model, sum(self.sizes), bias=False)
        self.k_norm = Norm(head) if qk_norm else nn.Identity()

    def forward_kv(self, x: Tensor, kv: KV | None) -> tuple[Tensor, KV | None]:
        query, kv = self._project(x, 0)
        return self._attend(query, kv), kv

    def init_state(self, batch: int) -> Any:
        empty = self.out.weight.new_zeros(batch, self.kv, 0, self.head)
        return KV(empty, empty)

    def step_kv(self, x: Tensor, state: Any, kv: KV | None) -> tuple[Tensor, Any, KV | None]:
        position = state.keys.shape[2]
        query, new = self._project(x[:, None], position)
        state = joined(state, new)
        return self._attend_one(query, state, position), state, state

    def _project(self, x: Tensor, start: int) -> tuple[Tensor, KV]:
        """Projected queries, and keys and values, of tokens x (B, L, D) at positions from ``start``."""
        query, key, value = self.qkv(x).split(self.sizes, dim=-1)
        keys = self._rotate(key, self.k_norm, start)
        return query, KV(keys, self._split(value), self.window, self.sink)

    def cost(self, length: int) -> Cost:
        seen = min(length, self.window + self.sink) if self.window else length
        weights = 2 * self.out.out_features * (self.heads + self.kv) * self.head
        norms = 2 * self.head if isinstance(self.q_norm, Norm) else 0
        return self._cost(length, weights, norms, 2 * self.kv * self.head * seen, seen)


def joined(cache: KV, new: KV) -> KV:
    """The cache with the new tokens' keys and values after it."""
    return cache._replace(
        keys=torch.cat((cache.keys, new.keys), 2), values=torch.cat((cache.values, new.values), 2)
    )
