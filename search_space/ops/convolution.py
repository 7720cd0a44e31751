"""The long convolution, the core of Hyena: Poli et al. 2023 (2302.10866), through the FFT.

Where the filter comes from is the primitive's business.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from search_space.ops.chunks import Impl, wide


def long_convolution(u: Tensor, h: Tensor, last: int, impl: Impl = "chunk") -> Tensor:
    """y_t = sum over s <= t of h_{t-s} u_s, for the ``last`` positions of u.

    u (B, T, D) and h (T, D); returns (B, last, D). ``chunk`` goes through the FFT, padded with zeros
    so that nothing wraps around.
    """
    return (_naive if impl == "naive" else _fft)(wide(u), wide(h), last).to(u.dtype)


def _naive(u: Tensor, h: Tensor, last: int) -> Tensor:
    length = u.shape[1]
    outputs = [(u[:, :t] * h[:t].flip(0)).sum(1) for t in range(length - last + 1, length + 1)]
    return torch.stack(outputs, 1)


def _fft(u: Tensor, h: Tensor, last: int) -> Tensor:
    size = fft_size(u.shape[1])
    spectrum = torch.fft.rfft(u, size, dim=1) * torch.fft.rfft(h, size, dim=0)
    return torch.fft.irfft(spectrum, size, dim=1)[:, u.shape[1] - last : u.shape[1]]


def fft_size(length: int) -> int:
    """The smallest power of two that holds a convolution of two sequences of ``length``."""
    return 1 << (2 * length - 2).bit_length()


def convolution_flops(length: int) -> float:
    """FLOPs of one channel over the whole sequence: three real FFTs of 2.5 n log2(n) each, and 6 FLOPs
    for each complex product. `torch.utils.flop_counter` counts neither."""
    size = fft_size(length)
    return 7.5 * size * math.log2(size) + 6 * (size // 2 + 1)
