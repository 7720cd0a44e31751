"""Scaffolds: pure folds over the view that follow the published rules, also with results in flight."""

import math
import pickle
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nodes import child, node, played

from agents.agent import make
from agents.scaffolds import SCAFFOLDS, Scaffold
from agents.scaffolds.debugging import buggy_leaves
from agents.scaffolds.evolution import Evolution
from agents.scaffolds.map_elites import MapElites
from agents.scaffolds.mcts import Branch, Mcts, grow
from agents.scaffolds.values import values
from storage.records import Node, View

SMALL: dict[str, dict[str, float]] = {
    "one-shot": {},
    "greedy": {"drafts": 3, "debug_depth": 2},
    "incumbent": {},
    "tournament": {"population": 3, "sample": 2},
    "mcts": {"children": 2, "debug_depth": 2},
    "evolution": {"islands": 2, "generation": 3, "migrate_every": 2},
    "map-elites": {"drafts": 3, "bins": 2},
    "workspace": {"turns": 3},
}
searches = st.tuples(st.integers(0, 10**6), st.integers(0, 40), st.integers(1, 6))


def small(name: str) -> Scaffold:
    scaffold: Scaffold = make(name, SCAFFOLDS, SMALL[name], "scaffold")
    return scaffold


def test_every_scaffold_is_tested_here() -> None:
    assert SMALL.keys() == SCAFFOLDS.keys()


@pytest.mark.parametrize("name", SCAFFOLDS)
@given(searches, st.integers())
@settings(max_examples=25)
def test_a_decision_is_a_function_of_view_and_seed(
    name: str, search: tuple[int, int, int], seed: int
) -> None:
    """Another object, another process: resuming is reading."""
    view = played(small(name), *search)
    decision = small(name).next(view, random.Random(seed))
    read = pickle.loads(pickle.dumps(view))
    assert decision == small(name).next(read, random.Random(seed))
    assert decision.reason


@pytest.mark.parametrize("name", SCAFFOLDS)
@given(searches)
@settings(max_examples=25)
def test_a_decision_starts_from_what_its_operator_needs(
    name: str, search: tuple[int, int, int]
) -> None:
    view = played(small(name), *search)
    decision = small(name).next(view, random.Random(0))
    parents = decision.parents
    assert set(parents) <= set(view.nodes)
    assert len(parents) == {"draft": 0, "improve": 1, "debug": 1, "crossover": 2}[decision.operator]
    assert len({parent.candidate for parent in parents}) == len(parents)
    for parent in parents:
        assert parent.candidate is not None
        assert (parent.score is None) == (decision.operator == "debug")


@pytest.mark.parametrize("name", [name for name in SCAFFOLDS if name != "one-shot"])
def test_every_scaffold_uses_what_was_measured(name: str) -> None:
    view = played(small(name), 1, 30, failing=0.0)
    asked = [small(name).next(view, random.Random(seed)) for seed in range(20)]
    assert {d.operator for d in asked} <= {"improve", "crossover"}
    worst = replace(view, nodes=tuple(replace(n, score=1 - (n.score or 0)) for n in view.nodes))
    assert asked != [small(name).next(worst, random.Random(seed)) for seed in range(20)]


def test_an_option_that_cannot_be_is_refused_in_a_sentence() -> None:
    for name, option in (("evolution", "islands"), ("mcts", "children"), ("map-elites", "bins")):
        with pytest.raises(ValueError, match=rf"scaffold_options.{option} must be above 0, not 0"):
            make(name, SCAFFOLDS, {option: 0}, "scaffold")


# ------------------------------------------------------------------------------------------- values


def test_values_are_min_max_within_a_rung_and_bands_across() -> None:
    nodes = [node(0, score=0.2), node(1, score=0.6), node(2, score=0.3), node(3, score=None)]
    found = values(nodes)
    assert [found[i] for i in range(4)] == pytest.approx([0, 1, 0.25, 0])
    assert values([node(0, score=0.7), node(1, score=0.7)]) == {0: 0.5, 1: 0.5}
    raised = [*nodes, node(4, score=0.1, rung=1), node(5, score=0.2, rung=1)]
    assert [values(raised)[i] for i in range(6)] == pytest.approx([0, 0.5, 0.125, 0, 0.5, 1])


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1, width=16)), min_size=1, max_size=20))
def test_values_keep_the_order_of_standing(scores: list[tuple[int, float]]) -> None:
    nodes = [node(i, score=score, rung=rung) for i, (rung, score) in enumerate(scores)]
    found = values(nodes)
    ranked = sorted(nodes, key=lambda n: n.standing)
    assert all(found[a.slot] <= found[b.slot] + 1e-12 for a, b in pairwise(ranked))
    assert all(0 <= value <= 1 for value in found.values())


