"""`map-elites`: the best of each cell of a grid of costs are the parents (arXiv 1504.04909)."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from agents.scaffolds.base import Decision, check_positive
from storage.records import Node, View

Cell = tuple[int, int]


@dataclass(frozen=True)
class MapElites:
    """``drafts`` drafts first; then the elite of a cell drawn uniformly among those filled is improved.

    The grid is over FLOPs per token and state bytes, each in logarithmic bins, ``bins`` to a doubling.
    So a candidate's cell depends on itself alone, and an elite stays one until it is beaten in its cell;
    bins by quantile would move under it. Four to a doubling gave 18 cells among 100 random patterns of
    6 to 8 layers at preset `mini` over A, M, Mb, and 9 at `small` with 16 layers.
    """

    drafts: int = 5
    bins: int = 4

    def __post_init__(self) -> None:
        check_positive(bins=self.bins)

    def next(self, view: View, rng: random.Random) -> Decision:
        elites = self.elites(view)
        if view.turn < self.drafts or not elites:
            return Decision("draft", (), f"draft {view.turn + 1}, {len(elites)} cells so far")
        cell = rng.choice(list(elites))
        elite = elites[cell]
        reason = f"slot {elite.slot} is the elite of cell {cell}, one of {len(elites)}"
        return Decision("improve", (elite,), reason)

    def elites(self, view: View) -> dict[Cell, Node]:
        """The best node of each cell, the earlier of equals."""
        elites: dict[Cell, Node] = {}
        for node in view.scored:
            cell = self.cell(node)
            if cell not in elites or node.standing > elites[cell].standing:
                elites[cell] = node
        return elites

    def cell(self, node: Node) -> Cell:
        """The node's bins of FLOPs per token and of state bytes."""
        return self._bin(node.flops_per_token), self._bin(node.state_bytes)

    def _bin(self, cost: float) -> int:
        return math.floor(self.bins * math.log2(1 + cost))  # an MLP has no state: no log of 0
