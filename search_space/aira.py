"""The formula set `aira`: training FLOPs per token as arXiv 2605.15871 counts them.

Six per weight and token, and attention's square without causal halving; embeddings, logits, norms and
the convolution's bias are left out. Knows `A`, `M` and `Mb` only, as the paper does; `Cost` counts the
forward pass of every primitive in our own way.
"""

from __future__ import annotations

import torch

from search_space.model import make_primitives
from search_space.pattern import Pattern
from search_space.presets import Preset
from search_space.primitives.attention import Attention
from search_space.primitives.base import Primitive
from search_space.primitives.mamba2 import Mamba2
from search_space.primitives.mlp import MLP


def training_flops(pattern: Pattern, preset: Preset, length: int | None = None) -> float:
    """Training FLOPs per token of all layers at context ``length`` (by default the preset's).

    Raises ValueError for a layer that the paper has no formula for.
    """
    with torch.device("meta"):
        primitives = make_primitives(pattern, preset)
    return sum(
        _layer(primitives[layer.weights], preset.width, length or preset.length)
        for layer in pattern.layers
    )


def attention(d: int, d_kv: int, s: int) -> float:
    """6 (2 d^2 + 2 d d_kv) + 12 s d, for KV heads of d_kv channels in all and context s."""
    return 6 * (2 * d * d + 2 * d * d_kv) + 12 * s * d


def mlp(d: int, h: int, matrices: int = 3) -> float:
    """18 d h, which is SwiGLU's three matrices; 12 d h for the two of a plain MLP, counted alike."""
    return 6 * matrices * d * h


def ssm(d: int, d_ssm: int, n_state: int, heads: int, groups: int, k: int) -> float:
    """6 (d d_in + d_conv k + 2 d_ssm n_state + d_ssm d), for a convolution of k tokens."""
    d_conv = d_ssm + 2 * groups * n_state
    d_in = 2 * d_ssm + 2 * groups * n_state + heads
    return 6 * (d * d_in + d_conv * k + 2 * d_ssm * n_state + d_ssm * d)


def _layer(primitive: Primitive, d: int, s: int) -> float:
    if type(primitive) is Attention:
        return attention(d, primitive.kv * primitive.head, s)
    if isinstance(primitive, MLP):
        return mlp(d, primitive.down.in_features, 3 if primitive.act == "swiglu" else 2)
    if isinstance(primitive, Mamba2):
        p = primitive
        return ssm(d, p.inner, p.n, p.heads, p.groups, p.conv.past + 1)
    raise ValueError(
        f"the formula set aira has A, M and Mb, not {primitive.code or 'a fusion'}: use the pattern's "
        "own cost, 3 x flops_per_token"
    )
