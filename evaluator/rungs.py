"""Rungs: who trains further. Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934).

A candidate trains up to the lowest rung's share and pauses; the best of a rung go on to the next one,
``eta`` times as far. Pure functions of the results so far: they train nothing and keep no state.

A rung of n results passes its best n // eta, as published. A published rung also drops whoever is a
hair worse, and a hair is noise: here those that cannot be told from the last to pass go on as well,
while fewer than n / sqrt(eta) have, so that every rung still thins out and what rungs cost is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

Scores = Sequence[float]  # of one candidate, one number per objective


def shares(count: int, eta: int) -> tuple[Fraction, ...]:
    """The share of the full training after which each of ``count`` rungs scores; the last is 1."""
    return tuple(Fraction(1, eta**k) for k in reversed(range(count)))


def quota(results: int, eta: int) -> int:
    """How many of a rung's results pass whatever the noise."""
    return results // eta


def most(results: int, eta: int) -> int:
    """How many of a rung's results pass when noise hides the order: the floor of n / sqrt(eta)."""
    return math.isqrt(results**2 // eta)


@dataclass(frozen=True)
class Promotion:
    """A paused candidate that goes on, and why: its ``place``, from 1, among ``results`` is within the
    ``quota``, or it is ``tied`` with the ``last`` of the quota and fewer than ``most`` went on so far."""

    candidate: int
    place: int
    results: int
    quota: int
    most: int
    tied: bool
    last: Scores


def promotable(
    results: Mapping[int, Scores | None],
    promoted: Collection[int],
    eta: int,
    noise: Scores,
    maximise: Sequence[bool] = (True,),
) -> list[Promotion]:
    """Who of a rung goes on now, best first.

    ``results`` are its candidates, older first: their scores, or None for one that failed, which
    counts but never passes. ``promoted`` went on before. ``noise`` is, for each objective, how far
    apart two scores must be to be told apart. Of several objectives the non-dominated rank counts.
    """
    scored = {key: scores for key, scores in results.items() if scores is not None}
    rank = dict(zip(scored, fronts(list(scored.values()), maximise), strict=True))
    order = sorted(scored, key=rank.__getitem__)  # stable: the older of equals first
    sure, bound = quota(len(results), eta), most(len(results), eta)
    best, rest = order[:sure], order[sure:]
    last = [scored[key] for key in best if rank[key] == rank[best[-1]]]
    tied = [key for key in rest if last and _tied(scored[key], last, noise, maximise)]
    room = max(0, bound - len({*promoted, *best}))
    passing = [key for key in best if key not in promoted]
    passing += [key for key in tied if key not in promoted][:room]
    places = {key: place for place, key in enumerate(order, start=1)}
    return [
        Promotion(key, places[key], len(results), sure, bound, places[key] > sure, last[-1])
        for key in passing
    ]


def _tied(scores: Scores, last: Sequence[Scores], noise: Scores, maximise: Sequence[bool]) -> bool:
    """Whether none of the last to pass would still dominate these scores, were they luckier."""
    lucky = [
        x + margin if up else x - margin
        for x, margin, up in zip(scores, noise, maximise, strict=True)
    ]
    return not any(dominates(other, lucky, maximise) for other in last)


def dominates(one: Scores, two: Scores, maximise: Sequence[bool]) -> bool:
    """Whether ``one`` is nowhere worse than ``two`` and somewhere better."""
    signed = [(a, b) if up else (-a, -b) for a, b, up in zip(one, two, maximise, strict=True)]
    return all(a >= b for a, b in signed) and any(a > b for a, b in signed)


def fronts(points: Sequence[Scores], maximise: Sequence[bool]) -> list[int]:
    """The non-dominated rank of each point, from 0: Deb's fast sort (2002, NSGA-II, section III-A).

    A point's rank is one more than the largest among those that dominate it.
    """
    if len(maximise) == 1:  # the same in n log n, not n squared: distinct values are the fronts
        values = sorted({point[0] for point in points}, reverse=maximise[0])
        ranks = {value: rank for rank, value in enumerate(values)}
        return [ranks[point[0]] for point in points]
    below = [[j for j, q in enumerate(points) if dominates(p, q, maximise)] for p in points]
    above = [0] * len(points)
    for j in (j for dominated in below for j in dominated):
        above[j] += 1
    return _peel(below, above)


def _peel(below: Sequence[Sequence[int]], above: list[int]) -> list[int]:
    """Take off one front after another: those that nobody left dominates."""
    ranks, front, rank = [0] * len(above), [j for j, count in enumerate(above) if not count], 0
    while front:
        later = []
        for i in front:
            ranks[i] = rank
            for j in below[i]:
                above[j] -= 1
                if not above[j]:
                    later.append(j)
        front, rank = later, rank + 1
    return ranks
