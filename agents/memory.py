"""What an agent remembers of a campaign: a bounded, typed selection of its view, as prompt lines.

Best, recent and diverse nodes, each candidate once, and one line per class of failure. It makes
nothing up and summarises nothing with a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import islice

from search_space.pattern import Pattern
from storage.records import Node, View

BYTES_PER_TOKEN = 3  # of prompt text; low, so that the budget is kept rather than missed
BEST, RECENT, DIVERSE = 6, 6, 4


def memory(view: View, budget_tokens: int) -> list[str]:
    """The lines that fit into the budget, most useful first."""
    lines = [*_failures(view), *(line(node, view.rungs) for node in _chosen(view))]
    kept, room = [], budget_tokens * BYTES_PER_TOKEN
    for text in lines:
        room -= len(text.encode()) + 1
        if room < 0:
            break
        kept.append(text)
    return kept


def line(node: Node, rungs: int) -> str:
    """One node: what was tried, how, and what came of it, at full precision and at which rung."""
    outcome = f"score {node.score!r}" if node.score is not None else f"failed: {node.failure}"
    outcome += f" at rung {node.rung}" if rungs > 1 and node.candidate is not None else ""
    why = f"; {clean(node.hypothesis, 200)}" if node.hypothesis else ""
    again = "; proposed again, answered from the ledger" if node.status == "duplicate" else ""
    return f"- {node.pattern or '(no valid pattern)'}: {outcome}; {node.operator}{why}{again}"


def clean(text: str, limit: int) -> str:
    """Text from outside, as data on one line: control characters out, length bounded."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


def _chosen(view: View) -> Iterable[Node]:
    ranked = sorted(view.scored, key=lambda node: node.standing, reverse=True)
    best = ranked[:BEST]
    recent = list(reversed(view.nodes))[:RECENT]
    diverse = islice(_diverse(best, ranked[BEST:]), DIVERSE)
    again = {n.candidate for n in view.nodes if n.status == "duplicate"}
    seen: set[object] = set()
    for node in (*best, *recent, *diverse):
        key = node.candidate if node.candidate is not None else ("slot", node.slot)
        if key not in seen:
            seen.add(key)
            yield replace(node, status="duplicate") if node.candidate in again else node


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
    return [f"- {count} x failed: {kind}" for kind, count in counts.most_common()]
