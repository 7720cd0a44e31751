"""Proposers and scaffolds: what they propose lies in the space, follows their rule and their seed."""

import asyncio
import json
import random
from collections import Counter
from dataclasses import replace
from itertools import product
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nodes import SPACE, node

from agents.agent import Agent, AgentSpec
from agents.proposers import PROPOSERS, Request
from agents.proposers.best_of_n import BestOfN
from agents.proposers.classical import (
    cross,
    delete,
    draw,
    duplicate,
    insert,
    mutate,
    substitute,
    swap,
)
from agents.proposers.model import ModelProposer, ScriptedProposer
from agents.scaffolds import Decision
from agents.scaffolds.greedy import Greedy
from agents.scaffolds.one_shot import OneShot
from agents.scaffolds.tournament import Tournament
from search_space.model import layer_cost
from search_space.pattern import Layer, Pattern
from search_space.presets import preset
from search_space.space import Space
from storage.records import Answer, Node, View

EMPTY = View()


def propose(agent: Agent, view: View = EMPTY, seed: int = 0) -> Answer:
    return asyncio.run(agent.propose(view, seed))


def scripted(replies: list[object], **options: object) -> Agent:
    return Agent(AgentSpec("a", "scripted", SPACE, options={"replies": replies, **options}))


def reply(pattern: str) -> dict[str, str]:
    return {"hypothesis": "h", "reasoning": "r", "pattern": pattern, "expected_effect": "e"}


# ----------------------------------------------------------------------------------------- classical


@given(st.integers(0, 2**31 - 1), st.sampled_from(["A+M", "A+M+Mb+A+M", "A{kv=2}+[A|M]+M"]))
def test_a_mutation_stays_in_the_space_and_a_draw_too(seed: int, parent: str) -> None:
    rng = random.Random(seed)
    for child in (mutate(Pattern.parse(parent), SPACE, rng), draw(SPACE, rng)):
        assert 2 <= len(child) <= 5
        assert str(SPACE.read(str(child))) == str(child)


@given(st.integers(0, 2**31 - 1), st.lists(st.sampled_from(SPACE.codes), min_size=2, max_size=4))
def test_each_mutation_does_what_its_name_says(seed: int, codes: list[str]) -> None:
    rng = random.Random(seed)
    changed = substitute(codes, SPACE, rng)
    assert sum(a != b for a, b in zip(codes, changed, strict=True)) == 1
    assert Counter(swap(codes, SPACE, rng)) == Counter(codes)
    assert len(insert(codes, SPACE, rng)) == len(codes) + 1
    assert len(delete(codes, SPACE, rng)) == len(codes) - 1
    longer = duplicate(codes, SPACE, rng)
    block = len(longer) - len(codes)
    assert 1 <= block <= SPACE.largest - len(codes)
    starts = range(len(codes) - block + 1)
    assert any(
        codes[: i + block] + codes[i : i + block] + codes[i + block :] == longer for i in starts
    )


@given(
    st.integers(0, 2**31 - 1),
    st.sampled_from(["A+M", "5M", "A{kv=2}+[A|M]+M", "2*(A+M)"]),
    st.sampled_from(["2Mb", "Mb+A+Mb+A+Mb", "A+3Mb"]),
    st.sampled_from([(2, 5), (4, 4), (1, 2), (3, 3)]),
)
def test_a_recombination_is_the_head_of_one_parent_and_the_tail_of_the_other(
    seed: int, one: str, two: str, depths: tuple[int, int]
) -> None:
    space = replace(SPACE, smallest=depths[0], largest=depths[1])
    head, tail = ([str(x) for x in Pattern.parse(text).layers] for text in (one, two))
    child = [
        str(x)
        for x in cross(Pattern.parse(one), Pattern.parse(two), space, random.Random(seed)).layers
    ]
    assert depths[0] <= len(child) <= depths[1]
    cuts = range(1, len(child))
    assert any(child == head[:i] + tail[len(tail) - (len(child) - i) :] for i in cuts)


def test_a_recombination_of_a_space_of_one_layer_is_the_first_parent() -> None:
    space = replace(SPACE, smallest=1, largest=1)
    one, two = Pattern.parse("A"), Pattern.parse("M")
    assert cross(one, two, space, random.Random(0)) == one


