"""Presets: the width, depth and primitive defaults at which a pattern is built.

`small` is the proxy of arXiv 2605.15871 (width 128, 16 layers); `mini` is the same at width 64 for
laptops, with the depth and head size fixed by measurement (docs/log.md). In both, a layer of any code
has about the parameters of four width x width matrices, as `A` has: within 10%, but for `Xa`, which has
two, and gated `D`, which has five. `350M` to `3B`, and with Mamba-2 `350M-hybrid` to `3B-hybrid`, are the
sizes to which winners are extrapolated; they say nothing of the vocabulary, 128,256 and tied there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search_space.pattern import Value, nearest


@dataclass(frozen=True)
class Preset:
    """``defaults`` holds per code the options a layer has unless its pattern says otherwise.

    ``length`` is the context length at which costs are stated; ``layers`` the usual depth.
    """

    name: str
    width: int
    layers: int
    length: int
    defaults: Mapping[str, Mapping[str, Value]]


Defaults = dict[str, dict[str, Value]]


def _proxy(head: int, ssd_head: int, window: int, recurrent: int) -> Defaults:
    """``head`` of attention, ``ssd_head`` of Mamba-2 (dividing its inner width, also in a fusion of
    two), ``recurrent`` of those whose state grows with the head."""
    return {
        "A": {"head": head},
        "W": {"head": head, "window": window},
        "La": {"head": head},
        "Xa": {"head": head},
        "M": {"ratio": 258 / 128, "act": "relu"},  # hidden 258 at width 128: four d x d matrices
        "E": {"experts": 4, "topk": 2, "ratio": 0.5, "act": "relu"},  # in all experts together
        "Mb": {"expand": 1.25, "state": 4, "conv": 4, "groups": 1, "head": ssd_head},
        "Ms": {"expand": 1.25, "state": 4, "conv": 4},
        "L": {"head": recurrent},
        "G": {"head": recurrent, "rank": 4},
        "D": {"head": recurrent},
        "R": {"head": recurrent},
        "H": {"filter": 8, "span": 4 * window},
    }


def _scale(width: int, head: int, hidden: int, state: int = 128) -> Defaults:
    """8 KV heads and SwiGLU; codes that are not here have their own defaults, which are made for it."""
    return {
        "A": {"head": head, "kv": 8},
        "W": {"head": head, "kv": 8},
        "La": {"head": head},
        "Xa": {"head": head},
        "M": {"ratio": hidden / width, "act": "swiglu"},
        "E": {"ratio": hidden / width / 8, "act": "swiglu"},
        "Mb": {"expand": 2.0, "state": state, "conv": 4, "groups": 1, "head": 64},
    }


# Depths at scale: 1B and 3B as Llama 3.2 has them (16 and 28 pairs of A and M); the others are those at
# which pairs, or A+M+Mb+M with Mamba-2, hold the named number of parameters.
PRESETS = {
    preset.name: preset
    for preset in (
        Preset("small", 128, 16, 128, _proxy(8, 8, 32, 16)),
        Preset("mini", 64, 8, 64, _proxy(16, 20, 16, 16)),
        Preset("350M", 1536, 28, 8192, _scale(1536, 64, 4096)),
        Preset("1B", 2048, 32, 8192, _scale(2048, 64, 8192)),
        Preset("3B", 3072, 56, 8192, _scale(3072, 128, 8192)),
        Preset("350M-hybrid", 1536, 18, 8192, _scale(1536, 64, 6144)),
        Preset("1B-hybrid", 2048, 30, 8192, _scale(2048, 64, 8192)),
        Preset("3B-hybrid", 3072, 40, 8192, _scale(3072, 96, 12288, state=256)),
    )
}


def preset(name: str) -> Preset:
    """The preset of that name. Raises ValueError naming the nearest."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}: the nearest are {nearest(name, PRESETS)}")
    return PRESETS[name]
