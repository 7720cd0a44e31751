"""`G`: gated linear attention, Yang et al. 2024 (2312.06635, section 4.4)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from search_space.ops.chunks import Impl
from search_space.ops.linear import gla, linear_flops
from search_space.primitives.base import Cost, Recurrent
from search_space.primitives.norm import Norm

TEMPERATURE = 16  # of the forget gate: sigmoid(.)^(1/16), so that it starts near 1


class GatedLinearAttention(Recurrent):
    """Linear attention whose state decays per key channel by a gate of the input; gated output."""

    code, title, source = "G", "gated linear attention", "2312.06635"

    def __init__(
        self, d_model: int, *, head: int = 64, key_ratio: float = 0.5, rank: int = 16
    ) -> None:
        """d_model / head heads with values of size ``head`` and keys of key_ratio * head; the forget
        gate is a map of ``rank``. Raises ValueError when the sizes do not fit."""
        super().__init__()
        self.head, self.heads, self.key = head, d_model // head, round(key_ratio * head)
        if d_model % head or min(self.key, rank) < 1:
            raise ValueError(
                f"G: width {d_model}, heads of size {head}, keys of size {self.key} and rank={rank}: "
                "head= must divide the width, and the others are at least 1"
            )
        keys = self.heads * self.key
        self.in_proj = nn.Linear(d_model, 2 * keys + 2 * d_model, bias=False)
        self.forget_in = nn.Linear(d_model, rank, bias=False)
        self.forget_out = nn.Linear(rank, keys)
        self.norm = Norm(head)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def init_state(self, batch: int) -> Tensor:
        return self.out_proj.weight.new_zeros(batch, self.heads, self.key, self.head)

    def mix(self, x: Tensor, state: Tensor | None, impl: Impl) -> tuple[Tensor, Tensor]:
        keys, d = self.heads * self.key, x.shape[-1]
        q, k, v, gate = self.in_proj(x).split((keys, keys, d, d), dim=-1)
        g = F.logsigmoid(self.forget_out(self.forget_in(x))) / TEMPERATURE
        q, k, v, g = (t.unflatten(-1, (self.heads, -1)) for t in (q, k, v, g))
        y, state = gla(q * self.key**-0.5, k, v, g, state, impl)
        return self.out_proj(self.norm(y).flatten(2) * F.silu(gate)), state

    def cost(self, length: int) -> Cost:
        d, keys = self.out_proj.out_features, self.heads * self.key
        rank = self.forget_in.out_features
        weights = 3 * d * d + 2 * d * keys + rank * (d + keys)
        params, state = weights + keys + self.head, keys * self.head
        core = linear_flops(length, self.key, self.head, self.heads, self.heads, per_channel=True)
        return Cost(params, 2 * weights + core, state, 2 * weights + 4 * state, params + state)
