"""Every primitive of the catalogue as the source of a `mixer.py`."""

from __future__ import annotations

from search_space.primitives import CATALOGUE

OPTIONS = {
    **dict.fromkeys(("A", "La", "Xa", "L", "G", "R", "D"), "head=8"),
    "W": "head=8, window=8",
    "Mb": "head=8, expand=1.5, state=4",
    "Ms": "expand=1.25, state=4",
    "E": "experts=4, topk=2, ratio=0.5",
    "H": "filter=8, span=64",
}

PLAIN = """
from torch import nn

from {module} import {name}


class Mixer(nn.Module):
    def __init__(self, d_model: int, max_len: int, causal: bool) -> None:
        super().__init__()
        self.inner = {name}(d_model, {options})

    def forward(self, x):
        return self.inner(x)

    def init_state(self, batch):
        return self.inner.init_state(batch)

    def step(self, x, state):
        return self.inner.step(x, state)

    def state_bytes(self, length):
        return 4 * self.inner.cost(length).state
"""

CROSS = """
from torch import nn

from search_space.primitives.attention import Attention
from search_space.primitives.cross_layer import CrossLayerAttention


class Mixer(nn.Module):
    def __init__(self, d_model: int, max_len: int, causal: bool) -> None:
        super().__init__()
        self.source = Attention(d_model, head=8)
        self.reader = CrossLayerAttention(d_model, head=8)
        self.reader.attach(self.source)

    def forward(self, x):
        y, kv = self.source.forward_kv(x, None)
        return y + self.reader.forward_kv(x, kv)[0]
"""


def wrapped(code: str) -> str:
    """The source of a primitive's wrapper; an `Xa` reads the keys and values of an `A` beside it."""
    if code == "Xa":
        return CROSS
    kind = CATALOGUE[code]
    options = OPTIONS.get(code, "")
    return PLAIN.format(module=kind.__module__, name=kind.__name__, options=options)
