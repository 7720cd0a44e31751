"""A space with a written primitive: every proposer uses its code as any other, and its cost is the gate's."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from nodes import node

from agents.agent import Agent, AgentSpec
from agents.proposers.classical import cross, draw, mutate
from search_space.budget import Budget, solve_width
from search_space.model import layer_cost, pattern_cost
from search_space.pattern import Layer, Pattern, PatternError
from search_space.presets import preset
from search_space.primitives import Cost
from search_space.space import Space
from search_space.written import Written
from storage.records import Answer, View

MINI = preset("mini")
X = Written("X", "written mixer", "x" * 64, Cost(1000, 2000.5, 30, 2000.5, 1030), 64, 64)
SPACE = Space(("A", "M", "X"), 2, 4, "mini", written=(X,))


def propose(proposer: str, view: View, seed: int = 0, **options: object) -> Answer:
    agent = Agent(AgentSpec("a", proposer, SPACE, options=options))
    return asyncio.run(agent.propose(view, seed))


def measured(count: int) -> View:
    """A worth that is the share of X."""
    rng = random.Random(1)
    texts = [str(draw(SPACE, rng)) for _ in range(count)]
    worth = [Pattern.parse(t).counts.get("X", 0) / len(Pattern.parse(t)) for t in texts]
    pairs = enumerate(zip(texts, worth, strict=True))
    return View(tuple(node(i, text, score) for i, (text, score) in pairs), count)


@pytest.mark.parametrize("proposer", ["random", "evolution", "bayes"])
def test_a_search_without_a_model_proposes_it_and_learns_that_it_pays(proposer: str) -> None:
    view = measured(24)
    found = [Pattern.parse(str(propose(proposer, view, s).pattern)) for s in range(12)]
    assert all(str(SPACE.read(str(pattern))) == str(pattern) for pattern in found)
    share = sum(p.counts.get("X", 0) for p in found) / sum(len(p) for p in found)
    assert share > (0.15 if proposer == "random" else 0.4)  # a third by chance


def test_mutations_and_recombinations_bring_it_in_and_take_it_out() -> None:
    rng, plain, full = random.Random(0), Pattern.parse("A+M+A"), Pattern.parse("3X")
    codes = [set(mutate(plain, SPACE, rng).counts) for _ in range(60)]
    assert any("X" in found for found in codes)
    assert any(set(mutate(full, SPACE, rng).counts) != {"X"} for _ in range(60))
    assert cross(plain, full, SPACE, rng).counts.keys() >= {"A", "X"}


def test_a_model_is_told_its_cost_and_what_it_may_not_do() -> None:
    fields = {"hypothesis": "h", "reasoning": "r", "expected_effect": "e"}
    tries = ("[X|M]+A", "X{kv=2}+A", "2X+M")
    replies = [[fields | {"pattern": text} for text in tries]]
    answer = propose("scripted", View(), replies=replies)
    assert (answer.pattern, answer.failure) == ("2X+M", None)
    first, second, third = (json.loads(call.request) for call in answer.calls)
    assert "- `X`: written mixer; 1000 parameters, 2000 FLOPs per token, 30 elements" in str(first)
    assert "written primitive X was measured at width 64, not 32" in str(second["messages"][-1])
    assert "gives options to X{kv=2}" in str(third["messages"][-1])


def test_a_pattern_costs_what_its_layers_do() -> None:
    """X beside the same pattern with an attention layer in its place."""
    attention, other = layer_cost(Layer("A"), MINI), pattern_cost(Pattern.parse("2(A+M)"), MINI)
    found = SPACE.cost(Pattern.parse("2(X+M)"))
    assert found.params == other.params + 2 * (X.cost.params - attention.params)
    assert found.state == other.state + 2 * (X.cost.state - attention.state)
    shared = SPACE.cost(Pattern.parse("3*X"))
    assert shared.params == X.cost.params + 2 * MINI.width
    assert shared.flops_per_token == 3 * X.cost.flops_per_token


def test_options_are_refused_where_a_space_has_them() -> None:
    sized = Space(("A", "X"), 1, 2, "mini", options=True, written=(X,))
    with pytest.raises(PatternError, match="primitive X takes no options, not 'kv'"):
        sized.read("X{kv=2}")


def test_a_width_is_solved_only_where_its_cost_is_known() -> None:
    pattern, catalogue = Pattern.parse("A+X"), SPACE.primitives
    target = SPACE.cost(pattern).params
    assert solve_width(pattern, MINI, Budget("params", target), catalogue) == MINI.width
    with pytest.raises(ValueError, match="X was measured at width 64, not 128"):
        solve_width(pattern, MINI, Budget("params", 4 * target), catalogue)
