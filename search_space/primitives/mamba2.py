"""`Mb`: the Mamba-2 block around state-space duality, Dao & Gu 2024 (2405.21060, section 7)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_space.ops.ssd import CHUNK, ssd
from search_space.primitives.base import Cost, Primitive

State = tuple[
    Tensor, Tensor
]  # the last conv - 1 inputs (B, conv - 1, C); the SSD state (B, H, N, P)


class Mamba2(Primitive):
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
        self.conv = nn.Conv1d(self.mixed, self.mixed, conv, groups=self.mixed, padding=conv - 1)
        self.dt_bias = nn.Parameter(_initial_dt_bias(self.heads))
        self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = nn.RMSNorm(self.inner)
        self.out_proj = nn.Linear(self.inner, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        z, mixed, dt = self._project(x)
        mixed = self.conv(mixed.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
        y, _ = self._ssd(mixed, dt, None)
        return self._gate(y, z)

    def init_state(self, batch: int) -> State:
        zeros = self.out_proj.weight.new_zeros
        return (
            zeros(batch, self.conv.kernel_size[0] - 1, self.mixed),
            zeros(batch, self.heads, self.n, self.head),
        )

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        z, mixed, dt = self._project(x[:, None])
        window = torch.cat((state[0], mixed), dim=1)
        mixed = torch.einsum("blc,cl->bc", window, self.conv.weight[:, 0])
        mixed = mixed + torch.as_tensor(self.conv.bias)
        y, recurrent = self._ssd(mixed[:, None], dt, state[1])
        return self._gate(y, z)[:, 0], (window[:, 1:], recurrent)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, mixed, dt = self.in_proj(x).split((self.inner, self.mixed, self.heads), dim=-1)
        return z, mixed, F.softplus(dt + self.dt_bias)

    def _ssd(self, mixed: Tensor, dt: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        x, B, C = F.silu(mixed).split(
            (self.inner, self.groups * self.n, self.groups * self.n), dim=-1
        )
        x = x.unflatten(-1, (self.heads, self.head))
        B, C = (t.unflatten(-1, (self.groups, self.n)) for t in (B, C))
        A = -self.A_log.exp()
        if x.shape[1] == 1:  # one token: the recurrence itself is cheapest
            y, state = ssd(x, dt, A, B, C, state, "naive")
        else:
            y, state = ssd(x, dt, A, B, C, state)
        return (y + self.D[:, None] * x).flatten(2), state

    def _gate(self, y: Tensor, z: Tensor) -> Tensor:
        return self.out_proj(self.norm(y * F.silu(z)))

    def cost(self, length: int) -> Cost:
        d, kernel = self.out_proj.out_features, self.conv.kernel_size[0]
        weights = d * self.in_proj.out_features + self.inner * d
        small = self.mixed * (kernel + 1) + 3 * self.heads + self.inner
        chunks = math.ceil(length / CHUNK)
        padded = chunks * CHUNK / length  # the last chunk is filled up
        inside = 2 * CHUNK * (self.groups * self.n + self.inner)
        across = 4 * self.n * self.inner
        carry = 2 * (chunks + 1) ** 2 * self.n * self.inner / length
        convolution = 2 * kernel * self.mixed * (length + kernel - 1) / length
        return Cost(
            params=weights + small,
            flops_per_token=2 * weights + padded * (inside + across) + carry + convolution,
            state=(kernel - 1) * self.mixed + self.n * self.inner,
        )


def _initial_dt_bias(heads: int, low: float = 1e-3, high: float = 1e-1) -> Tensor:
    """softplus inverse of time steps drawn log-uniformly from [low, high], as the paper starts them."""
    dt = torch.empty(heads).uniform_(math.log(low), math.log(high)).exp()
    return dt + torch.log(-torch.expm1(-dt))