# --------------------------------------------------------------------------------------------- mcts

# Drafts a and b; c and d were made from b. The values are a 0, b .5, c 1, d 0 (failed).
TREE = (node(0, score=0.2), node(1, score=0.6), child(2, 1.0, 1), child(3, None, 1))


def test_uct_by_hand() -> None:
    """Root: 4 visits. a: mean 0 in 1 visit. b: mean (.5 + 1 + 0) / 3 in 3 visits. Both are below the full
    root; b is full, too, and of its children only c can be improved."""
    a, b = grow(View(TREE, 4), 2).children
    assert (b.visits, b.total) == (3, pytest.approx(1.5))
    assert a.uct(0.25) == pytest.approx(0.25 * math.sqrt(math.log(4)))  # .294
    assert b.uct(0.25) == pytest.approx(0.5 + 0.25 * math.sqrt(math.log(4) / 3))  # .670
    rule = Mcts(children=2, debug_depth=0)
    decision = rule.next(View(TREE, 4), random.Random(0))
    assert (decision.operator, decision.parents) == ("improve", (TREE[2],))
    # Far from greedy, a's fewer visits outweigh its value: c * 1.177 against .5 + c * .680.
    assert Mcts(1.1, 2, 0).next(View(TREE, 4), random.Random(0)).parents == (TREE[0],)
    assert Mcts(0.9, 2, 0).next(View(TREE, 4), random.Random(0)).parents == (TREE[2],)


def test_mcts_fills_the_root_then_debugs_then_goes_down() -> None:
    rng = random.Random(0)
    assert Mcts().next(View(TREE[:2], 2), rng).operator == "draft"
    decision = Mcts(children=2).next(View(TREE, 4), rng)
    assert (decision.operator, decision.parents) == ("debug", (TREE[3],))
    fixed = child(4, 0.9, 3, operator="debug")
    best = Mcts(c=0, children=2).next(View((*TREE, fixed), 5), rng).parents
    assert best == (TREE[2],)  # mean values: c 1, d's subtree (0 + .875) / 2
    assert Mcts(children=2, debug_depth=1).next(View((*TREE, fixed), 5), rng).operator == "improve"


def test_what_was_mended_can_be_improved_and_what_failed_cannot() -> None:
    failed, fixed = node(0, score=None), child(1, 0.9, 0, operator="debug")
    rule = Mcts(children=1)
    assert rule.next(View((failed, fixed), 2), random.Random(0)).parents == (fixed,)
    dead = View((node(0, score=None),), 1)
    assert Mcts(children=1, debug_depth=0).next(dead, random.Random(0)).operator == "draft"


def test_a_duplicate_is_a_visit_and_grows_no_second_tree() -> None:
    again = child(2, 0.2, 1, candidate=1, status="duplicate")
    later = child(3, 0.4, 0)
    root = grow(View((*TREE[:2], again, later), 4), 2)
    a, b = root.children
    assert ([x.node for x in a.children], [x.node for x in b.children]) == ([later], [again])
    assert not b.children[0].open
    broken = child(4, None, 1, failure="infrastructure")
    assert grow(View((*TREE, broken), 5), 2).visits == 4


@given(searches)
@settings(max_examples=40)
def test_the_tree_has_the_visits_and_values_of_its_definition(search: tuple[int, int, int]) -> None:
    view = played(Mcts(children=2), *search)
    worth, root = values(view.nodes), grow(view, 2)
    assert root.visits == len(view.nodes)
    for branch in below(root):
        subtree = [branch, *below(branch)]
        assert branch.visits == len(subtree)
        assert branch.total == pytest.approx(sum(worth[b.node.slot] for b in subtree if b.node))
        grows = branch.node is not None and branch.node.score is not None and branch.room > 0
        assert branch.open == (grows or any(c.open for c in branch.children))
        assert branch.node is not None
        first = view.node(branch.node.parents[0]) if branch.node.parents else None
        assert branch.parent is not None
        assert branch.parent.node == first
    assert sorted(b.node.slot for b in below(root) if b.node) == [n.slot for n in view.nodes]


def below(branch: Branch) -> Iterator[Branch]:
    for one in branch.children:
        yield one
        yield from below(one)


def shares(rule: Scaffold, view: View, draws: int = 2000) -> dict[tuple[str, int | None], float]:
    """How often each operator and slot is chosen."""
    chosen = Counter[tuple[str, int | None]]()
    for seed in range(draws):
        decision = rule.next(view, random.Random(seed))
        chosen[decision.operator, decision.parents[0].slot if decision.parents else None] += 1
    return {key: count / draws for key, count in chosen.items()}


