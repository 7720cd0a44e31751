"""Iso-budget: the width meets the target, or the sentence names the nearest."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from search_space.budget import Budget, solve_width
from search_space.model import pattern_cost
from search_space.pattern import Pattern
from search_space.presets import preset

SMALL = preset("small")
KINDS = ["params", "flops_per_token", "state_bytes"]


def spent(text: str, width: int, kind: str) -> float:
    cost = pattern_cost(Pattern.parse(text), replace(SMALL, width=width))
    return cost.state_bytes() if kind == "state_bytes" else getattr(cost, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text",
    ["8(A+M)", "5(Mb+M+A)+M", "4([A|Mb]+M)", "2A+6Xa", "8(D{gated=true}+M)", "3*(L+M)", "4H+A"],
)
@pytest.mark.parametrize("width", [64, 192, 640])
def test_it_finds_the_width_a_target_was_made_from(text: str, kind: str, width: int) -> None:
    budget = Budget(kind, spent(text, width, kind))  # type: ignore[arg-type]
    assert solve_width(Pattern.parse(text), SMALL, budget) == width


@pytest.mark.parametrize("kind", KINDS)
def test_the_found_width_is_within_one_percent_and_fits_the_heads(kind: str) -> None:
    for target in (0.7, 2.03, 5.2):
        for text in ("8(A+M)", "8(R+M)", "4(Ms+A)"):
            goal = target * spent(text, 128, kind)
            try:
                width = solve_width(Pattern.parse(text), SMALL, Budget(kind, goal))  # type: ignore[arg-type]
            except ValueError as error:
                nearest = [int(w) for w in re.findall(r"width (\d+)", str(error))]
                low, high = (spent(text, w, kind) for w in nearest)
                assert low < 0.99 * goal and high > 1.01 * goal
                assert nearest[1] - nearest[0] == int(
                    re.findall(r"multiples of (\d+)", str(error))[0]
                )
            else:
                assert spent(text, width, kind) == pytest.approx(goal, rel=0.01)
                assert width % 8 == 0


def test_widths_of_fusions_and_recurrences_are_those_they_accept() -> None:
    goal = spent("[A|Mb]", 192, "params")
    with pytest.raises(ValueError, match="multiples of 64"):  # a part's 1.25 x 32 makes heads of 8
        solve_width(Pattern.parse("[A|Mb]"), SMALL, Budget("params", 0.8 * goal))
    assert solve_width(Pattern.parse("[A|Mb]"), SMALL, Budget("params", goal)) == 192


def test_no_width_says_why() -> None:
    with pytest.raises(ValueError, match=r"the nearest width 128 \(.*-.*%\) and width 136 \(.*\+"):
        solve_width(Pattern.parse("A"), SMALL, Budget("params", 70_000))
    with pytest.raises(ValueError, match=r"no width up to .* reaches 1,000 state_bytes"):
        solve_width(Pattern.parse("4M"), SMALL, Budget("state_bytes", 1000))
    with pytest.raises(ValueError, match=r"the nearest width 8 \("):
        solve_width(Pattern.parse("A"), SMALL, Budget("params", 5))
    with pytest.raises(ValueError, match=r"layer 2 .*act= is one of"):
        solve_width(Pattern.parse("A+M{act=tanh}"), SMALL, Budget("params", 70_000))


def test_a_budget_has_a_kind_and_a_positive_target() -> None:
    for kind, target in (("seconds", 3.0), ("params", 0.0)):
        with pytest.raises(ValueError, match="a budget is a positive number of params"):
            Budget(kind, target)  # type: ignore[arg-type]


def test_the_length_of_a_budget_is_used() -> None:
    pattern = Pattern.parse("8(A+M)")
    cost = pattern_cost(pattern, replace(SMALL, width=96), 1000)
    assert solve_width(pattern, SMALL, Budget("flops_per_token", cost.flops_per_token, 1000)) == 96
