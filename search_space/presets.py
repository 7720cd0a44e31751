"""Presets: the width, depth and primitive defaults at which a pattern is built.

`small` is the proxy of arXiv 2605.15871 (width 128, 16 layers); `mini` is the same at width 64 for
laptops, with the depth and head size fixed by measurement (docs/log.md). The billion-parameter presets
are not here.
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


_MLP: dict[str, Value] = {
    "ratio": 258 / 128,
    "act": "relu",
}  # hidden 258 at width 128: parameters as four d x d matrices


def _mamba2(head: int) -> dict[str, Value]:
    return {"expand": 1.25, "state": 4, "conv": 4, "groups": 1, "head": head}


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("small", 128, 16, 128, {"A": {"head": 8}, "M": _MLP, "Mb": _mamba2(8)}),
        Preset("mini", 64, 8, 64, {"A": {"head": 16}, "M": _MLP, "Mb": _mamba2(16)}),
    )
}


def preset(name: str) -> Preset:
    """The preset of that name. Raises ValueError naming the nearest."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}: the nearest are {nearest(name, PRESETS)}")
    return PRESETS[name]
