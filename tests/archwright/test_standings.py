"""The standings against numpy, and what they claim against simulated truth. Every draw is seeded."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archwright.standings import (
    Estimate,
    estimate,
    interval,
    noise,
    pooled_deviation,
    probability_better,
    standings,
)

LEVEL = 0.95
Scores = dict[tuple[int, bool], dict[int, float]]

scores = st.floats(0, 1).map(lambda x: round(x, 6))
groups = st.lists(st.lists(scores, max_size=5), max_size=6)


def table(rows: dict[int, list[float]], sealed: bool = True) -> Scores:
    """Scores by candidate as the ledger's queries give them."""
    return {(c, sealed): dict(enumerate(values)) for c, values in rows.items()}


# ------------------------------------------------------------------------------------ arithmetic


@given(groups)
def test_the_pooled_deviation_is_numpys(found: list[list[float]]) -> None:
    repeated = [np.array(group) for group in found if len(group) > 1]
    freedom = sum(len(group) - 1 for group in repeated)
    deviation, degrees = pooled_deviation(found)
    assert degrees == freedom
    if freedom == 0:
        assert deviation is None
    else:
        variance = sum(group.var(ddof=1) * (len(group) - 1) for group in repeated) / freedom
        assert deviation == pytest.approx(math.sqrt(variance), abs=1e-9)


def test_the_pooled_deviation_by_hand() -> None:
    # Squares within: 2 around 2 and 2 around 6, over 1 + 2 degrees of freedom; 9 alone says nothing.
    assert pooled_deviation([[1, 3], [5, 6, 7], [9], []]) == (math.sqrt(4 / 3), 3)
    assert pooled_deviation([[1], [2]]) == (None, 0)
    assert pooled_deviation([]) == (None, 0)


@given(st.lists(scores, min_size=1, max_size=6), st.one_of(st.none(), st.floats(0, 1)))
def test_an_estimate_is_the_mean_and_the_pooled_error(
    values: list[float], deviation: float | None
) -> None:
    found = estimate(values, deviation)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert found.n == len(values)
    expected = None if deviation is None else deviation / math.sqrt(len(values))
    assert found.stderr == expected


def test_without_noise_known_nothing_is_claimed() -> None:
    one, two = Estimate(0.9, None, 1), Estimate(0.1, None, 1)
    assert probability_better(one, two, None, 0) is None
    assert interval(one, two, None, 0, LEVEL) is None


def test_without_noise_at_all_the_larger_mean_is_better() -> None:
    one, two = Estimate(0.9, 0.0, 2), Estimate(0.1, 0.0, 2)
    assert probability_better(one, two, 0.0, 2) == 1.0
    assert probability_better(two, one, 0.0, 2) == 0.0
    assert probability_better(one, one, 0.0, 2) == 0.5


# ------------------------------------------------------------------------------------- monotone

means = st.floats(0, 1)
deviations = st.floats(0.001, 1)
degrees = st.integers(1, 50)
counts = st.integers(1, 10)


@given(means, means, means, deviations, degrees, counts, counts)
def test_a_larger_lead_is_never_less_sure(
    mean: float, other: float, lower: float, deviation: float, freedom: int, n: int, m: int
) -> None:
    lower = min(lower, other)
    one = Estimate(mean, None, n)
    near = probability_better(one, Estimate(other, None, m), deviation, freedom)
    far = probability_better(one, Estimate(lower, None, m), deviation, freedom)
    assert near is not None and far is not None
    assert 0 <= near <= far <= 1


@given(means, means, deviations, degrees, counts)
def test_it_is_even_between_equals_and_symmetric(
    mean: float, other: float, deviation: float, freedom: int, n: int
) -> None:
    one, two = Estimate(mean, None, n), Estimate(other, None, n)
    there = probability_better(one, two, deviation, freedom)
    back = probability_better(two, one, deviation, freedom)
    assert there is not None and back is not None
    assert there + back == pytest.approx(1)
    assert probability_better(one, one, deviation, freedom) == pytest.approx(0.5)


