"""What an agent remembers of a campaign: a bounded, typed selection of its view, as prompt lines.

One line per class of failure; best, ancestors of the parents, recent and diverse nodes, each candidate
once, each as its analysis. It makes nothing up and summarises nothing with a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import islice

from agents.analysis import line
from agents.prompts import clean
from agents.prompts.sections import BYTES_PER_TOKEN
from search_space.pattern import Pattern
from storage.records import Node, View

BEST, CHAIN, RECENT, DIVERSE = 6, 6, 6, 4


def memory(view: View, budget_tokens: int, parents: Sequence[Node] = ()) -> list[str]:
    """The lines that fit into the budget, most useful first, each with why it is there.

    The ``parents`` of the decision are left out, their ancestors not: a prompt shows parents in full.
    """
    lines = [
        *_failures(view),
        *(_marked(kind, node, view) for kind, node in _chosen(view, parents)),
    ]
    kept, room = [], budget_tokens * BYTES_PER_TOKEN
    for text in lines:
        room -= len(text.encode()) + 1
        if room < 0:
            break
        kept.append(text)
    return kept


def _marked(kind: str, node: Node, view: View) -> str:
    return f"- [{kind}] {line(node, view).removeprefix('- ')}"


def _chosen(view: View, parents: Sequence[Node]) -> Iterator[tuple[str, Node]]:
    """The nodes to show with their kind, of each kind its first that no kind before it has shown."""
    again = {n.candidate for n in view.nodes if n.status == "duplicate"}
    shown = {node.candidate: node for node in parents}
    for kind, limit, nodes in _kinds(view, parents, shown):
        for node in islice((n for n in nodes if n.candidate not in shown), limit):
            shown[node.candidate] = node
            yield kind, replace(node, status="duplicate") if node.candidate in again else node


def _kinds(
    view: View, parents: Sequence[Node], shown: Mapping[int | None, Node]
) -> Iterator[tuple[str, int, Iterable[Node]]]:
    """Each kind, how many of it there may be, and what there is, best first. Proposals that came to no
    candidate are of no kind: their class of failure has its line."""
    ranked = sorted(view.scored, key=lambda node: node.standing, reverse=True)
    yield "best", BEST, ranked
    yield "ancestor", CHAIN, _ancestors(view, parents)
    yield "recent", RECENT, (n for n in reversed(view.nodes) if n.candidate is not None)
    others = [node for node in ranked if node.candidate not in shown]
    yield "diverse", DIVERSE, _diverse([n for n in shown.values() if n.pattern], others)


def _ancestors(view: View, parents: Sequence[Node]) -> Iterator[Node]:
    """What the parents were made from, nearest first, each once."""
    todo, seen = [c for node in parents for c in node.parents], set[int]()
    for candidate in todo:  # grows while it is walked
        node = view.node(candidate)
        if node is not None and candidate not in seen:
            seen.add(candidate)
            todo += node.parents
            yield node


def _diverse(chosen: list[Node], others: list[Node]) -> Iterable[Node]:
    """Those least like all that is chosen, one after the other."""
    chosen, others = chosen.copy(), others.copy()
    while others:
        pick = min(
            others,
            key=lambda node: max((_alike(_text(node), _text(c)) for c in chosen), default=0.0),
        )
        others.remove(pick)
        chosen.append(pick)
        yield pick


def _text(node: Node) -> tuple[str, bool]:
    """What makes a node like another, and whether that is code."""
    return node.source or node.pattern, bool(node.source)


@lru_cache(maxsize=100_000)  # the same pairs come again with every prompt
def _alike(one: tuple[str, bool], two: tuple[str, bool]) -> float:
    return SequenceMatcher(a=_parts(*one), b=_parts(*two), autojunk=False).ratio()


@lru_cache(maxsize=10_000)
def _parts(text: str, code: bool) -> tuple[str, ...]:
    """The lines of code, the layers of a pattern."""
    if code:
        return tuple(text.splitlines())
    return tuple(str(layer) for layer in Pattern.parse(text).layers)


def _failures(view: View) -> list[str]:
    counts = Counter(node.trouble for node in view.nodes if node.failure)
    return [f"- {count} x failed: {clean(kind, 100)}" for kind, count in counts.most_common()]
