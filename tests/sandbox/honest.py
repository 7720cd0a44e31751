"""Random honest mixers, one for each number: draws from the package's own grammar. None of them cheats."""

from __future__ import annotations

import random

from agents.grammar import draw, source


def honest(number: int) -> str:
    """The source of the mixer with this number."""
    return source(draw(random.Random(number)))
