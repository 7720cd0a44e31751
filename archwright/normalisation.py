"""Normalised scores: what a score is worth between the worst observed on a task and the reference.

Arithmetic alone; which runs there are is `archwright.submissions`'.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

OPTIMUM = 1.0  # of the score of every task here


def phi(score: float) -> float:
    """-log10 |s - 1|: each nine after the point is worth as much as the one before; infinite at 1."""
    gap = abs(score - OPTIMUM)
    return -math.log10(gap) if gap else math.inf


@dataclass(frozen=True)
class Scale:
    """What 0 and 1 stand for on one task and split, as `phi`; ``reference`` is None where none ran.

    The score of a run s is (phi(s) - phi(worst)) / (phi(reference) - phi(worst)), as in AIRS-Bench (Lupidi
    et al. 2026, arXiv 2602.06855, "normalized score"): the worst is that over all runs and agents. Their
    reference is the literature's best; here it is the best of the recipe's references under the same
    protocol, by the mean of phi over its seeds, so that the mean of its own runs is 1.
    """

    worst: float
    reference: float | None

    @classmethod
    def of(cls, runs: Iterable[float], references: Iterable[Sequence[float]]) -> Scale:
        """The scale of all runs' scores, at least one, and of those of each reference."""
        best = max((fmean(map(phi, scores)) for scores in references), default=None)
        return cls(min(map(phi, runs)), best)

    def mean(self, scores: Sequence[float]) -> float | None:
        """The mean normalised score of some runs; None where `undefined` says why."""
        if self.reference is None or self.undefined(scores):
            return None
        span = self.reference - self.worst
        return fmean((phi(score) - self.worst) / span for score in scores)

    def undefined(self, scores: Sequence[float]) -> str:
        """Why these runs have no normalised score; empty where they have."""
        if self.reference is None:
            return "no reference was measured"
        if math.isinf(self.reference):
            return "the reference scored 1"
        if self.reference <= self.worst:
            return "the reference is the worst observed"
        return "a run scored 1" if any(math.isinf(phi(score)) for score in scores) else ""
