"""`bayes`: its proposals lie in the space, follow from view and seed alone, and are better for what was
measured."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from dataclasses import replace

import optuna
import pytest
from nodes import SPACE, node

from agents.agent import Agent, AgentSpec
from agents.proposers.bayes import SAMPLERS, STARTUP, results
from agents.proposers.classical import draw
from search_space.pattern import Pattern
from search_space.space import Space
from storage.records import Answer, Node, View

FIXED = replace(SPACE, smallest=5, options=False)


def propose(view: View, seed: int, sampler: str = "tpe", space: Space = SPACE) -> Answer:
    agent = Agent(AgentSpec("b", "bayes", space, options={"sampler": sampler}))
    return asyncio.run(agent.propose(view, seed))


def measured(space: Space, count: int, seed: int = 0, **fields: object) -> View:
    """Different drawn patterns, each worth its share of `A`."""
    rng, nodes = random.Random(seed), dict[str, Node]()
    while len(nodes) < count:
        text = str(draw(space, rng))
        nodes.setdefault(text, node(len(nodes), text, share(text), **fields))
    return View(tuple(nodes.values()), count)


def share(text: str, code: str = "A") -> float:
    codes = [layer.code for layer in Pattern.parse(text).layers]
    return codes.count(code) / len(codes)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_proposal_is_of_the_space_unseen_and_a_function_of_view_and_seed(sampler: str) -> None:
    view = replace(measured(SPACE, 14), turn=17)
    made = [propose(view, seed, sampler) for seed in range(6)]
    for seed, answer in enumerate(made):
        assert answer.pattern is not None
        assert str(SPACE.read(answer.pattern)) == answer.pattern
        assert answer.pattern not in {n.pattern for n in view.nodes}
        assert sampler in answer.hypothesis
        if seed < 2:
            assert answer == propose(view, seed, sampler)
    assert len({answer.pattern for answer in made}) > 1


def test_it_begins_like_random() -> None:
    view = measured(SPACE, STARTUP - 1)
    random_agent = Agent(AgentSpec("r", "random", SPACE))
    for seed in range(5):
        assert propose(view, seed) == asyncio.run(random_agent.propose(view, seed))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_it_learns_what_pays(sampler: str) -> None:
    """A worth that is the sum of what each layer brings: a third of the layers drawn are the one that
    pays, after 20 results more than 60% of those proposed."""
    view = measured(FIXED, 20)
    made = [str(propose(view, seed, sampler, FIXED).pattern) for seed in range(8)]
    assert sum(map(share, made)) / len(made) > 0.6


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_it_learns_how_deep_to_go(sampler: str) -> None:
    space = Space(("A", "M"), 1, 6, "mini")
    view = measured(space, 20)
    nodes = tuple(replace(n, score=len(Pattern.parse(n.pattern)) / 6) for n in view.nodes)
    made = [propose(View(nodes, 20), seed, sampler, space).pattern for seed in range(8)]
    depths = [len(Pattern.parse(str(text))) for text in made]
    assert sum(depths) / len(depths) > 5
    assert max(depths) <= 6


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_it_learns_from_failures(sampler: str) -> None:
    """All with an `Mb` fail, the others are equal."""
    fails = [replace(n, failure="diverged", score=None) for n in measured(FIXED, 60).nodes]
    fine = [replace(n, failure=None, score=0.5) for n in fails]
    nodes = tuple(a if share(a.pattern, "Mb") else b for a, b in zip(fails, fine, strict=True))
    assert 4 <= sum(n.score is not None for n in nodes) <= 15
    made = [str(propose(View(nodes, 60), seed, sampler, FIXED).pattern) for seed in range(8)]
    assert sum(share(text, "Mb") for text in made) / len(made) < 0.1  # a third by chance


def test_decisions_that_cannot_see_each_other_differ() -> None:
    """A Gaussian process has one best suggestion; those in flight must not all make it."""
    view = measured(SPACE, 14)
    made = [[propose(replace(view, turn=t), s, "gp").pattern for s in range(6)] for t in (14, 19)]
    assert len(set(made[0])) <= 2
    assert len(set(made[1])) >= 3


def test_a_higher_rung_counts_before_a_higher_score() -> None:
    low, high = node(0, "A+M", 0.9), node(1, "2M", 0.2, rung=1)
    bad, ours = node(2, "2Mb", None), node(3, "3M", None, failure="infrastructure")
    nothing = node(4, "", None, candidate=None, failure="exhausted")
    worth = results(View((low, high, bad, ours, nothing), 5, rungs=2))
    assert worth.keys() == {"A+M", "2M", "2Mb"}
    assert worth["2M"] > worth["A+M"] > worth["2Mb"] == 0


def test_a_small_space_is_proposed_to_its_end_and_then_again() -> None:
    space = Space(("A", "M"), 2, 3, "mini")  # twelve patterns
    nodes: list[Node] = []
    for slot in range(12):
        answer = propose(View(tuple(nodes), slot), slot, space=space)
        nodes.append(node(slot, str(answer.pattern), share(str(answer.pattern))))
    seen = {n.pattern for n in nodes}
    assert len(seen) == 12
    assert propose(View(tuple(nodes), 12), 12, space=space).pattern in seen


def test_what_the_grammar_refuses_is_not_proposed() -> None:
    space = Space(("A", "Xa", "M"), 2, 3, "mini")  # an Xa reads the attention layer before it
    texts = ["2A", "A+Xa", "A+M", "M+A", "2M", "3A", "A+2Xa", "2A+M", "3M", "A+Xa+M", "A+M+Xa"]
    view = View(tuple(node(i, text, 0.1 * i) for i, text in enumerate(texts)), len(texts))
    for seed in range(6):
        text = propose(view, seed, space=space).pattern
        assert str(space.read(str(text))) == text


def test_others_who_use_optuna_keep_their_notes(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    propose(measured(SPACE, 12), 0)
    assert optuna.logging.get_verbosity() == before
    assert "".join(capfd.readouterr()) == ""


def test_an_unknown_sampler_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="must be one of tpe, gp, not 'gpe'"):
        propose(View(), 0, "gpe")


def test_an_agent_of_another_proposer_does_not_load_optuna() -> None:
    code = (
        "import sys, asyncio; from agents.agent import Agent, AgentSpec; "
        "from search_space.space import Space; from storage.records import View; "
        "a = Agent(AgentSpec('r', 'random', Space(('A', 'M'), 2, 3, 'mini'))); "
        "asyncio.run(a.propose(View(), 0)); print('optuna' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
