"""What a written file may set of its training and size: `SETTINGS = {"lr": 3e-3, "depth": 3, "width": 64}`.

Read from the source as a literal; the file is not run for it. Whether a campaign allows it, and what a
model may cost then, is the caller's.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from evaluator.train import Training
from search_space.pattern import Layer, Pattern, nearest
from search_space.presets import Preset

NAME = "SETTINGS"
# As authors are told it, where a campaign allows it.
RULES = """The file may also set its training's learning rate and its model's size, by one literal at its top
level, any of

    SETTINGS = {"lr": 3e-3, "depth": 3, "width": 64}

lr from 1e-5 to 0.1; depth, from 1 to 32, how often the pattern's repeating unit stands in it; width, which is
d_model, a multiple of 16 from 16 to 1024. The whole model must stay within the parameters and FLOPs per token
that it has at the recipe's own depth and width."""
RANGES: dict[str, tuple[type, float, float]] = {
    "lr": (float, 1e-5, 1e-1),  # the highest learning rate of the schedule
    "depth": (int, 1, 32),  # how often the pattern's shortest repeating unit stands in it
    "width": (int, 16, 1024),
}
STEP = 16  # widths are its multiples


@dataclass(frozen=True)
class Settings:
    """What a file sets; None is what the recipe has."""

    lr: float | None = None
    depth: int | None = None
    width: int | None = None

    def __str__(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.given.items())

    @property
    def given(self) -> dict[str, float]:
        """Only what is set."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def pattern(self, pattern: Pattern) -> Pattern:
        """The pattern at this depth. Raises ValueError for one too deep, or with shared weights."""
        return pattern if self.depth is None else Pattern(_copies(unit(pattern), self.depth))

    def size(self, size: Preset) -> Preset:
        """The preset at this width."""
        return size if self.width is None else replace(size, width=self.width)

    def training(self, training: Training) -> Training:
        """The training at this learning rate."""
        return training if self.lr is None else replace(training, lr=self.lr)


def _copies(layers: tuple[Layer, ...], count: int) -> tuple[Layer, ...]:
    return tuple(replace(layer, weights=i) for i, layer in enumerate(count * layers))


def unit(pattern: Pattern) -> tuple[Layer, ...]:
    """The shortest unit that a pattern repeats. Raises ValueError for one with shared weights."""
    layers = pattern.layers
    if len({layer.weights for layer in layers}) < len(layers):
        raise ValueError(f"pattern {pattern}: its depth cannot be set where layers share weights")
    texts = [str(layer) for layer in layers]
    sizes = (n for n in range(1, len(texts) + 1) if texts[:n] * (len(texts) // n) == texts)
    return layers[: next(sizes)]


def read(source: str) -> Settings:
    """The settings of a source; none where it has none or does not parse, which the gate finds.

    Raises ValueError for anything but one literal dictionary of known keys within their ranges.
    """
    try:
        found = list(_assigned(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Settings()
    if not found:
        return Settings()
    try:
        [node] = found
        values = ast.literal_eval(node) if node else None
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{NAME} must be set once, to a literal such as {{'lr': 0.003}}: write so")
    return Settings(**{_known(key): _within(key, value) for key, value in values.items()})


def _assigned(tree: ast.Module) -> Iterator[ast.expr | None]:
    """The values that the file's top level gives to the name."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) if name == NAME:
                yield next((v for t, v in _top(tree) if t is node), None)


def _top(tree: ast.Module) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """The targets and values of the top level's assignments."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=targets, value=value):
                yield from ((target, value) for target in targets)
            case ast.AnnAssign(target=target, value=value):
                yield target, value


def _known(key: Any) -> str:
    if key not in RANGES:
        raise ValueError(f"{NAME} has no {key!r}: the nearest are {nearest(str(key), RANGES)}")
    return str(key)


def _within(key: str, value: Any) -> Any:
    kind, low, high = RANGES[key]
    number = type(value) in (int, kind) and low <= value <= high
    if not number or (key == "width" and value % STEP):
        what = "a number" if kind is float else "a whole number"
        rule = f", a multiple of {STEP}" if key == "width" else ""
        raise ValueError(f"{NAME}: {key} is {what} from {low:g} to {high:g}{rule}, not {value!r}")
    return kind(value)
