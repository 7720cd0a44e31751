"""What the gate asks a candidate's process to do, and what comes back. Pure data; runs nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

Weights = Literal["initial", "moved", "pattern"]
How = Literal["forward", "repeat", "gradient", "backward", "step", "work", "weights"]


@dataclass(frozen=True)
class Build:
    """The mixer of one process.

    ``weights``: as the seed gives them, disturbed by seeded noise (so that nothing is hidden behind a
    parameter that starts at zero), or a pattern of their shape alone (so that renamed copies agree).
    ``clock`` is added to the process's clock, in seconds; ``watch`` looks for tampering at the end.
    """

    width: int = 32
    max_len: int = 96
    seed: int = 0
    weights: Weights = "moved"
    clock: float = 0.0
    watch: bool = False


@dataclass(frozen=True)
class Call:
    """One call of the mixer, its outputs under ``name``.

    ``x`` names its input (B, L, D). In training mode gradients are on, else off. ``more`` is the
    positions of a `gradient`, the number of calls of a `repeat`.
    """

    name: str
    how: How = "forward"
    x: str = "x"
    training: bool = False
    bf16: bool = False
    more: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Errand:
    """All that one process is asked."""

    build: Build
    calls: tuple[Call, ...]
    inputs: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """What a process answered beside its tensors: facts by call, errors by call, and of the whole.

    ``error`` is what kept it from constructing the mixer, or the sandbox from ending well.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    tampered: tuple[str, ...] = ()
    error: str = ""
