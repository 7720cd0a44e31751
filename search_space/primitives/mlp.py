"""`M`: the position-wise MLP, two-layer (ReLU, GELU) or gated (SwiGLU, Shazeer 2002.05202)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from search_space.primitives.base import Cost, Primitive

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "swiglu": F.silu,
}


class MLP(Primitive):
    """act(x W1) W2, or (silu(x W1) * x W3) W2 for ``act=swiglu``; no biases."""

    code, title, source = "M", "MLP", "Vaswani 2017; SwiGLU 2002.05202"

    def __init__(
        self, d_model: int, *, ratio: float = 4.0, hidden: int | None = None, act: str = "relu"
    ) -> None:
        """``hidden`` units, by default round(ratio * d_model). Raises ValueError on an unknown ``act``."""
        super().__init__()
        if act not in ACTIVATIONS:
            raise ValueError(f"M: act= is one of {', '.join(ACTIVATIONS)}, not {act!r}")
        hidden = hidden or round(ratio * d_model)
        self.act = act
        self.up = nn.Linear(d_model, hidden * (2 if act == "swiglu" else 1), bias=False)
        self.down = nn.Linear(hidden, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        if self.act == "swiglu":
            gate, h = h.chunk(2, dim=-1)
            return self.down(F.silu(gate) * h)
        return self.down(ACTIVATIONS[self.act](h))

    def init_state(self, batch: int) -> None:
        return None

    def step(self, x: Tensor, state: None) -> tuple[Tensor, None]:
        return self(x), None

    def cost(self, length: int) -> Cost:
        weights = (
            self.up.in_features * self.up.out_features
            + self.down.in_features * self.down.out_features
        )
        return Cost(weights, 2 * weights, 0, 2 * weights, weights)
