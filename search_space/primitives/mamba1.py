"""`Ms`: the Mamba-1 block around the selective scan, Gu & Dao 2023 (2312.00752, section 3.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_space.ops.chunks import Impl
from search_space.ops.scan import selective_scan
from search_space.primitives.base import Cost, Recurrent
from search_space.primitives.mamba2 import initial_dt_bias
from search_space.primitives.short_conv import ShortConv

State = tuple[Tensor, Tensor]  # of the convolution; of the scan (B, N, inner)


class Mamba1(Recurrent):
    """in_proj -> short causal convolution -> selective scan, gated -> out_proj."""

    code, title, source = "Ms", "Mamba-1 (selective scan)", "2312.00752"

    def __init__(
        self,
        d_model: int,
        *,
        expand: float = 2.0,
        state: int = 16,
        conv: int = 4,
        rank: int | None = None,
    ) -> None:
        """expand * d_model inner channels with ``state`` dimensions N each; the time step is a map of
        ``rank`` (default d_model / 16, rounded up). Raises ValueError for a size under 1."""
        super().__init__()
        self.inner, self.n = round(expand * d_model), state
        self.rank = math.ceil(d_model / 16) if rank is None else rank
        if min(self.inner, state, conv, self.rank) < 1:
            raise ValueError(
                f"Ms: {self.inner} inner channels, state={state}, conv={conv} and rank={self.rank}: "
                "each is at least 1"
            )
        self.in_proj = nn.Linear(d_model, 2 * self.inner, bias=False)
        self.conv = ShortConv(self.inner, conv)
        self.select = nn.Linear(self.inner, self.rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(self.rank, self.inner)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(self.inner, 1))
        self.D = nn.Parameter(torch.ones(self.inner))
        self.out_proj = nn.Linear(self.inner, d_model, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """Time steps as in the paper (section 3.6): by the bias, disturbed little by the input."""
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        self.dt_proj.bias.data.copy_(initial_dt_bias(self.inner))

    def init_state(self, batch: int) -> State:
        state = self.out_proj.weight.new_zeros(batch, self.n, self.inner)
        return self.conv.init_state(batch), state

    def mix(self, x: Tensor, state: State | None, impl: Impl) -> tuple[Tensor, State]:
        past, recurrent = state or (None, None)
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u, past = self.conv.mix(u, past)
        u = F.silu(u)
        dt, B, C = self.select(u).split((self.rank, self.n, self.n), dim=-1)
        delta = F.softplus(self.dt_proj(dt))
        y, recurrent = selective_scan(u, delta, -self.A_log.exp(), B, C, self.D, recurrent, impl)
        return self.out_proj(y * F.silu(z)), (past, recurrent)

    def cost(self, length: int) -> Cost:
        d, state = self.out_proj.out_features, self.n * self.inner
        weights = 3 * d * self.inner + self.inner * (2 * self.rank + 2 * self.n)
        params = weights + self.conv.params + state + 2 * self.inner  # A; D and the bias of dt
        flops = 2 * weights + self.conv.flops + 4 * state
        kept = self.conv.state + state
        return Cost(params, flops, kept, flops, params + kept)
