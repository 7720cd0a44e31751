"""`L`: linear attention with the feature map elu(x) + 1, Katharopoulos et al. 2020 (2006.16236)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_space.ops.chunks import Impl
from search_space.ops.linear import linear_attention, linear_flops
from search_space.primitives.base import Cost, Recurrent


class LinearAttention(Recurrent):
    """y_t = sum over s <= t of (f(q_t)'f(k_s)) v_s, divided by the sum of the same weights.

    It knows no positions: order reaches it only through the layers before it, as in the paper.
    """

    code, title, source = "L", "linear attention", "2006.16236"

    def __init__(self, d_model: int, *, head: int = 64) -> None:
        """d_model / head heads of size ``head``. Raises ValueError when it does not divide d_model."""
        super().__init__()
        self.head, self.heads = head, d_model // head
        if d_model % head:
            raise ValueError(
                f"L: width {d_model} is not a multiple of the head size {head}: change head="
            )
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def init_state(self, batch: int) -> Tensor:
        """S and, as its last column, the normaliser: (B, H, P, P + 1)."""
        return self.out_proj.weight.new_zeros(batch, self.heads, self.head, self.head + 1)

    def mix(self, x: Tensor, state: Tensor | None, impl: Impl) -> tuple[Tensor, Tensor]:
        q, k, v = (t.unflatten(-1, (-1, self.head)) for t in self.in_proj(x).chunk(3, dim=-1))
        v = torch.cat((v, torch.ones_like(v[..., :1])), -1)
        y, state = linear_attention(F.elu(q) + 1, F.elu(k) + 1, v, state, impl)
        y = y[..., :-1] / y[..., -1:].clamp_min(1e-6)
        return self.out_proj(y.flatten(2)), state

    def cost(self, length: int) -> Cost:
        params = 4 * self.out_proj.out_features**2
        state = self.heads * self.head * (self.head + 1)
        core = linear_flops(length, self.head, self.head + 1, self.heads, self.heads)
        return Cost(params, 2 * params + core, state, 2 * params + 4 * state, params + state)
