"""Who a slot trains further, and how agents see that: pure functions of the slots before it.

A promotion takes a slot of its own: a free worker of ASHA, too, either promotes or begins a candidate.
So the rule of slots holds for it as it is: the decision for slot k sees exactly the results of slots up
to k - lag, those of promotions among them, and a slot is complete when its own evaluations have ended.
Budgets do not count these slots, and each arm promotes from its own candidates, so that a control trains
about as much as the search. What passes a rung is `evaluator.rungs`'; nothing is trained or written here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from archwright.schedule import Arm
from archwright.setup import REFERENCES
from evaluator.rungs import Promotion, promotable
from storage.records import Node


@dataclass(frozen=True)
class Advance:
    """A candidate that goes on to ``rung``, in the name of the agent that found it, and why.

    ``what`` is done is to promote it, or to run a script again (`archwright.incumbents`).
    """

    agent: str
    candidate: int
    rung: int
    reason: str
    numbers: dict[str, Any]
    what: str = "promote"


def next_advance(
    arms: Sequence[Arm],
    nodes: Sequence[Node],
    promoted: Collection[tuple[str, int, int]],
    count: int,
    eta: int,
    margin: Callable[[int], float],
) -> Advance | None:
    """The next to go on, of the highest rung where anyone does, then of the first arm; None for nobody.

    ``nodes`` are those of the slots it sees, ``promoted`` the (agent, candidate, rung) of all promotions
    so far, seen or not, and ``margin`` is how far apart two scores of a rung must be to be told apart.
    References all go on: they give every rung its noise.
    """
    for rung in reversed(range(count - 1)):
        for arm in arms:
            results = results_at(rung, arm, nodes)
            before = {c for agent, c, to in promoted if agent in arm.agents and to == rung + 1}
            if results.keys() <= before:
                continue
            scores = {c: None if n.score is None else (n.score,) for c, n in results.items()}
            rate = 1 if arm.name == REFERENCES else eta
            noise = margin(rung)
            if found := promotable(scores, before, rate, (noise,)):
                return _advance(results[found[0].candidate], found[0], arm.name, noise)
    return None


def results_at(rung: int, arm: Arm, nodes: Iterable[Node]) -> dict[int, Node]:
    """An arm's results at a rung by candidate, older first."""
    found: dict[int, Node] = {}
    for node in nodes:
        if node.rung == rung and node.agent in arm.agents and node.candidate is not None:
            found.setdefault(node.candidate, node)
    return found


def _advance(node: Node, found: Promotion, arm: str, margin: float) -> Advance:
    why = f"not told from place {found.quota}" if found.tied else f"of the best {found.quota}"
    reason = f"{arm}: place {found.place} of {found.results} at rung {node.rung}, {why}"
    numbers = {**asdict(found), "arm": arm, "rung": node.rung, "score": node.score, "noise": margin}
    return Advance(node.agent, found.candidate, node.rung + 1, reason, numbers)


def raised(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes of an arm without those of promotions, each as its candidate stands at the highest rung
    that it reached, its lower scores beside it: agents and rankings know a candidate by its latest
    result. A promotion that broke on our side reached nothing."""
    nodes = tuple(nodes)
    scores = {(node.candidate, node.rung): node.score for node in nodes}
    highest: dict[int | None, Node] = {}
    for node in nodes:
        broken = node.status == "promoted" and node.failure == "infrastructure"
        if not broken and node.rung >= highest.get(node.candidate, node).rung:
            highest[node.candidate] = node
    return tuple(_as(node, highest, scores) for node in nodes if node.status != "promoted")


def _as(
    node: Node,
    highest: Mapping[int | None, Node],
    scores: Mapping[tuple[int | None, int], float | None],
) -> Node:
    if node.candidate is None:
        return node
    top = highest[node.candidate]
    lower = tuple(scores.get((node.candidate, rung)) for rung in range(top.rung))
    node = replace(node, rung=top.rung, score=top.score, lower=lower)
    return replace(node, failure=top.failure, detail=top.detail)