def test_every_cut_of_a_recombination_is_drawn() -> None:
    space, one, two = (
        replace(SPACE, smallest=3, largest=3),
        Pattern.parse("3A"),
        Pattern.parse("3M"),
    )
    drawn = Counter(str(cross(one, two, space, random.Random(seed))) for seed in range(600))
    assert drawn.keys() == {"A+2M", "2A+M"}
    assert all(abs(count - 300) < 75 for count in drawn.values())


@pytest.mark.parametrize("operator", ["draft", "improve", "debug", "crossover"])
def test_evolution_obeys_its_operator_and_random_does_not(operator: str) -> None:
    parents = {"draft": (), "crossover": (node(0, "5A"), node(1, "5M"))}.get(
        operator, (node(0, "5A"),)
    )
    decision = Decision(operator, parents, "because")  # type: ignore[arg-type]
    made: dict[str, list[str]] = {"evolution": [], "random": []}
    for kind, seed in product(made, range(60)):
        request = Request(decision, View((node(0, "5A"), node(1, "5M")), 2), SPACE, seed)
        answer = asyncio.run(PROPOSERS[kind]().propose(request))
        assert (answer.operator, answer.reason) == (operator, "because")
        assert answer.parents == tuple(p.candidate for p in parents)
        made[kind].append(str(answer.pattern))
    assert not {"5A", "5M"} & {*made["evolution"], *made["random"]}  # both are measured already
    drawn = [str(draw(SPACE, random.Random(seed))) for seed in range(60)]
    assert made["random"] == [d if d not in ("5A", "5M") else ANY for d in drawn]
    other = [sum(c != "A" for c in codes(text)) for text in made["evolution"]]
    if operator == "draft":
        assert made["evolution"] == made["random"]
    elif operator in ("improve", "debug"):
        assert max(other) == 1, "one mutation changes at most one layer of 5A"
    else:
        both = ["A" in codes(text) and "M" in codes(text) for text in made["evolution"]]
        assert sum(both) > 45
        assert "Mb" in "".join(made["evolution"]), "some are mutated, too"


def codes(text: str) -> list[str]:
    return [layer.code for layer in Pattern.parse(text).layers]


def test_a_draw_is_uniform_over_depths_and_codes() -> None:
    rng = random.Random(0)
    drawn = [draw(SPACE, rng) for _ in range(4000)]
    depths = Counter(map(len, drawn))
    assert all(abs(depths[d] - 1000) < 150 for d in (2, 3, 4, 5))
    codes = Counter(layer.code for pattern in drawn for layer in pattern.layers)
    total = sum(codes.values())
    assert all(abs(codes[c] / total - 1 / 3) < 0.02 for c in SPACE.codes)


def test_what_was_measured_is_not_proposed_again_while_there_is_something_else() -> None:
    space = Space(("A", "M"), 1, 2, "mini")  # six patterns
    agent = Agent(AgentSpec("r", "random", space))
    nodes: list[Node] = []
    for slot in range(6):
        answer = propose(agent, View(tuple(nodes), slot), seed=slot)
        nodes.append(node(slot, str(answer.pattern)))
    assert len({n.pattern for n in nodes}) == 6
    assert propose(agent, View(tuple(nodes), 6)).pattern in {n.pattern for n in nodes}


def test_an_agent_is_a_function_of_its_view_and_seed() -> None:
    view = View(tuple(node(i, p, i / 10) for i, p in enumerate(["A+M", "2M", "Mb+A"])), turn=20)
    for kind in ("random", "evolution"):
        agent = Agent(AgentSpec("a", kind, SPACE))
        assert propose(agent, view, 3) == propose(Agent(AgentSpec("a", kind, SPACE)), view, 3)
        assert len({propose(agent, view, seed).pattern for seed in range(20)}) > 3


# ----------------------------------------------------------------------------------------- scaffolds


def test_one_shot_ignores_what_was_measured() -> None:
    assert OneShot().next(View((node(0),), turn=9), random.Random(0)).operator == "draft"


def test_greedy_drafts_then_debugs_then_improves_the_best() -> None:
    greedy, rng = Greedy(drafts=2), random.Random(0)
    good, better, bad = node(0, score=0.4), node(1, "2M", 0.6), node(2, "Mb+A", None)
    assert greedy.next(View((good,), turn=1), rng).operator == "draft"
    decision = greedy.next(View((good, better), turn=2), rng)
    assert (decision.operator, decision.parents) == ("improve", (better,))
    decision = greedy.next(View((good, better, bad), turn=3), rng)
    assert (decision.operator, decision.parents) == ("debug", (bad,))
    fixed = node(3, "Mb+M", 0.1, operator="debug", parents=(bad.candidate,))
    assert greedy.next(View((good, better, bad, fixed), turn=4), rng).parents == (better,)
    assert greedy.next(View((), turn=5), rng).operator == "draft"


