"""Scores as values between 0 and 1, for the scaffolds that weigh nodes and do not only rank them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from storage.records import Node


def values(nodes: Iterable[Node]) -> dict[int, float]:
    """The value of each node by slot: its score min-max-normalised among the nodes of its rung; 0, the
    minimum, without a score, and .5 where all scores of a rung are equal.

    Scores compare at one rung only, so rung r of n has the r-th of n equal bands of [0, 1]: the order is
    that of `Node.standing`, and with one rung it is plain min-max.
    """
    nodes = tuple(nodes)
    by_rung: dict[int, list[float]] = defaultdict(list)
    for node in nodes:
        if node.score is not None:
            by_rung[node.rung].append(node.score)
    bounds = {rung: (min(scores), max(scores)) for rung, scores in by_rung.items()}
    bands = max(bounds, default=0) + 1
    return {node.slot: _value(node, bounds, bands) for node in nodes}


def _value(node: Node, bounds: dict[int, tuple[float, float]], bands: int) -> float:
    if node.score is None:
        return 0.0
    low, high = bounds[node.rung]
    within = (node.score - low) / (high - low) if high > low else 0.5
    return (node.rung + within) / bands
