"""`analyze`: a finished node as one line of memory, from numbers alone: what was claimed, what came of it.

Published systems have a model judge whether a change helped. Here a test does, and no model is called:
the effect is the node's score minus its best parent's, at the highest rung that both reached, and the
noise floor says what chance alone would do. Improving on the parent is the claim; `expected_effect` is
not read.

The test is for one child and one parent, each with one seed: of equal ones, one in forty is "supported"
and one in forty "rejected". A parent chosen as the best of many was lucky as well as good, so equal
children of such parents are "rejected" more often than that and "supported" less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from agents.prompts import render
from storage.records import Node, View

LEVEL = 0.95  # two-sided


@dataclass(frozen=True)
class Finding:
    """``verdict`` is supported, rejected, inconclusive, or empty, in which case ``reason`` says why.

    ``effect`` has standard error ``stderr``; both scores are of ``rung``.
    """

    verdict: str = ""
    reason: str = ""
    effect: float | None = None
    stderr: float | None = None
    rung: int = 0


def find(node: Node, view: View) -> Finding:
    """What a finished node shows about its hypothesis."""
    parents = [p for c in node.parents if (p := view.node(c)) is not None]
    if node.score is None:
        return Finding(reason="it has no score")
    if not node.parents:
        return Finding(reason=f"a {node.operator} has no parent")
    scored = [parent for parent in parents if parent.score is not None]
    if not scored:
        return Finding(reason="no parent has a score")
    return _compare(node, max(scored, key=lambda parent: parent.standing), view)


def _compare(node: Node, parent: Node, view: View) -> Finding:
    rung = min(node.rung, parent.rung)
    mine, theirs = node.score_at(rung), parent.score_at(rung)
    if mine is None or theirs is None:
        return Finding(reason="it and its best parent have no score at one rung")
    deviation, freedom = view.noise_at(rung)
    if deviation is None:
        return Finding(reason="the noise of a score is not known")
    if deviation == 0:
        return Finding(reason="the references' seeds agree exactly, which is no measure of noise")
    effect, stderr = mine - theirs, deviation * math.sqrt(2)
    return Finding(_verdict(effect / stderr, freedom), "", effect, stderr, rung)


def _verdict(ratio: float, freedom: float) -> str:
    from scipy import special  # .2 s, so not before there is something to judge

    if abs(ratio) <= special.stdtrit(freedom, 0.5 + LEVEL / 2):
        return "inconclusive"
    return "supported" if ratio > 0 else "rejected"


def line(node: Node, view: View, limit: int = 200) -> str:
    """One node on one line: its label, score with its standard error, and its hypothesis, cut to ``limit``
    characters, -> effect -> verdict."""
    parents = [p.label for c in node.parents if (p := view.node(c)) is not None]
    deviation, _ = view.noise_at(node.rung)
    return render(
        "analyze",
        node=node,
        finding=find(node, view),
        parents=parents,
        rungs=view.rungs,
        error="unknown" if deviation is None else f"{deviation:.3g}",
        limit=limit,
    )
