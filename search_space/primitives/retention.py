"""`R`: multi-scale retention, Sun et al. 2023 (2307.08621, section 2.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from search_space.ops.chunks import Impl
from search_space.ops.linear import linear_flops, retention
from search_space.ops.rotary import rotated
from search_space.primitives.base import Cost, Recurrent
from search_space.primitives.norm import Norm

State = tuple[Tensor, int]  # S (B, H, K, P); the number of tokens so far, for the rotation


class Retention(Recurrent):
    """Linear attention with rotated keys whose state decays by a constant per head; gated output.

    The norm per head is an RMSNorm, where the paper has a group norm.
    """

    code, title, source = "R", "retention", "2307.08621"

    def __init__(self, d_model: int, *, head: int = 64, key_ratio: float = 0.5) -> None:
        """d_model / head heads with values of size ``head`` and keys of key_ratio * head (the paper's
        half). Raises ValueError when the sizes do not fit."""
        super().__init__()
        self.head, self.heads, self.key = head, d_model // head, round(key_ratio * head)
        if d_model % head or self.key < 2 or self.key % 2:
            raise ValueError(
                f"R: width {d_model}, heads of size {head} and keys of size {self.key}: head= must "
                "divide the width, and key_ratio * head be even"
            )
        self.in_proj = nn.Linear(d_model, 2 * self.heads * self.key + 2 * d_model, bias=False)
        self.norm = Norm(head)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def init_state(self, batch: int) -> State:
        return self.out_proj.weight.new_zeros(batch, self.heads, self.key, self.head), 0

    def mix(self, x: Tensor, state: State | None, impl: Impl) -> tuple[Tensor, State]:
        recurrent, start = state or (None, 0)
        keys, d = self.heads * self.key, x.shape[-1]
        q, k, v, gate = self.in_proj(x).split((keys, keys, d, d), dim=-1)
        q, k = (rotated(t, self.key, 10_000.0, start).transpose(1, 2) for t in (q, k))
        v = v.unflatten(-1, (self.heads, -1))
        y, recurrent = retention(q * self.key**-0.5, k, v, recurrent, impl)
        y = self.norm(y).flatten(2) * F.silu(gate)
        return self.out_proj(y), (recurrent, start + x.shape[1])

    def cost(self, length: int) -> Cost:
        d, keys = self.out_proj.out_features, self.heads * self.key
        weights, state = 3 * d * d + 2 * d * keys, keys * self.head
        core = linear_flops(length, self.key, self.head, self.heads, self.heads)
        params = weights + self.head
        return Cost(params, 2 * weights + core, state, 2 * weights + 4 * state, params + state)
