"""The grammar of token mixers: complete, closed under mutation and recombination, read back, deterministic.

That what it writes passes the gate is held by tests/sandbox/test_gate.py, for modules of this grammar.
"""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.grammar import Genome, Standard, cross, draw, mutate, read, source
from agents.grammar.genome import CORES, STYLE
from agents.proposers import PROPOSERS, Request
from agents.scaffolds.base import Decision
from sandbox.settings import read as settings_in
from search_space.space import Space
from storage.records import Answer, Node, View

SPACE = Space((), 1, 1, "mini")
SEEDS = st.integers(0, 2**31)


def drawn(seed: int) -> Genome:
    return draw(random.Random(seed))


def test_every_production_appears() -> None:
    found = {
        (dict(g.choices)["core"], *pair) for g in map(drawn, range(3000)) for pair in g.choices
    }
    for core, genes in CORES.items():
        wanted = {(core, gene, option) for gene, options in genes.items() for option in options}
        assert wanted <= found


@settings(max_examples=200, deadline=None)
@given(SEEDS, SEEDS)
def test_the_same_seed_writes_the_same_source_and_genomes_differ_where_sources_do(
    one: int, two: int
) -> None:
    assert drawn(one) == drawn(one)
    assert (source(drawn(one)) == source(drawn(two))) == (drawn(one) == drawn(two))
    body = [source(drawn(seed)).partition("\n")[2] for seed in (one, two)]
    assert (body[0] == body[1]) == (drawn(one) == drawn(two))


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_a_source_is_python_in_which_its_genome_can_be_read(seed: int) -> None:
    text = source(drawn(seed))
    compile(text, "mixer.py", "exec")
    assert read(text) == drawn(seed)
    assert all(len(line) <= 100 for line in text.splitlines()[1:])


@settings(max_examples=200, deadline=None)
@given(SEEDS, SEEDS)
def test_a_mutation_changes_one_gene_or_the_core_and_leaves_the_style(one: int, seed: int) -> None:
    parent = drawn(one)
    child = mutate(parent, random.Random(seed))
    before, after = dict(parent.choices), dict(child.choices)
    changed = [gene for gene in before.keys() & after.keys() if before[gene] != after[gene]]
    assert len(changed) == 1
    assert not STYLE & set(changed)
    assert before.keys() == after.keys() or changed == ["core"]


@settings(max_examples=200, deadline=None)
@given(SEEDS, SEEDS, SEEDS)
def test_a_recombination_has_every_gene_from_a_parent_that_has_it(
    one: int, two: int, seed: int
) -> None:
    parents = dict(drawn(one).choices), dict(drawn(two).choices)
    child = cross(drawn(one), drawn(two), random.Random(seed))
    for gene, production in child.choices:
        had = {parent[gene] for parent in parents if gene in parent}
        assert production in had


STANDARD = Standard(lr=4e-3, depth=2, width=64)


@settings(max_examples=200, deadline=None)
@given(SEEDS, SEEDS)
def test_settings_are_genes_as_the_others_and_a_file_says_them(one: int, two: int) -> None:
    parents = [draw(random.Random(seed), settings=True) for seed in (one, two)]
    rng = random.Random(one + two)
    for genome in (*parents, mutate(parents[0], rng), cross(parents[0], parents[1], rng)):
        text = source(genome, STANDARD)
        assert read(text) == genome
        found, genes = settings_in(text), dict(genome.choices)
        assert found.lr == 4e-3 * {"same": 1, "half": 0.5, "double": 2}[genes["lr"]]
        sizes = {"same": (2, 64), "deeper": (4, 48), "wider": (1, 96)}
        assert (found.depth, found.width) == sizes[genes["shape"]]
        assert text.replace(f"SETTINGS = {found_in(text)}\n\n", "") == source(genome)


def found_in(text: str) -> str:
    return text.partition("SETTINGS = ")[2].partition("\n")[0]


def test_the_grammar_of_a_fixed_campaign_sets_nothing() -> None:
    assert not settings_in(source(drawn(3))).given
    assert not {"lr", "shape"} & dict(drawn(3).choices).keys()
    drafted = asyncio.run(
        PROPOSERS["grammar"](settings={"lr": 4e-3, "depth": 2, "width": 64}).propose(
            Request(Decision("draft", (), ""), View(), SPACE, 5)
        )
    )
    assert settings_in(drafted.source or "").given.keys() == {"lr", "depth", "width"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "import torch",
        '"""Token mixer: core=features."""',
        '"""Token mixer: core=nothing gate=none."""',
        source(drawn(0)).replace("gate=none", "gate=open"),
        source(drawn(0)).replace("gate=none ", ""),
        source(drawn(0)).replace('."""', ' lr=half."""'),
    ],
)
def test_what_the_grammar_did_not_write_has_no_genome(text: str) -> None:
    assert read(text) is None


def propose(decision: Decision, seed: int, *seen: Node) -> Answer:
    request = Request(decision, View(seen), SPACE, seed)
    return asyncio.run(PROPOSERS["grammar"]().propose(request))


def node(slot: int, text: str) -> Node:
    return Node(slot, "g", slot + 1, "X", "draft", "", (), "accepted", 0.5, source=text)


def written(answer: Answer) -> Genome:
    genome = read(answer.source or "")
    assert genome is not None
    return genome


def test_it_drafts_improves_and_recombines_what_its_parents_sources_say() -> None:
    one, two = node(0, source(drawn(1))), node(1, source(drawn(2)))
    draft = propose(Decision("draft", (), ""), 5)
    assert draft == propose(Decision("draft", (), ""), 5)
    assert written(draft) != written(propose(Decision("draft", (), ""), 6))
    improved = propose(Decision("improve", (one,), ""), 5, one)
    assert improved.parents == (1,)
    assert written(improved) == mutate(drawn(1), random.Random(5))
    both = propose(Decision("crossover", (one, two), ""), 5, one, two)
    assert both.parents == (1, 2)
    assert written(both) == cross(drawn(1), drawn(2), random.Random(5))
    foreign = propose(Decision("debug", (node(0, "import torch"),), ""), 5)
    assert written(foreign) == written(draft)  # a draft takes its place


def test_it_proposes_nothing_twice_while_there_is_something_else() -> None:
    parent = node(0, source(drawn(1)))
    seen = [parent]
    for slot in range(1, 15):
        answer = propose(Decision("improve", (parent,), ""), slot % 2, *seen)
        assert answer.source not in {one.source for one in seen}
        seen.append(node(slot, answer.source or ""))


def test_two_equal_parents_have_a_mutated_child() -> None:
    parent = node(0, source(drawn(1)))
    answer = propose(Decision("crossover", (parent, parent), ""), 3)
    assert written(answer) != drawn(1)