@given(st.floats(0.01, 1), deviations, degrees, counts)
def test_noise_makes_less_sure_and_seeds_and_freedom_more(
    lead: float, deviation: float, freedom: int, n: int
) -> None:
    def sure(deviation: float, freedom: int, n: int) -> float:
        one, two = Estimate(lead, None, n), Estimate(0.0, None, n)
        found = probability_better(one, two, deviation, freedom)
        assert found is not None
        return found

    reference = sure(deviation, freedom, n)
    assert sure(2 * deviation, freedom, n) <= reference + 1e-12
    assert sure(deviation, freedom, n + 1) >= reference - 1e-12
    assert sure(deviation, freedom + 1, n) >= reference - 1e-12


@given(means, means, deviations, degrees, counts, counts)
def test_the_interval_leaves_zero_out_just_where_the_probability_says_so(
    mean: float, other: float, deviation: float, freedom: int, n: int, m: int
) -> None:
    one, two = Estimate(mean, None, n), Estimate(other, None, m)
    found = interval(one, two, deviation, freedom, LEVEL)
    sure = probability_better(one, two, deviation, freedom)
    assert found is not None and sure is not None
    low, high = found
    assert low <= mean - other <= high
    assert (low + high) / 2 == pytest.approx(mean - other, abs=1e-9)
    if abs(sure - (0.5 + LEVEL / 2)) > 1e-9:
        assert (low > 0) == (sure > 0.5 + LEVEL / 2)


# ----------------------------------------------------------------------------- against the truth

DRAWS = 4000
SLACK = 3 * math.sqrt(0.05 * 0.95 / DRAWS)  # three standard errors of a rate of 5%


def draws(candidates: int, seeds: int, deviation: float = 0.02) -> np.ndarray:
    """Scores (DRAWS, candidates, seeds) of candidates that are all equally good."""
    return np.random.default_rng(1).normal(0.5, deviation, (DRAWS, candidates, seeds))


@pytest.mark.parametrize(("candidates", "seeds"), [(2, 2), (2, 3), (5, 3), (3, 5)])
def test_a_pair_of_equals_is_called_better_one_time_in_twenty(candidates: int, seeds: int) -> None:
    """The pair is fixed before the scores are seen; the noise is pooled over all candidates."""
    claims = 0
    for rows in draws(candidates, seeds):
        deviation, freedom = pooled_deviation(rows.tolist())
        one, two = (estimate(rows[i].tolist(), deviation) for i in (0, 1))
        sure = probability_better(one, two, deviation, freedom)
        assert sure is not None
        claims += sure >= LEVEL
    assert abs(claims / DRAWS - (1 - LEVEL)) <= SLACK


@pytest.mark.parametrize("sure", [0.6, 0.8, 0.99])
def test_the_probability_is_calibrated_at_other_levels_too(sure: float) -> None:
    claims = 0
    for rows in draws(3, 3):
        deviation, freedom = pooled_deviation(rows.tolist())
        one, two = (estimate(rows[i].tolist(), deviation) for i in (0, 1))
        claims += (probability_better(one, two, deviation, freedom) or 0) >= sure
    expected = 1 - sure
    assert abs(claims / DRAWS - expected) <= 3 * math.sqrt(expected * sure / DRAWS)


@pytest.mark.parametrize("gap", [0.0, 0.03])
@pytest.mark.parametrize("seeds", [2, 3])
def test_the_interval_covers_the_truth_as_often_as_it_says(gap: float, seeds: int) -> None:
    covered = 0
    for rows in draws(3, seeds):
        rows[0] += gap
        deviation, freedom = pooled_deviation(rows.tolist())
        one, two = (estimate(rows[i].tolist(), deviation) for i in (0, 1))
        found = interval(one, two, deviation, freedom, LEVEL)
        assert found is not None
        covered += found[0] <= gap <= found[1]
    assert abs(covered / DRAWS - LEVEL) <= SLACK


