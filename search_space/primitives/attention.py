"""`A`: causal multi-head attention with rotary positions, grouped KV heads and optional QK-norm.

Vaswani et al. 2017 (1706.03762); RoPE, Su et al. 2021 (2104.09864); GQA, Ainslie et al. 2023 (2305.13245).
Also the part that the windowed, latent and cross-layer variants share; they have files of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from search_space.ops.attention import KV, attention_flops, cached_attention, causal_attention
from search_space.ops.rotary import rope_angles, rotate
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
        self.query = nn.Linear(d_model, self.heads * head, bias=False)
        self.out = nn.Linear(self.heads * head, d_model, bias=False)
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

    def _rotate(self, x: Tensor, start: int) -> Tensor:
        return rotate(x, rope_angles(x.shape[2], self.head, self.rope_base, start, x.device))

    def _attend(self, x: Tensor, kv: KV) -> Tensor:
        """The layer's output (B, L, D) over a whole sequence x (B, L, D)."""
        q = self._rotate(self.q_norm(self._split(self.query(x))), 0)
        return self.out(causal_attention(q, kv).transpose(1, 2).flatten(2))

    def _attend_one(self, x: Tensor, kv: KV, position: int) -> Tensor:
        """The layer's output (B, D) for one token x (B, D)."""
        q = self._rotate(self.q_norm(self._split(self.query(x[:, None]))), position)
        return self.out(cached_attention(q, kv).flatten(1))

    def _cost(self, length: int, weights: int, norms: int, state: int, seen: int) -> Cost:
        """``weights`` of all projections, ``state`` kept, ``seen`` keys at token L in decoding."""
        inner = self.heads * self.head
        return Cost(
            params=weights + norms,
            flops_per_token=2 * weights + attention_flops(length, inner, self.window, self.sink),
            state=state,
            step_flops=2 * weights + 4 * seen * inner,
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
        self.key = nn.Linear(d_model, self.kv * head, bias=False)
        self.value = nn.Linear(d_model, self.kv * head, bias=False)
        self.k_norm = Norm(head) if qk_norm else nn.Identity()

    def forward_kv(self, x: Tensor, kv: KV | None) -> tuple[Tensor, KV | None]:
        kv = self._kv(x, 0)
        return self._attend(x, kv), kv

    def init_state(self, batch: int) -> Any:
        empty = self.key.weight.new_zeros(batch, self.kv, 0, self.head)
        return KV(empty, empty)

    def step_kv(self, x: Tensor, state: Any, kv: KV | None) -> tuple[Tensor, Any, KV | None]:
        position = state.keys.shape[2]
        state = joined(state, self._kv(x[:, None], position))
        return self._attend_one(x, state, position), state, state

    def _kv(self, x: Tensor, start: int) -> KV:
        """Keys and values of tokens x (B, L, D) at positions from ``start``."""
        keys = self._rotate(self.k_norm(self._split(self.key(x))), start)
        return KV(keys, self._split(self.value(x)), self.window, self.sink)

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