def test_greedy_gives_a_chain_of_debugs_up_at_its_depth() -> None:
    chain = [node(0, score=0.2), node(1, "2M", None)]
    for i in range(2, 5):
        chain.append(node(i, "2M", None, operator="debug", parents=(i,)))
    decision = Greedy(drafts=0, debug_depth=4).next(View(tuple(chain), 5), random.Random(0))
    assert (decision.operator, decision.parents) == ("debug", (chain[-1],))
    decision = Greedy(drafts=0, debug_depth=3).next(View(tuple(chain), 5), random.Random(0))
    assert (decision.operator, decision.parents) == ("improve", (chain[0],))


def test_a_tournament_samples_the_living_only() -> None:
    old = node(0, score=0.99)
    young = [node(i, score=i / 100) for i in range(1, 5)]
    rule, view = Tournament(population=4, sample=2), View((old, *young), turn=5)
    parents = [rule.next(view, random.Random(seed)).parents[0] for seed in range(50)]
    assert old not in parents  # the best of all, but dead of age
    assert young[0] not in parents  # the worst can never win a sample of two
    assert set(parents) == set(young[1:])
    assert rule.next(View((old,), turn=2), random.Random(0)).operator == "draft"


def test_evolution_is_regularised_as_published() -> None:
    """Real et al. 2019: a random population; then the best of a sample of it gets a child by one mutation,
    and the oldest dies, however good it is."""
    space = replace(SPACE, smallest=5, options=False)
    agent = Agent(AgentSpec("a", "evolution", space))
    assert agent.scaffold == Tournament(population=16, sample=4)
    rng, slots = random.Random(0), range(40)
    nodes = tuple(node(i, str(draw(space, rng)), 1 - i / 100) for i in slots)  # ever worse
    assert [propose(agent, View(nodes[:n], n)).operator for n in (0, 15, 16)] == [
        "draft", "draft", "improve",
    ]  # fmt: skip
    chosen: Counter[int] = Counter()
    for seed in range(800):
        answer = propose(agent, View(nodes, 40), seed)
        (parent,) = (n for n in nodes if (n.candidate,) == answer.parents)
        chosen[parent.slot] += 1
        changed = [
            a != b for a, b in zip(codes(parent.pattern), codes(str(answer.pattern)), strict=True)
        ]
        swapped = Counter(codes(parent.pattern)) == Counter(codes(str(answer.pattern)))
        assert sum(changed) == 1 or (sum(changed) == 2 and swapped)
    assert set(chosen) <= set(slots[-16:-3])  # the last three can never be the best of four
    assert (
        abs(chosen[24] / 800 - 4 / 16) < 0.06
    )  # the best of the living wins whenever it is sampled


# --------------------------------------------------------------------------------------------- models


def test_an_invalid_reply_is_repaired_with_the_precise_error() -> None:
    answer = propose(scripted([["no json at all", reply("A+Q"), reply("A+Mb")]]))
    assert (answer.pattern, answer.failure) == ("A+Mb", None)
    assert [call.outcome for call in answer.calls] == ["malformed", "ok", "ok"]
    assert [call.attempt for call in answer.calls] == [0, 1, 2]
    last = json.loads(answer.calls[-1].request)["messages"][-1]["text"]
    assert "column 3: unknown code 'Q'" in last
    assert "'A'" in last


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (reply("6A"), "takes 2 to 5"),
        (reply("A{heads=}"), "key=value"),
        (reply("A{kv=3}+M"), "KV heads"),
        ({"pattern": "A+M"}, "'hypothesis' must be a text"),
        ({**reply("A+M"), "pattern": ["A", "M"]}, "'pattern' must be a text"),
    ],
)
def test_a_reply_that_stays_invalid_is_a_failed_proposal(bad: object, error: str) -> None:
    answer = propose(scripted([[bad] * 5], max_repairs=1))
    assert (answer.pattern, answer.failure) == (None, "invalid-reply")
    assert error in answer.detail
    assert len(answer.calls) == 2


