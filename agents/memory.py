"""What an agent remembers of a campaign: a bounded, typed selection of its view, as prompt lines.

One line per class of failure; best, ancestors of the parents, recent and diverse nodes, each candidate
once, each as its analysis. It makes nothing up and summarises nothing with a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
    """The nodes to show with their kind, each candidate and each failed proposal once."""
    again = {n.candidate for n in view.nodes if n.status == "duplicate"}
    seen = {_key(node) for node in parents}
    for kind, node in _candidates(view, parents):
        if _key(node) not in seen:
            seen.add(_key(node))
            yield kind, replace(node, status="duplicate") if node.candidate in again else node


def _candidates(view: View, parents: Sequence[Node]) -> Iterator[tuple[str, Node]]:
    ranked = sorted(view.scored, key=lambda node: node.standing, reverse=True)
    best = ranked[:BEST]
    yield from (("best", node) for node in best)
    yield from (("ancestor", node) for node in islice(_ancestors(view, parents), CHAIN))
    yield from (("recent", node) for node in islice(reversed(view.nodes), RECENT))
    yield from (("diverse", node) for node in islice(_diverse(best, ranked[BEST:]), DIVERSE))


def _key(node: Node) -> tuple[str, int]:
    return ("slot", node.slot) if node.candidate is None else ("candidate", node.candidate)


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
            key=lambda node: max((_alike(node.pattern, c.pattern) for c in chosen), default=0.0),
        )
        others.remove(pick)
        chosen.append(pick)
        yield pick


@lru_cache(maxsize=100_000)  # the same pairs come again with every prompt
def _alike(one: str, two: str) -> float:
    return SequenceMatcher(a=_codes(one), b=_codes(two), autojunk=False).ratio()


@lru_cache(maxsize=10_000)
def _codes(pattern: str) -> tuple[str, ...]:
    return tuple(str(layer) for layer in Pattern.parse(pattern).layers)


def _failures(view: View) -> list[str]:
    counts = Counter(node.failure for node in view.nodes if node.failure)
    return [f"- {count} x failed: {clean(kind, 100)}" for kind, count in counts.most_common()]
