"""The space a campaign searches: which primitives, how many layers, at which preset.

Checks patterns against itself with errors a model can act on. It draws and mutates nothing: that is
the proposers' work.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from search_space.model import Catalogue, layer_cost, pattern_cost
from search_space.pattern import Layer, Pattern, PatternError
from search_space.presets import preset
from search_space.primitives import Cost
from search_space.written import Written, catalogue


@dataclass(frozen=True)
class Space:
    """Patterns over ``codes`` of ``smallest`` to ``largest`` layers, built at ``preset``; what codes beyond
    the catalogue's stand for is ``written``.

    Without ``options`` every layer has the preset's sizes: nobody wins by a wider layer.
    """

    codes: tuple[str, ...]
    smallest: int
    largest: int
    preset: str
    options: bool = False
    written: tuple[Written, ...] = ()

    @property
    def primitives(self) -> Catalogue:
        """What codes stand for: the catalogue's and the written ones, in the space or not."""
        return catalogue(self.written)

    def read(self, text: str) -> Pattern:
        """The pattern of ``text``. Raises PatternError, naming the rule and the way out."""
        pattern = Pattern.parse(text, self.codes)
        if not self.smallest <= len(pattern) <= self.largest:
            raise PatternError(
                f"pattern {text!r} has {len(pattern)} layers: this space takes "
                f"{self.smallest} to {self.largest}"
            )
        sized = next((x for x in pattern.layers if not self.options and _has_options(x)), None)
        if sized is not None:
            raise PatternError(
                f"pattern {text!r} gives options to {sized}: this space has fixed sizes, write the "
                "code alone"
            )
        try:
            self.cost(pattern)
        except ValueError as error:
            raise PatternError(f"pattern {text!r}: {error}") from error
        return pattern

    def cost(self, pattern: Pattern) -> Cost:
        """The pattern's cost at the preset."""
        return _cost(pattern, self.preset, self.written)

    def catalogue(self) -> list[dict[str, object]]:
        """One row per primitive of the space: code, title, options and the cost of one layer."""
        known = self.primitives
        return [
            {
                "code": code,
                "title": known[code].title,
                "options": sorted(known[code].options()) if self.options else [],
                "cost": _layer_cost(code, self.preset, self.written),
            }
            for code in self.codes
        ]


@lru_cache(maxsize=4096)  # to cost a pattern is to build it, and proposers draw the same ones again
def _cost(pattern: Pattern, name: str, written: tuple[Written, ...]) -> Cost:
    return pattern_cost(pattern, preset(name), catalogue=catalogue(written))


@lru_cache(maxsize=64)  # every prompt lists them
def _layer_cost(code: str, name: str, written: tuple[Written, ...]) -> Cost:
    return layer_cost(Layer(code), preset(name), catalogue=catalogue(written))


def _has_options(layer: Layer) -> bool:
    """Whether a layer, or a member of a fusion, has options of its own; `fuse=` changes no size."""
    return any(_has_options(part) or part.options for part in layer.parts) or (
        not layer.parts and bool(layer.options)
    )