@pytest.mark.parametrize("candidates", [2, 4])
def test_a_leader_among_equals_is_seldom_said_to_be_better_than_any(candidates: int) -> None:
    """The leader is chosen by the same scores: that choice must not make it better than it is."""
    claims = 0
    for rows in draws(candidates, 3):
        ranked = standings(table(dict(enumerate(rows.tolist()))), LEVEL)
        claims += not all(row.tied for row in ranked[1:])
    assert claims / DRAWS <= (1 - LEVEL) + SLACK


def test_a_leader_that_is_far_better_is_said_to_be_better() -> None:
    rng = np.random.default_rng(2)
    claims = 0
    for _ in range(500):
        rows = rng.normal([[0.9], [0.5], [0.5]], 0.02, (3, 3))
        ranked = standings(table(dict(enumerate(rows.tolist()))), LEVEL)
        claims += ranked[0].candidate == 0 and not any(row.tied for row in ranked)
    assert claims >= 495


# ------------------------------------------------------------------------------------------ ranks


@given(
    st.dictionaries(
        st.tuples(st.integers(1, 8), st.booleans()),
        st.dictionaries(st.integers(0, 4), scores, min_size=1, max_size=3),
        max_size=10,
    )
)
def test_ranks_are_whole_and_results_come_before_what_the_search_saw(rows: Scores) -> None:
    ranked = standings(rows, LEVEL)
    assert [row.rank for row in ranked] == list(range(1, len(ranked) + 1))
    assert sorted(row.candidate for row in ranked) == sorted({c for c, _ in rows}), "each once"
    sealed = [row.sealed for row in ranked]
    assert sealed == sorted(sealed, reverse=True)
    for kind in (True, False):
        found = [row.estimate.mean for row in ranked if row.sealed == kind]
        assert found == sorted(found, reverse=True)
    for row in ranked:
        assert row.sealed == ((row.candidate, True) in rows)
        values = list(rows[row.candidate, row.sealed].values())
        assert row.estimate.mean == pytest.approx(np.mean(values)) and row.estimate.n == len(values)


def test_equal_scores_tie_and_keep_the_order_of_their_numbers() -> None:
    ranked = standings(table({3: [0.5, 0.6], 1: [0.5, 0.6], 2: [0.6, 0.5]}), LEVEL)
    assert [row.candidate for row in ranked] == [1, 2, 3]
    assert [row.tied for row in ranked] == [False, True, True]


def test_scores_are_not_rounded_before_they_are_compared() -> None:
    ranked = standings(table({1: [0.5], 2: [0.5 + 1e-15]}), LEVEL)
    assert [row.candidate for row in ranked] == [2, 1]


def test_without_repeats_everything_ties() -> None:
    ranked = standings(table({1: [0.9], 2: [0.1]}, sealed=False), LEVEL)
    assert [row.tied for row in ranked] == [False, True]
    assert all(row.estimate.stderr is None for row in ranked)


def test_a_tie_is_with_the_leader_of_its_kind_only() -> None:
    rows = table({1: [0.5, 0.5, 0.5], 2: [0.2, 0.2, 0.21]}) | table({3: [0.99], 1: [0.1]}, False)
    ranked = standings(rows, LEVEL)
    assert [(row.candidate, row.sealed) for row in ranked] == [(1, True), (2, True), (3, False)]
    assert [row.tied for row in ranked] == [False, False, False]


def test_the_noise_is_that_of_all_repeats_on_both_splits() -> None:
    sealed = table({1: [0.1, 0.3], 2: [0.2, 0.4]})
    seen = table({1: [0.5, 0.6], 2: [0.5, 0.5], 3: [0.1]}, sealed=False)
    repeated = [[0.1, 0.3], [0.2, 0.4], [0.5, 0.6], [0.5, 0.5]]
    assert noise(sealed | seen) == pooled_deviation(repeated)
    assert noise(table({3: [0.1]})) == (None, 0)
