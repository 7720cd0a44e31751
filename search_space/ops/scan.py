"""The selective scan, the core of Mamba-1: Gu & Dao 2023 (2312.00752, section 3).

The state decays by its own factor per channel, state dimension and token, so no matrix product does
the work. The chunked form scans a chunk in log2(T) doublings, element by element, which is safe
where the quotient of two cumulative products is 0 / 0. It keeps the state at the chunks' borders only
and computes the rest again in the backward pass, as the paper's kernel does; so it has no second
derivative.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from search_space.ops.chunks import Impl, wide

CHUNK = 16  # a power of two; 8 to 16 keep a chunk of a proxy in the cache (docs/log.md)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    state: Tensor | None = None,
    impl: Impl = "chunk",
) -> tuple[Tensor, Tensor]:
    """h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t',  y_t = h_t C_t + D u_t, for each channel.

    u and delta (batch, L, E) with delta positive, A (E, N) negative, B and C (batch, L, N), D (E).
    ``state`` is h before the first token, kept as (batch, N, E), since long rows are faster; zero by
    default. Returns y (batch, L, E) and the state after the last token.
    """
    # Without autocast: the products here are small, and the state does not bear bf16.
    with torch.autocast(u.device.type, enabled=False):
        dtype = u.dtype
        u, delta, A, B, C = (wide(t) for t in (u, delta, A, B, C))
        if state is None:
            state = u.new_zeros(u.shape[0], A.shape[1], u.shape[2])
        y, state = (_naive if impl == "naive" else _chunk)(u, delta, A, B, C, state)
        return (y + D * u).to(dtype), state


def _naive(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    outputs = []
    for u_t, d_t, B_t, C_t in zip(*(t.unbind(1) for t in (u, delta, B, C)), strict=True):
        state = (d_t[:, None] * A.T).exp() * state + (d_t * u_t)[:, None] * B_t[:, :, None]
        outputs.append((state * C_t[:, :, None]).sum(1))
    return torch.stack(outputs, 1), state


def _chunk(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    length = u.shape[1]
    # delta = 0 leaves the state as it is, so the last chunk can be filled up.
    u, delta, B, C = (F.pad(t, (0, 0, 0, -length % CHUNK)) for t in (u, delta, B, C))
    y, state = _Scan.apply(delta * u, delta, A.T.contiguous(), B, C, state)
    return y[:, :length], state


class _Scan(torch.autograd.Function):
    """y_t = C_t' h_t with h_t = exp(delta_t A) h_{t-1} + B_t x_t', chunk after chunk; A is (N, E)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        outputs, borders = [], [state]
        for x_c, delta_c, B_c, C_c in _split(x, delta, B, C):
            h = _states(x_c, _factors(delta_c, A), B_c, borders[-1])
            outputs.append((C_c[:, :, None] @ h)[:, :, 0])
            borders.append(h[:, -1].clone())  # a view would keep the whole chunk alive
        ctx.save_for_backward(x, delta, A, B, C, *borders[:-1])
        return torch.cat(outputs, 1), borders[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dstate: Tensor) -> tuple[Tensor, ...]:
        x, delta, A, B, C, *borders = ctx.saved_tensors
        dA, grads = torch.zeros_like(A), []
        chunks = list(zip(_split(x, delta, B, C, dy), borders, strict=True))
        for inputs, border in reversed(chunks):
            *grad, dA_c, dstate = _chunk_grads(inputs, A, border, dstate)
            grads.append(grad)
            dA += dA_c
        dx, ddelta, dB, dC = (torch.cat(g[::-1], 1) for g in zip(*grads, strict=True))
        return dx, ddelta, dA, dB, dC, dstate


def _chunk_grads(
    inputs: tuple[Tensor, ...], A: Tensor, border: Tensor, dstate: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of x, delta, B, C, A and the state before a chunk, whose ``inputs`` are x, delta, B, C
    and the gradient of y; ``dstate`` is that of the state after it.

    With l_t the gradient of h_t: l_t = C_t dy_t' + exp(delta_{t+1} A) l_{t+1}, a scan from the end.
    """
    x, delta, B, C, dy = inputs
    factors = _factors(delta, A)
    h = _states(x, factors, B, border)
    later = torch.cat((factors[:, 1:], torch.ones_like(factors[:, :1])), 1)
    grad = C[:, :, :, None] * dy[:, :, None]
    grad[:, -1] += dstate
    _double(later, grad, last=1)
    dlog = torch.cat((border[:, None], h[:, :-1]), 1).mul_(grad).mul_(factors)
    return (
        (B[:, :, None] @ grad)[:, :, 0],
        (dlog * A).sum(2),
        (grad @ x[..., None])[..., 0],
        (h @ dy[..., None])[..., 0],
        (dlog * delta[:, :, None]).sum((0, 1)),
        factors[:, 0] * grad[:, 0],
    )


def _split(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return list(zip(*(t.split(CHUNK, 1) for t in tensors), strict=True))


def _factors(delta: Tensor, A: Tensor) -> Tensor:
    return (delta[:, :, None] * A).exp_()  # (batch, T, N, E)


def _states(x: Tensor, factors: Tensor, B: Tensor, before: Tensor) -> Tensor:
    """h (batch, T, N, E) at every token of a chunk."""
    h = B[..., None] * x[:, :, None]
    h[:, 0].addcmul_(factors[:, 0], before)
    _double(factors.clone(), h, last=0)
    return h


def _double(factors: Tensor, h: Tensor, last: int) -> None:
    """Scan h along dim 1, in place: neighbouring blocks join into blocks of twice the size.

    From the left with ``last=0``: h_t += factor_t h_{t-1}; from the right with ``last=1``. Destroys
    ``factors``, which come to hold the product since their block's start.
    """
    size, edge = 1, slice(-1, None) if last == 0 else slice(0, 1)
    while size < h.shape[1]:
        f, s = (t.unflatten(1, (-1, 2, size)) for t in (factors, h))
        s[:, :, 1 - last].addcmul_(f[:, :, 1 - last], s[:, :, last, edge])
        f[:, :, 1 - last].mul_(f[:, :, last, edge])
        size *= 2
