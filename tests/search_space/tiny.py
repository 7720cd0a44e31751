"""What the tests of the search space share: a tiny preset and every primitive under it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from search_space.model import make_primitives
from search_space.ops.attention import KV
from search_space.pattern import Pattern
from search_space.presets import Preset
from search_space.primitives import Primitive

WIDTH = 32
TINY = Preset(
    "tiny",
    WIDTH,
    2,
    64,
    {
        **{code: {"head": 8} for code in ("A", "La", "Xa", "L", "G", "R", "D", "Mb")},
        "W": {"head": 8, "window": 8},
        "Mb": {"head": 8, "expand": 1.5, "state": 4},
        "Ms": {"expand": 1.25, "state": 4},
        "E": {"experts": 4, "topk": 2, "ratio": 0.5},
    },
)
# Every primitive as its preset has it, and with the options that change what it computes.
CASES = [
    "A", "A{kv=2,qk_norm=true}", "A{heads=2,head=16}", "W", "W{sink=3,window=5}", "La",
    "La{rank=6,qk_norm=true}", "Xa", "M", "M{act=swiglu,hidden=20}", "E", "E{topk=1,act=swiglu}",
    "Mb", "Mb{groups=3,conv=1}", "Ms", "Ms{rank=3,state=16}", "L", "G", "G{key_ratio=1}", "R",
    "D", "D{gated=true}", "H", "H{order=3,filter=4}",
]  # fmt: skip


def make(text: str, dtype: torch.dtype = torch.float64) -> Primitive:
    """The primitive of a one-layer text; an `Xa` reads the keys and values of an `A`."""
    torch.manual_seed(0)
    source = [Pattern.parse("A").layers[0]] if text.startswith("Xa") else []
    layers = [*source, *Pattern.parse(text).layers]
    return make_primitives(Pattern(tuple(_numbered(layers))), TINY)[-1].to(dtype)


def _numbered(layers: list[Any]) -> list[Any]:
    return [type(x)(x.code, x.options, x.parts, i) for i, x in enumerate(layers)]


def source_kv(primitive: Primitive, batch: int, length: int) -> KV | None:
    """Random keys and values for a primitive that reads another layer's, else None."""
    if primitive.code != "Xa":
        return None
    generator = torch.Generator().manual_seed(1)
    shape = (2, batch, 4, length, 8)
    keys, values = torch.randn(shape, generator=generator, dtype=torch.float64)
    return KV(keys, values)


def run(primitive: Primitive, x: Tensor, kv: KV | None = None) -> Tensor:
    return primitive.forward_kv(x, kv)[0]


def decode(primitive: Primitive, x: Tensor, kv: KV | None = None) -> tuple[Tensor, Any]:
    """The outputs of one step after another over x (B, L, D), and the state after them."""
    state, outputs = primitive.init_state(x.shape[0]), []
    for t, token in enumerate(x.unbind(1), 1):
        seen = kv and KV(kv.keys[:, :, :t], kv.values[:, :, :t])
        y, state, _ = primitive.step_kv(token, state, seen)
        outputs.append(y)
    return torch.stack(outputs, 1), state


def elements(state: Any) -> int:
    """Elements of all tensors of a state."""
    if isinstance(state, Tensor):
        return state.numel()
    if isinstance(state, tuple | list):
        return sum(elements(part) for part in state)
    return 0


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> bool:
    """Whether the largest difference is within ``tolerance`` of the largest element."""
    return bool((a - b).abs().max() <= tolerance * (1e-3 + b.abs().max()))
