"""Primitives that someone has written: known here by code, title and measured cost, never by their source.

Each stands in a catalogue as any other does, so that patterns with it are read, drawn, mutated and costed.
It cannot run: a written source runs in the sandbox alone, and that is not in this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from search_space.model import Catalogue
from search_space.primitives import CATALOGUE, Cost, Primitive


@dataclass(frozen=True)
class Written:
    """``identity`` is a hash of the source; ``cost`` was measured at this width and length."""

    code: str
    title: str
    identity: str
    cost: Cost
    width: int
    length: int


def catalogue(written: Sequence[Written]) -> Catalogue:
    """The catalogue with these beside its own."""
    return {**CATALOGUE, **{one.code: stand_in(one) for one in written}}


@lru_cache(maxsize=64)
def stand_in(written: Written) -> type[Primitive]:
    """What stands in a catalogue: the cost, and nothing to compute."""

    class StandIn(Primitive):
        code, title, source = written.code, written.title, "ledger"

        def __init__(self, d_model: int) -> None:
            super().__init__()
            self._hold("width", written.width, d_model)

        def cost(self, length: int) -> Cost:
            self._hold("length", written.length, length)
            return written.cost

        def _hold(self, what: str, measured: int, asked: int) -> None:
            if asked != measured:
                raise ValueError(
                    f"written primitive {self.code} was measured at {what} {measured}, not {asked}: it "
                    "stands in no fusion and at no other size"
                )

    return StandIn
