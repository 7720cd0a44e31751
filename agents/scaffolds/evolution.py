"""`evolution`: islands, softmax parent choice, crossover, optional ring migration (arXiv 2507.02554).

Not regularised evolution, which is `tournament`; and which child is made is the proposer's.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from agents.scaffolds.base import Decision, check_positive
from agents.scaffolds.values import values
from storage.records import Node, View

Islands = list[list[Node]]


@dataclass(frozen=True)
class Evolution:
    """``generation`` drafts, then children of parents drawn by softmax at ``temperature``.

    Turn t is island t mod ``islands``'s: its parents are drawn there and its child belongs there. The
    agent's t-th node is that of turn t, so membership follows from the view alone. (Only with
    `reproducible: false`, where results come out of order, may a node count for a neighbour of its
    parents' island until the slots before it are complete.) An island without members drafts.

    A child enters its island if its score is at least the mean of the members at its rung, a draft always.
    The softmax is over `values` of the scores, normalised over all islands. From generation
    ``crossover_from`` on, with probability ``crossover``, the child has two different parents. Every
    ``migrate_every`` generations the best of each island is copied to the next one, the last one's to the
    first; 0 is never. The published defaults are one island, 5 a generation, T = 1, crossover .5 from
    generation 2, no migration.
    """

    islands: int = 1
    generation: int = 5
    temperature: float = 1.0
    crossover: float = 0.5
    crossover_from: int = 2
    migrate_every: int = 0

    def __post_init__(self) -> None:
        check_positive(
            islands=self.islands, generation=self.generation, temperature=self.temperature
        )

    def next(self, view: View, rng: random.Random) -> Decision:
        generation, where = view.turn // self.generation, view.turn % self.islands
        home = self.members(view)[where]
        if generation == 0 or not home:
            why = "founds" if generation == 0 else "nobody lives on"
            return Decision("draft", (), f"generation {generation}: {why} island {where}")
        pair = generation >= self.crossover_from and rng.random() < self.crossover
        parents = self._parents(home, view, 2 if pair and len(home) > 1 else 1, rng)
        slots = " and ".join(str(parent.slot) for parent in parents)
        reason = f"generation {generation}: slot {slots} of {len(home)} on island {where}"
        return Decision("crossover" if len(parents) == 2 else "improve", parents, reason)

    def members(self, view: View) -> Islands:
        """Who lives on each island: a fold over the agent's nodes."""
        islands: Islands = [[] for _ in range(self.islands)]
        for turn, node in enumerate(view.nodes):
            if self._migrates(turn):
                islands = _migrated(islands)
            home = islands[turn % self.islands]
            if _enters(node, home):
                home.append(node)
        return islands

    def _migrates(self, turn: int) -> bool:
        """Whether a migration comes right before this turn."""
        period = self.migrate_every * self.generation
        return period > 0 and turn > 0 and turn % period == 0

    def _parents(
        self, home: Sequence[Node], view: View, count: int, rng: random.Random
    ) -> tuple[Node, ...]:
        """``count`` different members, each drawn by softmax among those not drawn yet."""
        worth, left, drawn = values(view.nodes), list(home), list[Node]()
        for _ in range(count):
            top = max(
                worth[node.slot] for node in left
            )  # taken off, or a low temperature underflows
            weights = [math.exp((worth[node.slot] - top) / self.temperature) for node in left]
            drawn += rng.choices(left, weights)
            left.remove(drawn[-1])
        return tuple(drawn)


def _migrated(islands: Islands) -> Islands:
    """The islands after the best of each was copied to the next one, unless it lives there already."""
    best = [max(home, key=lambda node: node.standing, default=None) for home in islands]
    guests = [best[-1], *best[:-1]]
    return [
        [*home, guest] if guest is not None and not _lives(guest, home) else home
        for home, guest in zip(islands, guests, strict=True)
    ]


def _enters(node: Node, home: Sequence[Node]) -> bool:
    if node.score is None or _lives(node, home):
        return False
    peers = [x.score for x in home if x.rung == node.rung and x.score is not None]
    return node.operator == "draft" or not peers or node.score >= fmean(peers)


def _lives(node: Node, home: Sequence[Node]) -> bool:
    return any(member.candidate == node.candidate for member in home)
