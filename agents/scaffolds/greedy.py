"""`greedy`: a few drafts, then debug what failed, else improve the best (arXiv 2605.15871)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from agents.scaffolds.base import Decision
from storage.records import INFRASTRUCTURE, Node, View


@dataclass(frozen=True)
class Greedy:
    """``drafts`` drafts first; a failed leaf is debugged before anything is improved.

    A chain of debugs ends at ``debug_depth``. The published defaults are 5 drafts and depth 20.
    """

    drafts: int = 5
    debug_depth: int = 20

    def next(self, view: View, rng: random.Random) -> Decision:
        if view.turn < self.drafts:
            return Decision("draft", (), f"draft {view.turn + 1} of {self.drafts}")
        buggy = self._buggy_leaf(view)
        if buggy is not None:
            return Decision("debug", (buggy,), f"slot {buggy.slot} failed: {buggy.failure}")
        best = view.best
        if best is None:
            return Decision("draft", (), "nothing has a score yet")
        return Decision("improve", (best,), f"slot {best.slot} is the best, score {best.score!r}")

    def _buggy_leaf(self, view: View) -> Node | None:
        """The latest failed candidate that nothing was made from, within the debug depth."""
        used = {parent for node in view.nodes for parent in node.parents}
        failed = (
            node
            for node in reversed(view.nodes)
            if node.failure not in (None, INFRASTRUCTURE)
            and node.candidate is not None
            and node.candidate not in used
        )
        return next((n for n in failed if _debugs(view, n) < self.debug_depth), None)


def _debugs(view: View, node: Node) -> int:
    """How many debugs in a row led to this node."""
    if node.operator != "debug" or not node.parents:
        return 0
    parent = view.node(node.parents[0])
    return 1 + (_debugs(view, parent) if parent is not None and parent.slot < node.slot else 0)
