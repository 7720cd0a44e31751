"""The delta rule and its gated form, the cores of DeltaNet and Gated DeltaNet.

Yang et al. 2024 (2406.06484, the chunked WY form in section 3) and 2025 (2412.06464, section 3.3).
Normalising keys and making beta and the gate belong to the primitive.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from search_space.ops.chunks import Impl, chunk_size, chunked, decays, unchunked, wide


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    state: Tensor | None = None,
    impl: Impl = "chunk",
) -> tuple[Tensor, Tensor]:
    """S_t = S_{t-1} + k_t beta_t (v_t - S_{t-1}' k_t)',  o_t = S_t' q_t, for each head.

    q and k (B, L, H, K), v (B, L, H, V), beta (B, L, H), ``state`` (B, H, K, V). Stable for k of length
    at most 1 and beta from 0 to 2.
    """
    return gated_delta_rule(q, k, v, beta, torch.zeros_like(wide(beta)), state, impl)


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    state: Tensor | None = None,
    impl: Impl = "chunk",
) -> tuple[Tensor, Tensor]:
    """As `delta_rule`, on a state that first decays: exp(g_t) S_{t-1} in the place of S_{t-1}.

    g (B, L, H) is a log-decay <= 0.
    """
    if state is None:
        state = wide(v).new_zeros(v.shape[0], v.shape[2], k.shape[3], v.shape[3])
    beta, g = wide(beta)[..., None], wide(g)[..., None]
    o, state = (_naive if impl == "naive" else _chunk)(q, k, v, beta, g, state)
    return o.to(v.dtype), state


def _naive(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    outputs = []
    for q_t, k_t, v_t, b_t, g_t in zip(*(t.unbind(1) for t in (q, k, v, beta, g)), strict=True):
        state = g_t.exp()[..., None] * state
        found = (state * k_t[..., :, None]).sum(-2)
        state = state + k_t[..., :, None] * (b_t * (v_t - found))[..., None, :]
        outputs.append((state * q_t[..., :, None]).sum(-2))
    return torch.stack(outputs, 1), state


def _chunk(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """With u_t = beta_t (v_t - S' k_t) in the place of v_t this is linear attention with decay.

    Within a chunk that starts from S, u = fresh - seen S, where both solve one triangular system.
    """
    length, size = v.shape[1], chunk_size(k.shape[3], v.shape[1])
    q, k, v, beta, g = (chunked(t, size) for t in (q, k, v, beta, g))
    cumulative = g.cumsum(-2)
    decay, end = decays(cumulative[..., 0]), cumulative[..., -1:, :]
    fresh, seen = _solve(k, v, beta, cumulative, decay)
    keys = (k * (end - cumulative).exp()).transpose(-1, -2)
    before, state = _carry(end.exp(), keys, fresh, seen, state)
    u = fresh - seen @ before
    o = (q @ k.transpose(-1, -2) * decay) @ u + (q * cumulative.exp()) @ before
    return unchunked(o, length), state


def _solve(
    k: Tensor, v: Tensor, beta: Tensor, cumulative: Tensor, decay: Tensor
) -> tuple[Tensor, Tensor]:
    """(I + T) [fresh, seen] = beta [v, k exp(c)] with T_ij = beta_i k_i'k_j exp(c_i - c_j), i > j."""
    k, v = wide(k), wide(v)
    sides = torch.cat((beta * v, beta * k * cumulative.exp()), -1)
    with torch.autocast(k.device.type, enabled=False):  # the solver knows no bf16
        system = ((beta * k) @ k.transpose(-1, -2) * decay).tril(-1)
        solved = torch.linalg.solve_triangular(system, sides, upper=False, unitriangular=True)
    fresh, seen = solved.split((v.shape[-1], k.shape[-1]), -1)
    return fresh, seen


def _carry(
    decay: Tensor, keys: Tensor, fresh: Tensor, seen: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """States before each chunk and after the last: S_n = decay_n S_{n-1} + keys_n u_n."""
    before = []
    for shrink, key, new, old in zip(
        *(t.unbind(1) for t in (decay, keys, fresh, seen)), strict=True
    ):
        before.append(state)
        state = shrink * state + key @ (new - old @ state)
    return torch.stack(before, 1), state


def delta_flops(length: int, key: int, value: int, heads: int) -> float:
    """FLOPs per token of the chunked form, the triangular solve (size (K + V)) included."""
    size = chunk_size(key, length)
    filled = math.ceil(length / size) * size / length
    scores = 4 * size * key + 2 * size * value
    return filled * heads * (scores + size * (key + value) + 8 * key * value)
