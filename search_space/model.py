"""Builds a pattern: embedding, pre-norm residual blocks, a final norm and an untied head.

Positions are known only through the primitives (RoPE, recurrence); there is no positional embedding.
Trains nothing and knows no task: a task may bring its own head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from search_space.ops.attention import KV
from search_space.pattern import Layer, Pattern
from search_space.presets import Preset
from search_space.primitives import CATALOGUE, Cost, Primitive
from search_space.primitives.norm import Norm


class Fusion(Primitive):
    """`[A|Mb]`: primitives side by side on the same input at divided width (arXiv 2510.04800).

    Each part reads a projection of the input to D / parts, has a group norm (one group per sequence
    position) and an output projection of its own; ``fuse`` adds, subtracts or concatenates them.
    Keys and values of a part stay inside: a later `Xa` reads those of the layer before the fusion.
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
        self.norms = nn.ModuleList(Norm(inner) for _ in parts)
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
        norms = sum(m.weight.numel() for m in self.norms if isinstance(m, Norm))
        own = Cost(weights + norms, 2 * weights, 0, 2 * weights, weights + norms)
        return sum((part.cost(length) for part in self._parts()), own)


Catalogue = Mapping[str, type[Primitive]]


def make_primitive(
    layer: Layer, d_model: int, preset: Preset, catalogue: Catalogue = CATALOGUE
) -> Primitive:
    """The module of one layer. Raises ValueError for options the primitive refuses."""
    if layer.parts:
        inner = d_model // len(layer.parts)
        parts = [make_primitive(part, inner, preset, catalogue) for part in layer.parts]
        for part in parts:
            part.attach(None)  # raises ValueError from a part that reads another layer
        Fusion.check_options(layer.options)
        return Fusion(parts, d_model, **dict(layer.options))  # type: ignore[arg-type]
    kind = catalogue[layer.code]
    kind.check_options(layer.options)
    return kind(d_model, **{**preset.defaults.get(layer.code, {}), **dict(layer.options)})


def make_primitives(
    pattern: Pattern, preset: Preset, catalogue: Catalogue = CATALOGUE
) -> list[Primitive]:
    """One module for each copy of weights, told in order of application whose keys and values it reads.

    ``catalogue`` says what the pattern's codes mean, a written module's among them. Raises ValueError
    naming the layer for an option that a primitive refuses, or an `Xa` with nothing to read.
    """
    made: dict[int, Primitive] = {}
    source = None
    for number, layer in enumerate(pattern.layers, 1):
        try:
            if layer.weights not in made:
                made[layer.weights] = make_primitive(layer, preset.width, preset, catalogue)
            source = made[layer.weights].attach(source)
        except ValueError as error:
            raise ValueError(f"layer {number} ({layer}): {error}") from error
    return list(made.values())


class Block(nn.Module):
    """x + primitive(norm(x)), handing the nearest attention layer's keys and values on."""

    def __init__(self, primitive: Primitive, width: int) -> None:
        super().__init__()
        self.norm = Norm(width)
        self.primitive = primitive

    def forward(self, x: Tensor, kv: KV | None = None) -> tuple[Tensor, KV | None]:
        y, kv = self.primitive.forward_kv(self.norm(x), kv)
        return x + y, kv

    def step(self, x: Tensor, state: Any, kv: KV | None) -> tuple[Tensor, Any, KV | None]:
        """One token x (B, D) and the primitive's state to the same after it."""
        y, state, kv = self.primitive.step_kv(self.norm(x), state, kv)
        return x + y, state, kv


class Model(nn.Module):
    """Token ids (B, L) to logits (B, L, vocab); layers that share weights share one block."""

    def __init__(
        self,
        pattern: Pattern,
        preset: Preset,
        vocab: int,
        head: nn.Module | None = None,
        catalogue: Catalogue = CATALOGUE,
    ) -> None:
        """``head`` maps (B, L, D) to logits; by default an untied linear layer.

        Raises ValueError as `make_primitives` does.
        """
        super().__init__()
        self.embedding = nn.Embedding(vocab, preset.width)
        self.blocks = nn.ModuleList(
            Block(primitive, preset.width)
            for primitive in make_primitives(pattern, preset, catalogue)
        )
        self.order = [layer.weights for layer in pattern.layers]
        self.norm = Norm(preset.width)
        self.head = head or nn.Linear(preset.width, vocab, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """Normal embeddings of unit size: the first norm then sees tokens, not round-off."""
        nn.init.normal_(self.embedding.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.hidden(tokens)))

    def hidden(self, tokens: Tensor) -> Tensor:
        """The residual stream after the last layer, (B, L) to (B, L, D); in autocast of its type."""
        x, kv = self.embedding(tokens), None
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        for i in self.order:
            x, kv = self.blocks[i](x, kv)
        return x

    def init_state(self, batch: int) -> list[Any]:
        """The state before the first token, one entry per layer: shared weights do not share it."""
        return [block.primitive.init_state(batch) for block in self._applied()]

    def step(self, tokens: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        """One decoding step: token ids (B) and the state to logits (B, vocab) and the next state."""
        x, kv, after = self.embedding(tokens), None, []
        for block, before in zip(self._applied(), state, strict=True):
            x, new, kv = block.step(x, before, kv)
            after.append(new)
        return self.head(self.norm(x)[:, None])[:, 0], after

    def balance_loss(self) -> Tensor | float:
        """Sum of the load-balance losses of the latest forward pass in training; 0 without an `E`."""
        losses = (getattr(module, "balance_loss", None) for module in self.blocks.modules())
        return sum(loss for loss in losses if loss is not None)

    def _applied(self) -> list[Block]:
        blocks = [block for block in self.blocks if isinstance(block, Block)]
        return [blocks[i] for i in self.order]


def layer_cost(
    layer: Layer, preset: Preset, length: int | None = None, catalogue: Catalogue = CATALOGUE
) -> Cost:
    """Cost of one layer by itself, without its norm; an `Xa` as if it read an `A` with as many heads.

    ``length`` defaults to the preset's. Raises ValueError for options that the primitive refuses.
    """
    with torch.device("meta"):
        primitive = make_primitive(layer, preset.width, preset, catalogue)
        return primitive.cost(length or preset.length)


def pattern_cost(
    pattern: Pattern, preset: Preset, length: int | None = None, catalogue: Catalogue = CATALOGUE
) -> Cost:
    """Cost of the layers, their norms and the final norm; embedding and head are excluded.

    ``length`` defaults to the preset's. Shared weights count once in the parameters and every time in
    all else. Raises ValueError as `make_primitives` does.
    """
    with torch.device("meta"):
        primitives = make_primitives(pattern, preset, catalogue)
    costs = [primitive.cost(length or preset.length) for primitive in primitives]
    applied = [costs[layer.weights] for layer in pattern.layers]
    return Cost(
        params=sum(c.params for c in costs) + preset.width * (len(costs) + 1),
        flops_per_token=sum(c.flops_per_token for c in applied),
        state=sum(c.state for c in applied),
        step_flops=sum(c.step_flops for c in applied),
        step_reads=sum(c.step_reads for c in applied) + preset.width * (len(applied) + 1),
    )