def test_an_edit_that_changes_nothing_is_refused() -> None:
    parent = node(0, "A+M", 0.5)
    agent = scripted([[]] * 5 + [[reply("(A+M)"), reply("A+2M")]])
    answer = propose(agent, View((parent,), turn=5))
    assert (answer.operator, answer.parents, answer.pattern) == ("improve", (1,), "A+2M")
    assert "is its parent's" in json.loads(answer.calls[-1].request)["messages"][-1]["text"]


def test_prompts_carry_the_grammar_costs_memory_and_parent() -> None:
    nodes = (node(0, "A+M", 1 / 3, hypothesis="ATTN first"), node(1, "2M", None, detail="x\x1b[2J"))
    agent = scripted([], max_repairs=0)
    greedy = View(nodes, turn=7, noise=0.0123456789012345)
    assert isinstance(agent.proposer, ScriptedProposer)
    prompt = agent.proposer.prompt(agent._request(greedy, 0))
    said = prompt.messages[0].text
    for code in SPACE.codes:
        cost = layer_cost(Layer(code), preset(SPACE.preset))
        assert f"- `{code}`" in prompt.system
        assert f"{cost.params} parameters" in prompt.system
    assert repr(1 / 3) in said  # at full precision
    assert "0.0123456789012345" in said
    assert "ATTN first" in said
    assert "failed: diverged" in said
    assert "<<<diverged: x [2J>>>" in said  # the log is data: no control characters


def test_a_quote_bounds_every_attempt_and_an_unknown_price_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    price = {"openai:m": {"input": 1, "output": 10}}
    known = ModelProposer(model="openai:m", prices=price, max_repairs=2, max_output_tokens=100)
    request = scripted([])._request(View(), 0)
    quote = known.quote(request)
    assert quote is not None
    assert quote.calls == 3
    assert quote.usd is not None
    assert quote.usd > 3 * 100 * 10 / 1e6
    unknown = ModelProposer(model="openai:other").quote(request)
    assert unknown is not None
    assert unknown.usd is None


def test_a_missing_name_or_option_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"unknown proposer 'evolutoin'.*'evolution'"):
        Agent(AgentSpec("a", "evolutoin", SPACE))
    with pytest.raises(ValueError, match="refused its options"):
        Agent(AgentSpec("a", "random", SPACE, scaffold="greedy", scaffold_options={"draft": 1}))
    with pytest.raises(ValueError, match="cannot import"):
        Agent(AgentSpec("a", "nowhere.at_all:Proposer", SPACE))


def test_nobody_wins_by_a_wider_layer() -> None:
    fixed = Space(("A", "M"), 1, 3, "mini")
    for text in ("A+M{hidden=4096}", "[A{kv=2}|M]"):
        with pytest.raises(ValueError, match="fixed sizes"):
            fixed.read(text)
    assert str(fixed.read("[A|M]{fuse=sub}+2*A")) == "[A|M]{fuse=sub}+2*A"
    agent = Agent(AgentSpec("a", "scripted", fixed, options={"replies": []}))
    assert isinstance(agent.proposer, ScriptedProposer)
    assert "hidden" not in agent.proposer.prompt(agent._request(View(), 0)).system


def test_best_of_n_asks_the_same_question_whatever_was_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    spec = AgentSpec("b", "best-of-n", SPACE, options={"model": "openai:m"}, goal="Tasks: recall.")
    agent = Agent(spec)
    assert agent.scaffold_name == "one-shot"
    assert isinstance(agent.proposer, BestOfN)
    known = View((node(0, "A+M", 0.7, hypothesis="a clue"), node(1, "2M", None)), 9, noise=0.01)
    asked = agent._request(known, 1)
    prompt = agent.proposer.prompt(asked)
    assert prompt == agent.proposer.prompt(agent._request(View(), 0))
    improving = replace(asked, decision=Decision("improve", (known.nodes[0],), "r"))
    assert agent.proposer.prompt(improving) == prompt
    text = prompt.system + prompt.messages[0].text
    assert "Tasks: recall." in text
    assert not any(clue in text for clue in ("a clue", "0.7", "0.01", "Measured so far"))
    with_memory = replace(spec, proposer="llm", scaffold="one-shot")
    other = Agent(with_memory).proposer
    assert isinstance(other, ModelProposer)
    assert "a clue" in other.prompt(asked).messages[0].text
