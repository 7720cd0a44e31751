"""What a scaffold is: the pure rule that says what to do next, given what has been measured."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, Protocol

from storage.records import Node, View

Operator = Literal["draft", "improve", "crossover", "debug"]


@dataclass(frozen=True)
class Limits:
    """How far a session with tools may go: calls of the model, tokens in and out in all, seconds."""

    turns: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Decision:
    """What the agent does in this slot, starting from which nodes, and why: by one reply, or with ``limits``
    in a session with tools."""

    operator: Operator
    parents: tuple[Node, ...]
    reason: str
    limits: Limits | None = None


def check_positive(**options: float) -> None:
    """Raise ValueError for an option of a scaffold that is not above 0."""
    for name, value in options.items():
        if value <= 0:
            raise ValueError(f"scaffold_options.{name} must be above 0, not {value}: change it")


class Scaffold(Protocol):
    """Stateless: its state is a fold over the view, so that resuming is reading."""

    def next(self, view: View, rng: random.Random) -> Decision:
        """The decision for the slot whose view this is; all its randomness comes from ``rng``."""
        ...
