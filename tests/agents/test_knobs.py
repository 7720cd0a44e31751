"""`knobs` changes numbers and nothing else; `incumbent` starts from who has not been beaten."""

from __future__ import annotations

import ast
import asyncio
import difflib
import random

from agents.proposers import Request, Writing
from agents.proposers.knobs import KNOB, KnobsProposer, turned
from agents.scaffolds.base import Decision
from agents.scaffolds.incumbent import Incumbent
from search_space.space import Space
from storage.records import Answer, Node, View

SCRIPT = """
RATE = 3e-3  # the learning rate
BETA = 0.98
DEPTH = 1
DROP = 0.0
NAME = "text"

def build(length):
    WIDTH = 9
    return DEPTH * [RATE]
"""


def node(slot: int, source: str, score: float = 0.5) -> Node:
    return Node(slot, "a", slot + 1, "train.py", "", "", (), "accepted", score, source=source)


EMPTY = View()


def asked(source: str, seed: int, view: View = EMPTY, parents: tuple[Node, ...] = ()) -> Answer:
    decision, writing = Decision("improve", parents, ""), Writing("train.py", "", source)
    request = Request(decision, view, Space((), 1, 1, "mini"), seed, writing=writing)
    return asyncio.run(KnobsProposer().propose(request))


def changed(old: str, new: str) -> list[str]:
    """The lines of the new text that the old has not."""
    lines = difflib.ndiff(old.splitlines(), new.splitlines())
    return [line[2:] for line in lines if line.startswith("+ ")]


def test_each_proposal_turns_one_or_two_knobs_and_leaves_the_rest() -> None:
    answers = [asked(SCRIPT, seed) for seed in range(60)]
    lines = [changed(SCRIPT, answer.source or "") for answer in answers]
    assert {len(found) for found in lines} == {1, 2}
    knobs = {line.partition(" = ")[0] for found in lines for line in found}
    assert knobs == {"RATE", "BETA", "DEPTH", "DROP"}
    rates = [line for found in lines for line in found if line.startswith("RATE")]
    assert all(line.endswith("  # the learning rate") for line in rates)
    assert asked(SCRIPT, 7) == answers[7]


def test_a_turned_number_is_another_of_its_kind() -> None:
    rng = random.Random(0)
    for text in ("1", "2", "3", "256", "1_000", "0.0", "0.5", "0.98", "3e-3", "1.0", "12.5"):
        for _ in range(20):
            old, new = ast.literal_eval(text), ast.literal_eval(turned(text, rng))
            assert (type(new), new != old) == (type(old), True)
            assert new >= 1 if isinstance(new, int) else new > 0
            assert new < 1 or not 0.5 < old < 1
            assert KNOB.match(f"X = {new}")  # it can be turned again


def test_it_starts_from_the_parent_and_proposes_nothing_twice() -> None:
    parent = node(0, SCRIPT.replace("DEPTH = 1", "DEPTH = 7"))
    seen: list[Node] = [parent]
    for seed in range(20):
        source = asked(SCRIPT, seed, View(tuple(seen)), (parent,)).source or ""
        assert source not in {known.source for known in seen}
        assert "DEPTH = 1\n" not in source
        seen.append(node(1 + seed, source))


def test_a_script_without_knobs_is_a_failure_that_says_so() -> None:
    answer = asked("def build(length): ...\n", 0)
    assert (answer.failure, answer.source) == ("no-knobs", None)


def test_incumbent_improves_whoever_was_not_beaten_and_not_the_best_looking() -> None:
    lucky, held = node(3, SCRIPT, 0.9), node(1, SCRIPT, 0.6)
    scaffold, rng = Incumbent(), random.Random(0)
    assert scaffold.next(View((held, lucky), incumbent=held), rng).parents == (held,)
    assert scaffold.next(View((held, lucky)), rng).parents == (lucky,)  # no campaign of scripts
    assert scaffold.next(View(), rng).operator == "draft"
