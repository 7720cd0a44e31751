"""Iso-budget: the width at which a pattern meets a target in parameters, FLOPs per token or state bytes.

Changes nothing but the width: depth, head sizes and the options of the pattern stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from search_space.model import Catalogue, make_primitives, pattern_cost
from search_space.pattern import Layer, Pattern
from search_space.presets import Preset
from search_space.primitives import CATALOGUE, Primitive

Kind = Literal["params", "flops_per_token", "state_bytes"]
MAX_WIDTH = 1 << 15
TOLERANCE = 0.01


@dataclass(frozen=True)
class Budget:
    """A target for the layers and norms, without embedding and head; state in bytes of two-byte numbers.

    ``length`` is the context length of FLOPs and state, by default the preset's.
    """

    kind: Kind
    target: float
    length: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or self.target <= 0:
            raise ValueError(
                f"a budget is a positive number of {', '.join(get_args(Kind))}, not {self.target:g} "
                f"{self.kind}: change the recipe's budget"
            )

    def spent(self, pattern: Pattern, preset: Preset, catalogue: Catalogue = CATALOGUE) -> float:
        """What the pattern costs at the preset, in the budget's kind."""
        cost = pattern_cost(pattern, preset, self.length, catalogue)
        return cost.state_bytes() if self.kind == "state_bytes" else getattr(cost, self.kind)


def solve_width(
    pattern: Pattern, preset: Preset, budget: Budget, catalogue: Catalogue = CATALOGUE
) -> int:
    """The width, a multiple of the head sizes, whose cost is nearest to the target and within 1%.

    Raises ValueError, naming the nearest widths, when there is none, and as `make_primitives` does for
    a pattern that fits no width; a written primitive has a cost at the width where it was measured only.
    """
    step = _step(pattern, preset, catalogue)

    def cost(n: int) -> float:
        sized = replace(preset, width=n * step)
        return budget.spent(pattern, sized, catalogue) if n else 0.0

    low, high = 0, 1
    while cost(high) < budget.target:
        low, high = high, 2 * high
        if high * step > MAX_WIDTH:
            raise _out_of_reach(budget, low * step, cost(low))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) < budget.target else (low, middle)
    found = {n * step: cost(n) for n in (low, high) if n}
    best = min(found, key=lambda width: abs(found[width] - budget.target))
    if abs(found[best] - budget.target) > TOLERANCE * budget.target:
        raise _between(budget, step, found)
    return best


def _step(pattern: Pattern, preset: Preset, catalogue: Catalogue) -> int:
    """The smallest width that every layer accepts: what they ask for is that something divides it.

    So its multiples are accepted, too. Raises the ValueError of the first try when 64 do not do.
    """
    base = math.lcm(*(n for layer in pattern.layers for n in _divisors(layer, preset, catalogue)))
    refused = None
    for n in range(1, 65):
        try:
            with torch.device("meta"):
                make_primitives(pattern, replace(preset, width=n * base), catalogue)
        except ValueError as error:
            refused = refused or error
        else:
            return n * base
    assert refused is not None
    raise refused


def _divisors(layer: Layer, preset: Preset, catalogue: Catalogue, parts: int = 1) -> Iterator[int]:
    """The head sizes of a layer or of a fusion's parts; a part has its share of the width only."""
    for part in layer.parts:
        yield from _divisors(part, preset, catalogue, len(layer.parts))
    if layer.code:
        options = {**preset.defaults.get(layer.code, {}), **dict(layer.options)}
        head = options.get("head", _default_head(catalogue[layer.code]))
        yield parts * head if isinstance(head, int) else parts


def _default_head(kind: type[Primitive]) -> int:
    default = getattr(kind.__init__, "__kwdefaults__", None) or {}
    return default.get("head", 1)


def _out_of_reach(budget: Budget, width: int, cost: float) -> ValueError:
    return ValueError(
        f"no width up to {MAX_WIDTH} reaches {budget.target:,.0f} {budget.kind}: width {width} has "
        f"{cost:,.0f}; lower the budget, or free the options that fix a size"
    )


def _between(budget: Budget, step: int, found: dict[int, float]) -> ValueError:
    near = " and ".join(
        f"width {width} ({cost:,.0f}, {cost / budget.target - 1:+.1%})"
        for width, cost in found.items()
    )
    return ValueError(
        f"no width meets {budget.target:,.0f} {budget.kind} within {TOLERANCE:.0%}: widths are multiples "
        f"of {step}, the nearest {near}; change the budget or take smaller heads"
    )
