"""Builds a pattern: embedding, pre-norm residual blocks, a final norm and an untied head.

Positions are known only through the primitives (RoPE, recurrence); there is no positional embedding.
Trains nothing and knows no task: a task may bring its own head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_space.pattern import Layer, Pattern
from search_space.presets import Preset
from search_space.primitives import CATALOGUE, Cost, Primitive


class Fusion(Primitive):
    """`[A|Mb]`: primitives side by side on the same input at divided width (arXiv 2510.04800).

    Each part reads a projection of the input to D / parts, has a group norm (one group per sequence
    position) and an output projection of its own; ``fuse`` adds, subtracts or concatenates them.
    """

    code, title, source = "", "intra-layer fusion", "2510.04800"

    def __init__(self, parts: list[Primitive], d_model: int, *, fuse: str = "add") -> None:
        super().__init__()
        if fuse not in ("add", "sub", "concat") or d_model % len(parts):
            raise ValueError(
                f"a fusion of {len(parts)} parts needs a width they divide and fuse=add, sub or concat, "
                f"not width {d_model} and fuse={fuse}"
            )
        inner = d_model // len(parts)
        self.fuse, self.parts = fuse, nn.ModuleList(parts)
        self.split = nn.ModuleList(nn.Linear(d_model, inner, bias=False) for _ in parts)
        self.norms = nn.ModuleList(nn.RMSNorm(inner) for _ in parts)
        out = inner if fuse == "concat" else d_model
        self.out = nn.ModuleList(nn.Linear(inner, out, bias=False) for _ in parts)

    def forward(self, x: Tensor) -> Tensor:
        return self._fuse(
            [part(split(x)) for part, split in zip(self.parts, self.split, strict=True)]
        )

    def init_state(self, batch: int) -> list[object]:
        return [part.init_state(batch) for part in self._parts()]

    def step(self, x: Tensor, state: list[object]) -> tuple[Tensor, list[object]]:
        inputs = [split(x) for split in self.split]
        results = [p.step(i, s) for p, i, s in zip(self._parts(), inputs, state, strict=True)]
        return self._fuse([y for y, _ in results]), [s for _, s in results]

    def _parts(self) -> list[Primitive]:
        return [part for part in self.parts if isinstance(part, Primitive)]

    def _fuse(self, ys: list[Tensor]) -> Tensor:
        ys = [out(norm(y)) for out, norm, y in zip(self.out, self.norms, ys, strict=True)]
        if self.fuse == "concat":
            return torch.cat(ys, dim=-1)
        first, *rest = ys
        return first + sum(rest) if self.fuse == "add" else first - sum(rest)

    def cost(self, length: int) -> Cost:
        weights = sum(
            m.weight.numel() for m in (*self.split, *self.out) if isinstance(m, nn.Linear)
        )
        norms = sum(m.weight.numel() for m in self.norms if isinstance(m, nn.RMSNorm))
        own = Cost(weights + norms, 2 * weights, 0)
        return sum((part.cost(length) for part in self._parts()), own)


def make_primitive(layer: Layer, d_model: int, preset: Preset) -> Primitive:
    """The module of one layer. Raises ValueError for options the primitive refuses."""
    if layer.parts:
        inner = d_model // len(layer.parts)
        parts = [make_primitive(part, inner, preset) for part in layer.parts]
        Fusion.check_options(layer.options)
        return Fusion(parts, d_model, **dict(layer.options))  # type: ignore[arg-type]
    kind = CATALOGUE[layer.code]
    kind.check_options(layer.options)
    return kind(d_model, **{**preset.defaults.get(layer.code, {}), **dict(layer.options)})


class Block(nn.Module):
    """x + primitive(norm(x))."""

    def __init__(self, layer: Layer, preset: Preset) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(preset.width)
        self.primitive = make_primitive(layer, preset.width, preset)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.primitive(self.norm(x))


class Model(nn.Module):
    """Token ids (B, L) to logits (B, L, vocab); layers that share weights share one block."""

    def __init__(
        self, pattern: Pattern, preset: Preset, vocab: int, head: nn.Module | None = None
    ) -> None:
        """``head`` maps (B, L, D) to logits; by default an untied linear layer.

        Raises ValueError for an option that a primitive refuses.
        """
        super().__init__()
        self.embedding = nn.Embedding(vocab, preset.width)
        copies = {layer.weights: layer for layer in pattern.layers}
        self.blocks = nn.ModuleList(Block(copies[i], preset) for i in range(len(copies)))
        self.order = [layer.weights for layer in pattern.layers]
        self.norm = nn.RMSNorm(preset.width)
        self.head = head or nn.Linear(preset.width, vocab, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """Normal embeddings of unit size: the first norm then sees tokens, not round-off."""
        nn.init.normal_(self.embedding.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.hidden(tokens)))

    def hidden(self, tokens: Tensor) -> Tensor:
        """The residual stream after the last layer, (B, L) to (B, L, D)."""
        x = self.embedding(tokens)
        for i in self.order:
            x = self.blocks[i](x)
        return x


def pattern_cost(pattern: Pattern, preset: Preset, length: int | None = None) -> Cost:
    """Cost of the layers, their norms and the final norm; embedding and head are excluded.

    ``length`` defaults to the preset's. Shared weights count once in the parameters and every time in
    FLOPs and state. Raises ValueError for an option that a primitive refuses.
    """
    with torch.device("meta"):
        primitives = {x.weights: make_primitive(x, preset.width, preset) for x in pattern.layers}
    costs = {i: p.cost(length or preset.length) for i, p in primitives.items()}
    norms = preset.width * (len(primitives) + 1)
    return Cost(
        params=sum(c.params for c in costs.values()) + norms,
        flops_per_token=sum(costs[x.weights].flops_per_token for x in pattern.layers),
        state=sum(costs[x.weights].state for x in pattern.layers),
    )
