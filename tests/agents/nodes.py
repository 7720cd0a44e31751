"""Nodes, views and whole simulated searches for the tests of agents."""

from __future__ import annotations

import random

from agents.scaffolds import Scaffold
from search_space.space import Space
from storage.records import Node, View

SPACE = Space(("A", "M", "Mb"), 2, 5, "mini", options=True)
PATTERNS = ("A+M", "2M", "Mb+A", "2A+M", "A+Mb+M", "3M", "Mb+2M", "A+2Mb")


def node(slot: int, pattern: str = "A+M", score: float | None = 0.5, **fields: object) -> Node:
    values = {
        "agent": "a",
        "candidate": slot + 1,
        "operator": "draft",
        "hypothesis": "",
        "parents": (),
        "status": "accepted",
        "failure": None if score is not None else "diverged",
        **fields,
    }
    return Node(slot=slot, pattern=pattern, score=score, **values)  # type: ignore[arg-type]


def child(slot: int, score: float | None, *parents: int, **fields: object) -> Node:
    """What was made from the nodes of these slots."""
    made: dict[str, object] = {"operator": "improve", "parents": tuple(p + 1 for p in parents)}
    made["pattern"] = PATTERNS[slot % len(PATTERNS)]
    return node(slot, score=score, **{**made, **fields})  # type: ignore[arg-type]


def played(scaffold: Scaffold, seed: int, turns: int, lag: int = 1, failing: float = 0.2) -> View:
    """What an agent of this scaffold sees at turn ``turns`` when each of its proposals gets a random score
    or failure, some are duplicates, and the last ``lag`` - 1 are in flight."""
    rng, nodes = random.Random(seed), list[Node]()
    for turn in range(turns):
        view = View(tuple(nodes[: max(0, turn - lag + 1)]), turn)
        decision = scaffold.next(view, random.Random(f"{seed} {turn}"))
        nodes.append(_outcome(turn, nodes, rng, failing, decision.operator, decision.parents))
    return View(tuple(nodes[: max(0, turns - lag + 1)]), turns)


def _outcome(
    slot: int,
    earlier: list[Node],
    rng: random.Random,
    failing: float,
    operator: str,
    parents: tuple[Node, ...],
) -> Node:
    made = {"operator": operator, "parents": tuple(p.candidate for p in parents)}
    again = rng.choice(earlier) if earlier and rng.random() < 0.1 else None
    if again is not None and again.candidate is not None:
        found = {"candidate": again.candidate, "failure": again.failure, "status": "duplicate"}
        return node(slot, again.pattern, again.score, **made, **found)
    costs = {"flops_per_token": rng.uniform(1e5, 4e5), "state_bytes": rng.choice([0, 5000, 90000])}
    score = None if rng.random() < failing else rng.choice([0.25, 0.5, rng.random()])
    if score is None and rng.random() < 0.3:  # a proposal that came to nothing
        return node(slot, "", None, **made, candidate=None, failure="invalid-reply")
    return node(slot, PATTERNS[slot % len(PATTERNS)], score, **made, **costs)
