"""State-space duality (SSD), the core of Mamba-2: Dao & Gu 2024 (2405.21060).

Linear attention whose decay is one number per head and token; the block around it is
`primitives/mamba2.py`, the chunked form that of `ops/linear.py`.
"""

from __future__ import annotations

from torch import Tensor

from search_space.ops.chunks import Impl
from search_space.ops.linear import decayed_attention


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor | None = None,
    impl: Impl = "chunk",
) -> tuple[Tensor, Tensor]:
    """S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t',  y_t = S_t' C_t, for each head.

    x (batch, L, H, P), dt (batch, L, H) positive, A (H) negative, B and C (batch, L, G, N) with G
    dividing H; ``state`` (batch, H, N, P) is S before the first token, zero by default. Returns y
    (batch, L, H, P) and the state after the last token.
    """
    return decayed_attention(C, B, x, (dt * A)[..., None], state, impl, dt[..., None])
