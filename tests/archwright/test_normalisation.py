"""Normalised scores: what 0 and 1 stand for, what counts as more, and where there is no number."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from archwright.normalisation import Scale, phi

SCORES = st.floats(-1, 0.999)
RUNS = st.lists(SCORES, min_size=1, max_size=5)


@given(RUNS, RUNS, RUNS)
def test_the_worst_is_0_and_the_best_reference_is_1(
    agent: list[float], one: list[float], two: list[float]
) -> None:
    scale = Scale.of([*agent, *one, *two], [one, two])
    worst = min(*agent, *one, *two)
    assume(scale.reference - scale.worst > 1e-6)  # below, round-off is what is left
    means = [scale.mean(runs) for runs in ([worst], one, two)]
    assert means[0] == 0
    assert max(means[1:]) == pytest.approx(1)
    assert all(scale.mean(runs) >= 0 for runs in (agent, one, two))


@given(SCORES, SCORES, SCORES, SCORES)
def test_a_better_run_never_has_less(worst: float, reference: float, a: float, b: float) -> None:
    scale = Scale.of([worst, reference, a, b], [[reference]])
    assume(scale.reference - scale.worst > 1e-6)
    low, high = scale.mean([min(a, b)]), scale.mean([max(a, b)])
    assert low <= high
    assert scale.mean([a, b]) == pytest.approx((low + high) / 2)


def test_each_nine_counts_as_much_as_the_one_before() -> None:
    scale = Scale.of([0.0, 0.9], [[0.9]])
    assert [scale.mean([s]) for s in (0.9, 0.99, 0.999)] == pytest.approx([1, 2, 3])
    assert phi(0.99) == pytest.approx(2) and phi(1.0) == math.inf


@pytest.mark.parametrize(
    ("runs", "references", "asked", "why"),
    [
        ([0.3, 0.5], [], [0.5], "no reference was measured"),
        ([0.3, 1.0], [[1.0]], [0.3], "the reference scored 1"),
        ([0.3, 1.0], [[0.3, 1.0]], [0.3], "the reference scored 1"),
        ([0.3, 0.5], [[0.3]], [0.5], "the reference is the worst observed"),
        ([0.3, 0.5, 1.0], [[0.5]], [0.3, 1.0], "a run scored 1"),
        ([1.0], [[1.0]], [1.0], "the reference scored 1"),
    ],
)
def test_what_has_no_number_says_why(
    runs: list[float], references: list[list[float]], asked: list[float], why: str
) -> None:
    scale = Scale.of(runs, references)
    assert scale.mean(asked) is None
    assert scale.undefined(asked) == why


def test_a_run_at_the_optimum_leaves_the_others_their_numbers() -> None:
    scale = Scale.of([0.3, 0.5, 1.0], [[0.5]])
    assert scale.mean([0.3, 0.5]) == pytest.approx(0.5)
    assert scale.undefined([0.3, 0.5]) == ""
