"""Who is best and how sure that is: noise floor, standard errors, ties, search advantage.

Pure arithmetic over scores by candidate and seed. Only sealed scores are called results; the others
are what the search saw, and flatter whoever it chose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` seeds with its standard error, None where no noise is known."""

    mean: float
    stderr: float | None
    n: int


def pooled_deviation(groups: Iterable[Sequence[float]]) -> tuple[float | None, int]:
    """Standard deviation within groups of repeated scores, pooled, and its degrees of freedom.

    (None, 0) when no group has two scores.
    """
    squares, freedom = 0.0, 0
    for group in groups:
        if len(group) > 1:
            mean = math.fsum(group) / len(group)
            squares += math.fsum((x - mean) ** 2 for x in group)
            freedom += len(group) - 1
    return (math.sqrt(squares / freedom), freedom) if freedom else (None, 0)


def estimate(scores: Sequence[float], deviation: float | None) -> Estimate:
    """The mean of some scores; its error from the pooled deviation, which few scores cannot give."""
    n = len(scores)
    stderr = None if deviation is None else deviation / math.sqrt(n)
    return Estimate(math.fsum(scores) / n, stderr, n)


def probability_better(
    one: Estimate, two: Estimate, deviation: float | None, freedom: int
) -> float | None:
    """The probability that ``one`` is truly better than ``two``, by Student's t on the pooled deviation.

    The scores are taken as unpaired, which is cautious where they share seeds. None where no noise is
    known.
    """
    if deviation is None:
        return None
    error = deviation * math.sqrt(1 / one.n + 1 / two.n)
    difference = one.mean - two.mean
    if error == 0:
        return 0.5 if difference == 0 else float(difference > 0)
    return float(stats.t.cdf(difference / error, freedom))


def interval(
    one: Estimate, two: Estimate, deviation: float | None, freedom: int, level: float
) -> tuple[float, float] | None:
    """The two-sided interval of the difference one - two at that level."""
    if deviation is None:
        return None
    error = deviation * math.sqrt(1 / one.n + 1 / two.n)
    reach = float(stats.t.ppf(0.5 + level / 2, freedom)) * error
    difference = one.mean - two.mean
    return difference - reach, difference + reach


@dataclass(frozen=True)
class Standing:
    """A candidate's place. ``sealed`` tells a result from a score that the search saw; ``tied`` that
    it cannot be told from the leader of its kind at the recipe's level."""

    rank: int
    candidate: int
    estimate: Estimate
    sealed: bool
    tied: bool


def standings(
    scores: Mapping[tuple[int, bool], Mapping[int, float]], level: float
) -> list[Standing]:
    """Confirmed candidates first, by sealed score; then the others, by validation score."""
    rows: list[Standing] = []
    for sealed in (True, False):
        confirmed = {row.candidate for row in rows}
        group = {
            candidate: list(values.values())
            for (candidate, kind), values in scores.items()
            if kind == sealed and candidate not in confirmed
        }
        rows += _ranked(group, sealed, level, len(rows), noise(scores, sealed))
    return rows


def noise(
    scores: Mapping[tuple[int, bool], Mapping[int, float]], sealed: bool
) -> tuple[float | None, int]:
    """The pooled deviation over seeds on one split, or over both splits where one has too few."""
    groups = {kind: list(values.values()) for kind, values in scores.items()}
    deviation, freedom = pooled_deviation(v for (_, k), v in groups.items() if k == sealed)
    return (deviation, freedom) if freedom >= 2 else pooled_deviation(groups.values())


def _ranked(
    group: Mapping[int, Sequence[float]],
    sealed: bool,
    level: float,
    ranked: int,
    noise: tuple[float | None, int],
) -> list[Standing]:
    estimates = {candidate: estimate(values, noise[0]) for candidate, values in group.items()}
    order = sorted(estimates, key=lambda c: (-estimates[c].mean, c))
    rows = []
    for place, candidate in enumerate(order):
        found = estimates[candidate]
        better = probability_better(estimates[order[0]], found, *noise)
        tied = place > 0 and (better is None or better < level)
        rows.append(Standing(ranked + place + 1, candidate, found, sealed, tied))
    return rows
