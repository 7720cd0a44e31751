"""What the chunked forms share: cutting a sequence into chunks, decays within one, states between.

Holds no operator itself.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Impl = Literal["naive", "chunk"]


def chunk_size(key: int, length: int) -> int:
    """The chunk length for a state of ``key`` rows: half of it, as a power of two from 16 to 64.

    Short chunks spend on states, long ones on scores; a sequence of at most 32 is one chunk, which
    spends nothing on states (docs/log.md has the measurements).
    """
    return 1 << max(4 if length > 32 else 5, min(6, key.bit_length() - 2))


def chunked(t: Tensor, size: int) -> Tensor:
    """(B, L, H, D) to (B, chunks, H, size, D), the last chunk filled up with zeros."""
    t = F.pad(t, (0, 0, 0, 0, 0, -t.shape[1] % size))
    return t.unflatten(1, (-1, size)).transpose(2, 3)


def unchunked(t: Tensor, length: int) -> Tensor:
    """(B, chunks, H, size, D) to (B, L, H, D): the inverse of `chunked`."""
    return t.transpose(2, 3).flatten(1, 2)[:, :length]


def decays(cumulative: Tensor) -> Tensor:
    """exp(c_i - c_j) for i >= j, else 0: (..., T) to (..., T, T).

    Masked before the exponential: above the diagonal it would overflow and give NaN gradients. A
    difference of sums: beside a token that forgets by e^-1000, single precision keeps four digits.
    """
    difference = cumulative[..., :, None] - cumulative[..., None, :]
    above = torch.ones(difference.shape[-2:], dtype=torch.bool, device=difference.device).triu(1)
    return difference.masked_fill(above, -math.inf).exp()


def carry(decay: Tensor, added: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """States before each chunk and after the last: S_n = decay_n S_{n-1} + added_n.

    decay (B, chunks, H, K or 1, 1), added (B, chunks, H, K, V), state (B, H, K, V), None for zero.
    """
    state, before = torch.zeros_like(wide(added[:, 0])) if state is None else state, []
    for shrink, new in zip(decay.unbind(1), added.unbind(1), strict=True):
        before.append(state)
        state = shrink * state + new
    return torch.stack(before, 1), state


def wide(t: Tensor) -> Tensor:
    """``t`` in at least single precision: sums of logarithms and states do not bear bf16."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def grouped(t: Tensor, heads: int, dim: int = 2) -> Tensor:
    """Repeat the G heads along ``dim`` for the ``heads`` that share them."""
    return t if t.shape[dim] == heads else t.repeat_interleave(heads // t.shape[dim], dim)
