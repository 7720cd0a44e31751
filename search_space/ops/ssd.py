"""State-space duality (SSD), the core of Mamba-2: Dao & Gu 2024 (2405.21060).

A pure function over (B, L, H, ...) tensors; the block around it is `primitives/mamba2.py`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 32


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor | None = None,
    impl: Literal["naive", "chunk"] = "chunk",
) -> tuple[Tensor, Tensor]:
    """S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t',  y_t = S_t' C_t, for each head.

    x (batch, L, H, P), dt (batch, L, H) positive, A (H) negative, B and C (batch, L, G, N) with G
    dividing H; ``state`` (batch, H, N, P) is S before the first token, zero by default. Returns y
    (batch, L, H, P) and the state after the last token. ``naive`` is the recurrence as the paper
    writes it; ``chunk`` (section 6) equals it in outputs and gradients.
    """
    if state is None:
        state = x.new_zeros(x.shape[0], x.shape[2], B.shape[3], x.shape[3])
    return (_naive if impl == "naive" else _chunk)(x, dt, A, B, C, state)


def _naive(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    group = x.shape[2] // B.shape[2]
    B, C = B.repeat_interleave(group, 2), C.repeat_interleave(group, 2)
    ys = []
    for t in range(x.shape[1]):
        decay = (dt[:, t] * A).exp()[..., None, None]
        state = decay * state + B[:, t, :, :, None] * (dt[:, t, :, None] * x[:, t])[:, :, None]
        ys.append((C[:, t, :, :, None] * state).sum(2))
    return torch.stack(ys, 1), state


def _chunk(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    length, heads = x.shape[1:3]
    group = heads // B.shape[2]
    x, dt, B, C = (_chunks(t) for t in (x, dt[..., None], B, C))  # (b, chunks, heads, CHUNK, ...)
    cumulative = (dt[..., 0] * A[:, None]).cumsum(-1)  # log-decay since the chunk's start
    x = x * dt
    # Within a chunk: attention-like, with the decay between the two positions as the mask.
    scores = (C @ B.transpose(-1, -2)).repeat_interleave(group, 2) * decays(cumulative)
    y = scores @ x
    # Between chunks: what each chunk adds to the state, carried on by the decays of the later ones.
    B, C = B.repeat_interleave(group, 2), C.repeat_interleave(group, 2)
    total = cumulative[..., -1]
    added = (B * (total[..., None] - cumulative).exp()[..., None]).transpose(-1, -2) @ x
    states = torch.cat((state[:, None], added), 1)  # (b, chunks + 1, H, N, P)
    carry = decays(
        F.pad(total.transpose(1, 2), (1, 0)).cumsum(-1)
    )  # (b, H, chunks + 1, chunks + 1)
    states = torch.einsum("bhij,bjhnp->bihnp", carry, states)
    y = y + (C * cumulative.exp()[..., None]) @ states[:, :-1]
    return y.transpose(2, 3).flatten(1, 2)[:, :length], states[:, -1]


def _chunks(t: Tensor) -> Tensor:
    """(b, L, H, ...) to (b, chunks, H, CHUNK, ...), zero-padded: dt = 0 leaves the state as it is."""
    t = F.pad(t, (0, 0, 0, 0, 0, -t.shape[1] % CHUNK))
    return t.unflatten(1, (-1, CHUNK)).transpose(2, 3)


def decays(cumulative: Tensor) -> Tensor:
    """exp(c_i - c_j) for i >= j, else 0: (..., T) to (..., T, T).

    Masked before the exponential: above the diagonal it would overflow and give NaN gradients.
    """
    difference = cumulative[..., :, None] - cumulative[..., None, :]
    above = torch.ones(difference.shape[-2:], dtype=torch.bool, device=difference.device).triu(1)
    return difference.masked_fill(above, -math.inf).exp()
