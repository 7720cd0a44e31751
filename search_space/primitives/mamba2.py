"""`Mb`: the Mamba-2 block around state-space duality, Dao & Gu 2024 (2405.21060, section 7)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_space.ops.chunks import Impl
from search_space.ops.linear import linear_flops
from search_space.ops.ssd import ssd
from search_space.primitives.base import Cost, Recurrent
from search_space.primitives.norm import Norm
from search_space.primitives.short_conv import ShortConv

State = tuple[Tensor, Tensor]  # of the convolution; of the SSD (B, H, N, P)


class Mamba2(Recurrent):
    """in_proj -> short causal convolution -> SSD -> gated RMSNorm -> out_proj."""

    code, title, source = "Mb", "Mamba-2 (SSD)", "2405.21060"

    def __init__(
        self,
        d_model: int,
        *,
        expand: float = 2.0,
        state: int = 128,
        conv: int = 4,
        groups: int = 1,
        head: int = 64,
        inner: int | None = None,
    ) -> None:
        """``inner`` channels (d_ssm, default expand * d_model) in heads of size ``head``, with ``state``
        dimensions N. Raises ValueError when the sizes do not divide each other."""
        super().__init__()
        self.inner = inner or round(expand * d_model)
        self.heads, self.head, self.groups, self.n = self.inner // head, head, groups, state
        if self.heads * head != self.inner or self.heads % groups or min(conv, state) < 1:
            raise ValueError(
                f"Mb: {self.inner} inner channels do not make heads of size {head} in {groups} groups: "
                "head= must divide the inner width, and groups= the number of heads"
            )
        self.mixed = self.inner + 2 * groups * state
        self.in_proj = nn.Linear(d_model, self.inner + self.mixed + self.heads, bias=False)
        self.conv = ShortConv(self.mixed, conv)
        self.dt_bias = nn.Parameter(initial_dt_bias(self.heads))
        self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = Norm(self.inner)
        self.out_proj = nn.Linear(self.inner, d_model, bias=False)

    def init_state(self, batch: int) -> State:
        state = self.out_proj.weight.new_zeros(batch, self.heads, self.n, self.head)
        return self.conv.init_state(batch), state

    def mix(self, x: Tensor, state: State | None, impl: Impl) -> tuple[Tensor, State]:
        past, recurrent = state or (None, None)
        z, mixed, dt = self.in_proj(x).split((self.inner, self.mixed, self.heads), dim=-1)
        mixed, past = self.conv.mix(mixed, past)
        inner, B, C = F.silu(mixed).split(
            (self.inner, self.groups * self.n, self.groups * self.n), dim=-1
        )
        B, C = (t.unflatten(-1, (self.groups, self.n)) for t in (B, C))
        dt = F.softplus(dt + self.dt_bias)
        heads = inner.unflatten(-1, (self.heads, self.head))
        y, recurrent = ssd(heads, dt, -self.A_log.exp(), B, C, recurrent, impl)
        D = self.D.to(y.dtype).repeat_interleave(self.head)  # in rows, which are long
        y = torch.addcmul(y.flatten(2), D, inner)
        # torch's SiLU is slow on what is not contiguous: a copy is cheaper.
        return self.out_proj(self.norm(y * F.silu(z.contiguous()))), (past, recurrent)

    def cost(self, length: int) -> Cost:
        d, state = self.out_proj.out_features, self.n * self.inner
        weights = d * self.in_proj.out_features + self.inner * d
        params = weights + self.conv.params + 3 * self.heads + self.inner
        outside = 2 * weights + self.conv.flops
        kept = self.conv.state + state
        return Cost(
            params=params,
            flops_per_token=outside
            + linear_flops(length, self.n, self.head, self.heads, self.groups),
            state=kept,
            step_flops=outside + 4 * state,
            step_reads=params + kept,
        )


def initial_dt_bias(channels: int, low: float = 1e-3, high: float = 1e-1) -> Tensor:
    """softplus inverse of time steps drawn log-uniformly from [low, high], as the paper starts them."""
    dt = torch.empty(channels).uniform_(math.log(low), math.log(high)).exp()
    return dt + torch.log(-torch.expm1(-dt))
