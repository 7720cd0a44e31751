"""`tournament`: the parent choice of regularised evolution (Real et al. 2019, arXiv 1802.01548).

With proposer `evolution` it is regularised evolution: random drafts, one mutation a child, no crossover.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from agents.scaffolds.base import Decision
from storage.records import View


@dataclass(frozen=True)
class Tournament:
    """Drafts fill the population; then the best of a random sample of the living is improved.

    The living are the latest ``population`` scored nodes: age removes them, not their score. Two things
    differ from the paper: the sample is drawn without replacement, and a candidate found again does not
    become young again, since its score is reused, where the paper trains it anew.
    """

    population: int = 16
    sample: int = 4

    def next(self, view: View, rng: random.Random) -> Decision:
        living = view.scored[-self.population :]
        if view.turn < self.population or not living:
            return Decision("draft", (), f"the population of {self.population} is being filled")
        sample = rng.sample(living, min(self.sample, len(living)))
        best = max(sample, key=lambda node: node.standing)
        return Decision(
            "improve", (best,), f"slot {best.slot} is the best of {len(sample)} sampled"
        )
