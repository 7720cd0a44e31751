"""`D`: DeltaNet, Yang et al. 2024 (2406.06484), and with ``gated=true`` Gated DeltaNet (2412.06464)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_space.ops.chunks import Impl
from search_space.ops.delta import delta_flops, delta_rule, gated_delta_rule
from search_space.primitives.base import Cost, Recurrent
from search_space.primitives.mamba2 import initial_dt_bias
from search_space.primitives.norm import Norm
from search_space.primitives.short_conv import ShortConv

State = tuple[Tensor, Tensor]  # of the convolution; S (B, H, P, P)


class DeltaNet(Recurrent):
    """in_proj -> short convolution, SiLU -> delta rule on unit keys -> RMSNorm per head -> out_proj.

    Gated, the state also decays by a number per head and token, made as Mamba-2 makes it, and the
    output has a gate, which costs one more d x d matrix.
    """

    code, title, source = "D", "DeltaNet", "2406.06484, 2412.06464"

    def __init__(self, d_model: int, *, gated: bool = False, head: int = 64, conv: int = 4) -> None:
        """d_model / head heads of size ``head``. Raises ValueError when it does not divide d_model."""
        super().__init__()
        self.head, self.heads, self.gated = head, d_model // head, gated
        if d_model % head or conv < 1:
            raise ValueError(
                f"D: width {d_model}, heads of size {head} and conv={conv}: head= must divide the width, "
                "and conv= is at least 1"
            )
        # q, k and v, then beta; gated, also the decay's time step and the output's gate
        self.sizes = (3 * d_model, self.heads, *((self.heads, d_model) if gated else ()))
        self.in_proj = nn.Linear(d_model, sum(self.sizes), bias=False)
        self.conv = ShortConv(3 * d_model, conv, bias=False)
        if gated:
            self.dt_bias = nn.Parameter(initial_dt_bias(self.heads))
            self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.norm = Norm(head)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def init_state(self, batch: int) -> State:
        state = self.out_proj.weight.new_zeros(batch, self.heads, self.head, self.head)
        return self.conv.init_state(batch), state

    def mix(self, x: Tensor, state: State | None, impl: Impl) -> tuple[Tensor, State]:
        past, recurrent = state or (None, None)
        mixed, beta, *gates = self.in_proj(x).split(self.sizes, dim=-1)
        mixed, past = self.conv.mix(mixed, past)
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in F.silu(mixed).chunk(3, dim=-1))
        q, k, beta = F.normalize(q, dim=-1), F.normalize(k, dim=-1), beta.sigmoid()
        if self.gated:
            g = -self.A_log.exp() * F.softplus(gates[0] + self.dt_bias)
            y, recurrent = gated_delta_rule(q, k, v, beta, g, recurrent, impl)
            y = self.norm(y).flatten(2) * F.silu(gates[1])
        else:
            y, recurrent = delta_rule(q, k, v, beta, recurrent, impl)
            y = self.norm(y).flatten(2)
        return self.out_proj(y), (past, recurrent)

    def cost(self, length: int) -> Cost:
        d, state = self.out_proj.out_features, self.heads * self.head**2
        weights = d * (sum(self.sizes) + d)
        params = weights + self.conv.params + self.head + (2 * self.heads if self.gated else 0)
        outside, kept = 2 * weights + self.conv.flops, self.conv.state + state
        core = delta_flops(length, self.head, self.head, self.heads)
        # A step reads the state twice (what the key finds, what the query does) and updates it.
        return Cost(params, outside + core, kept, outside + 6 * state, params + kept)