def test_decisions_in_flight_together_share_the_leaves_and_starve_none() -> None:
    """Both leaves have room for two; the four decisions in flight take the four places, about once each."""
    view = View(TREE[:2], turn=2)
    assert shares(Mcts(children=2), view) == {("improve", 1): 1.0}
    four = shares(Mcts(children=2), replace(view, turn=5))
    assert four.keys() == {("improve", 0), ("improve", 1)}
    assert four["improve", 1] == pytest.approx(0.5, abs=0.05)
    # Beyond the room of the whole tree the root is widened.
    eight = shares(Mcts(children=2), replace(view, turn=9))
    assert eight["draft", None] == pytest.approx(4 / 8, abs=0.05)


def test_decisions_in_flight_together_do_not_all_debug_the_same_leaf() -> None:
    buggy = View((*TREE[:2], node(2, score=None), node(3, score=None)), turn=7)
    found = shares(Mcts(children=4), buggy)
    assert found["debug", 3] == pytest.approx(1 / 4, abs=0.04)
    assert found["debug", 2] == pytest.approx(1 / 4, abs=0.04)
    assert found["improve", 1] == pytest.approx(1 / 2, abs=0.05)


def test_equal_leaves_are_chosen_by_the_seed() -> None:
    equal = View((node(0, score=0.5), node(1, score=0.5)), turn=2)
    found = shares(Mcts(children=2), equal)
    assert found["improve", 0] == pytest.approx(0.5, abs=0.05)


def test_a_chain_longer_than_pythons_stack_is_descended() -> None:
    chain = (node(0), *(child(i, i / 2000, i - 1) for i in range(1, 1500)))
    decision = Mcts(children=1).next(View(chain, 1500), random.Random(0))
    assert decision.parents == (chain[-1],)


@given(searches)
@settings(max_examples=30)
def test_greedy_and_mcts_debug_the_same_leaves(search: tuple[int, int, int]) -> None:
    view = played(Mcts(children=2), *search)
    leaves = buggy_leaves(view, 2)
    seen = replace(view, turn=len(view.nodes))  # nothing in flight
    for name in ("greedy", "mcts"):
        decision = small(name).next(replace(seen, turn=max(3, seen.turn)), random.Random(0))
        if leaves and len(seen.nodes) >= 3:
            assert decision.parents == (leaves[0],)
    made_from = {parent for n in view.nodes for parent in n.parents}
    assert all(leaf.score is None and leaf.candidate not in made_from for leaf in leaves)


# ---------------------------------------------------------------------------------------- evolution


def test_a_child_enters_its_island_only_at_its_mean_or_above() -> None:
    """Turns alternate between two islands."""
    scores = [0.5, 0.1, 0.7, None, 0.6, 0.05, 0.59, 0.1]
    nodes = [node(i, score=s) if i < 3 else child(i, s, 0) for i, s in enumerate(scores)]
    islands = Evolution(islands=2).members(View(tuple(nodes), 8))
    assert [[n.slot for n in home] for home in islands] == [[0, 2, 4], [1, 7]]


def test_scores_of_another_rung_are_no_mean_to_be_compared_with() -> None:
    high = (node(0, score=0.9, rung=1), child(1, 0.3, 0), child(2, 0.2, 0))
    assert Evolution().members(View(high, 3)) == [[high[0], high[1]]]


def test_ring_migration_copies_the_best_of_each_island_to_the_next() -> None:
    rule = Evolution(islands=3, generation=3, migrate_every=1)
    founders = tuple(node(i, score=s) for i, s in enumerate([0.5, 0.9, 0.1]))
    assert rule.members(View(founders, 3)) == [[founders[0]], [founders[1]], [founders[2]]]
    # Island 0 now holds .5 and .1, 1 holds .9 and .5, 2 holds .1 and .9; their means are .3, .7, .5.
    children = (child(3, 0.29, 0), child(4, 0.7, 1), child(5, 0.5, 2))
    islands = rule.members(View((*founders, *children), 6))
    assert [[n.slot for n in home] for home in islands] == [[0, 2], [1, 0, 4], [2, 1, 5]]
    unmoved = Evolution(islands=3, generation=3).members(View((*founders, *children), 6))
    assert [[n.slot for n in home] for home in unmoved] == [[0], [1], [2, 5]]


