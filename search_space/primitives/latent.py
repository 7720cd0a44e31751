"""`La`: attention with low-rank latent keys and values: decoding caches the latent alone.

Palu, Chang et al. 2024 (2407.21118); MLA in DeepSeek-V2 (2405.04434). As in Palu, keys are rotated after
they are made from the latent, so a decoding step makes all of them again; MLA's separate rotary part
and the absorption of its matrices are not here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_space.ops.attention import KV
from search_space.primitives.attention import AttentionLayer
from search_space.primitives.base import Cost
from search_space.primitives.norm import Norm


class LatentAttention(AttentionLayer):
    """Attention with c = x W_c, K = c W_k, V = c W_v; the cache holds c, (B, T, rank)."""

    code, title, source = "La", "low-rank latent attention", "Palu 2407.21118; MLA 2405.04434"

    def __init__(
        self,
        d_model: int,
        *,
        rank: int | None = None,
        head: int = 64,
        heads: int | None = None,
        qk_norm: bool = False,
        rope_base: float = 10_000.0,
    ) -> None:
        """``rank`` of the latent, by default two thirds of d_model, at which the layer has the
        parameters of `A` and a third of its cache. Raises ValueError as `A` does."""
        super().__init__(d_model, head, heads, None, qk_norm, rope_base)
        self.rank = rank or max(1, round(d_model * 2 / 3))
        self.read = nn.Linear(d_model, self.inner + self.rank, bias=False)  # Q and the latent
        self.made = nn.Linear(self.rank, 2 * self.inner, bias=False)  # K and V of a latent
        self.k_norm = Norm(head) if qk_norm else nn.Identity()

    def forward_kv(self, x: Tensor, kv: KV | None) -> tuple[Tensor, KV | None]:
        query, latent = self._project(x)
        kv = self._kv(latent)
        return self._attend(query, kv), kv

    def init_state(self, batch: int) -> Tensor:
        return self.out.weight.new_zeros(batch, 0, self.rank)

    def step_kv(self, x: Tensor, state: Tensor, kv: KV | None) -> tuple[Tensor, Tensor, KV | None]:
        position = state.shape[1]
        query, latent = self._project(x[:, None])
        state = torch.cat((state, latent), 1)
        kv = self._kv(state)
        return self._attend_one(query, kv, position), state, kv

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Projected queries (B, L, heads * P) and latents (B, L, rank) of tokens x (B, L, D)."""
        query, latent = self.read(x).split((self.inner, self.rank), dim=-1)
        return query, latent

    def _kv(self, latent: Tensor) -> KV:
        """Keys and values of the latents (B, T, rank) from the first on."""
        key, value = self.made(latent).chunk(2, dim=-1)
        return KV(self._rotate(key, self.k_norm, 0), self._split(value))

    def cost(self, length: int) -> Cost:
        d = self.out.out_features
        made = self.made.weight.numel()  # K and V of one token
        norms = 2 * self.head if isinstance(self.q_norm, Norm) else 0
        cost = self._cost(
            length, 2 * d * self.inner + d * self.rank + made, norms, self.rank * length, length
        )
        again = Cost(0, 0, 0, 2 * made * (length - 1), 0)
        return cost + again
