"""Who is best and how sure that is: noise floor, standard errors, ties, search advantage.

Pure arithmetic over scores by candidate and seed. Only sealed scores are called results; the others
are what the search saw, and flatter whoever it chose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

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


def margin(deviation: float | None, freedom: int, level: float) -> float:
    """How far apart two scores of one seed each must be for the higher one to be better at that level;
    0 where no noise is known. Those closer are tied, as `probability_better` has it."""
    if deviation is None:
        return 0.0
    return float(stats.t.ppf(level, freedom)) * deviation * math.sqrt(2)


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of ``n`` pairs, None where a side is constant, with its interval,
    None below four pairs."""

    n: int
    value: float | None
    low: float | None
    high: float | None


def rank_correlation(pairs: Sequence[tuple[float, float]], level: float) -> Correlation:
    """The rank correlation of pairs with its two-sided interval at that level.

    By Fisher's z with the variance (1 + value^2 / 2) / (n - 3) of Bonett and Wright (2000). A perfect
    order is taken half a step of ranks below 1 there: z has no interval at 1, and few pairs prove little.
    """
    n, sides = len(pairs), list(zip(*pairs, strict=True))
    if n < 2 or any(len(set(side)) == 1 for side in sides):
        return Correlation(n, None, None, None)
    value = float(stats.spearmanr(*sides).statistic)
    if n < 4:
        return Correlation(n, value, None, None)
    largest = 1 - 6 / (n**3 - n)
    z = math.atanh(min(max(value, -largest), largest))
    reach = float(stats.norm.ppf(0.5 + level / 2)) * math.sqrt((1 + value**2 / 2) / (n - 3))
    return Correlation(n, value, math.tanh(z - reach), math.tanh(z + reach))


@dataclass(frozen=True)
class Standing:
    """A candidate's place. ``sealed`` tells a result from a score that the search saw; ``tied`` that
    it cannot be told from the leader of its kind, at its rung, at the recipe's level."""

    rank: int
    candidate: int
    estimate: Estimate
    sealed: bool
    tied: bool
    rung: int = 0


Scores = Mapping[tuple[int, bool], Mapping[int, float]]  # by (candidate, sealed) and seed


def ladder(rungs: Sequence[Scores], level: float) -> list[Standing]:
    """The standings at each rung, the last rung first, each candidate at the highest it reached."""
    rows: list[Standing] = []
    for rung in reversed(range(len(rungs))):
        rows += standings(rungs[rung], level, rung, rows)
    return rows


def standings(
    scores: Scores, level: float, rung: int = 0, above: Sequence[Standing] = ()
) -> list[Standing]:
    """Confirmed candidates first, by sealed score; then the others, by validation score.

    The scores are of one rung; whoever is ``above`` already is left out, and ranks go on from there.
    """
    rows: list[Standing] = []
    for sealed in (True, False):
        placed = {row.candidate for row in (*above, *rows)}
        group = {
            candidate: list(values.values())
            for (candidate, kind), values in scores.items()
            if kind == sealed and candidate not in placed
        }
        ranked = len(above) + len(rows)
        rows += _ranked(group, sealed, level, ranked, noise(scores))
    return [replace(row, rung=rung) for row in rows]


def noise(scores: Scores) -> tuple[float | None, int]:
    """The pooled deviation over seeds of whatever was repeated, on both splits.

    Training gives the noise, not the split; and a few references that happen to agree must not make
    every other score look certain.
    """
    return pooled_deviation(list(values.values()) for values in scores.values())


def _ranked(
    group: Mapping[int, Sequence[float]],
    sealed: bool,
    level: float,
    ranked: int,
    noise: tuple[float | None, int],
) -> list[Standing]:
    estimates = {candidate: estimate(values, noise[0]) for candidate, values in group.items()}
    order = sorted(estimates, key=lambda c: (-estimates[c].mean, c))
    reach = studentized_range(level, len(order), noise[1]) if noise[1] and len(order) > 1 else None
    rows = []
    for place, candidate in enumerate(order):
        found, leader = estimates[candidate], estimates[order[0]]
        tied = place > 0 and not told_apart(leader, found, noise[0], reach)
        rows.append(Standing(ranked + place + 1, candidate, found, sealed, tied))
    return rows


@lru_cache(maxsize=64)
def studentized_range(level: float, candidates: int, freedom: int) -> float:
    """How many standard errors the range of so many equal candidates exceeds by chance 1 - ``level``."""
    return float(stats.studentized_range.ppf(level, candidates, freedom))


def told_apart(
    leader: Estimate, other: Estimate, deviation: float | None, reach: float | None
) -> bool:
    """Whether the leader is truly better, at the level of ``reach`` (Tukey and Kramer's test).

    The leader was chosen by these same scores among all candidates, so a plain t test would call it
    better far too often.
    """
    if deviation is None or reach is None:
        return False
    error = deviation * math.sqrt((1 / leader.n + 1 / other.n) / 2)
    return leader.mean - other.mean > reach * error