@given(searches, st.integers(1, 4), st.integers(0, 2))
@settings(max_examples=40)
def test_who_lives_where_does_not_change_with_what_comes_after(
    search: tuple[int, int, int], islands: int, period: int
) -> None:
    rule = Evolution(islands=islands, generation=3, migrate_every=period)
    view = played(rule, *search)
    whole = rule.members(view)
    for known in range(len(view.nodes)):
        part = rule.members(View(view.nodes[:known], known))
        assert all(home[: len(h)] == h for h, home in zip(part, whole, strict=True))
    for home in whole:
        assert len({n.candidate for n in home}) == len(home)
        assert all(n.score is not None for n in home)


@given(searches)
@settings(max_examples=40)
def test_a_childs_parents_live_on_its_island(search: tuple[int, int, int]) -> None:
    rule = Evolution(islands=2, generation=3, crossover_from=1, crossover=1.0)
    view = played(rule, *search)
    decision = rule.next(view, random.Random(0))
    home = rule.members(view)[view.turn % 2]
    assert set(decision.parents) <= set(home)
    if view.turn >= 3:
        assert len(decision.parents) == min(2, len(home))


def test_parents_are_drawn_by_softmax_of_the_normalised_scores() -> None:
    view = View(tuple(node(i, score=s) for i, s in enumerate([0.2, 0.4, 0.6])), 5)
    found = shares(Evolution(generation=3), view, 4000)
    weights = [math.exp(x) for x in (0, 0.5, 1)]
    for slot, weight in enumerate(weights):
        assert found["improve", slot] == pytest.approx(weight / sum(weights), abs=0.03)
    assert shares(Evolution(generation=3, temperature=1e-3), view, 50) == {("improve", 2): 1}


def test_two_parents_come_from_generation_two_on_half_of_the_time() -> None:
    rule, nodes = Evolution(generation=3), tuple(node(i, score=i / 9) for i in range(6))
    early = [rule.next(View(nodes, 5), random.Random(seed)) for seed in range(200)]
    assert {d.operator for d in early} == {"improve"}
    late = [rule.next(View(nodes, 6), random.Random(seed)) for seed in range(2000)]
    crossed = [d for d in late if d.operator == "crossover"]
    assert len(crossed) / 2000 == pytest.approx(0.5, abs=0.04)
    assert all(d.parents[0] != d.parents[1] for d in crossed)
    alone = rule.next(View(nodes[:1], 6), random.Random(1))
    assert alone.operator == "improve"


def test_an_island_where_nobody_lives_drafts() -> None:
    view = View((node(0), node(1, score=None), node(2), node(3, score=None)), turn=5)
    decision = Evolution(islands=2, generation=2).next(view, random.Random(0))
    assert (decision.operator, decision.reason) == (
        "draft",
        "generation 2: nobody lives on island 1",
    )


# --------------------------------------------------------------------------------------- map-elites


def priced(slot: int, score: float, flops: float, state: int, rung: int = 0) -> Node:
    return node(slot, score=score, flops_per_token=flops, state_bytes=state, rung=rung)


def test_elites_are_the_best_of_each_cell() -> None:
    nodes = (
        priced(0, 0.5, 1000, 0),
        priced(1, 0.6, 1010, 0),  # the same cell: within a quarter of a doubling
        priced(2, 0.1, 2000, 0),
        priced(3, 0.2, 1000, 4096),
        priced(4, 0.3, 1000, 4200),
        priced(5, 0.1, 1000, 4100, rung=1),  # a higher rung stands above
    )
    found = MapElites().elites(View(nodes, 6))
    assert {n.slot for n in found.values()} == {1, 2, 5}
    tied = MapElites().elites(View((nodes[0], priced(6, 0.5, 1000, 0)), 2))
    assert [n.slot for n in tied.values()] == [0]


@given(searches)
@settings(max_examples=40)
def test_every_cell_has_one_elite_and_nobody_in_it_is_better(search: tuple[int, int, int]) -> None:
    rule = MapElites(drafts=3)
    view = played(rule, *search)
    elites = rule.elites(view)
    assert {rule.cell(n) for n in view.scored} == elites.keys()
    for n in view.scored:
        assert n.standing <= elites[rule.cell(n)].standing
    for cell, elite in elites.items():
        assert rule.cell(elite) == cell


def test_a_cell_is_drawn_whatever_its_score_and_size() -> None:
    crowd = [priced(i, 0.9, 1000, 0) for i in range(8)]
    view = View((*crowd, priced(8, 0.1, 9000, 0), priced(9, 0.2, 9000, 9000)), 10)
    found = shares(MapElites(), view)
    assert found.keys() == {("improve", 0), ("improve", 8), ("improve", 9)}
    assert all(share == pytest.approx(1 / 3, abs=0.04) for share in found.values())
    assert MapElites(drafts=11).next(view, random.Random(0)).operator == "draft"
