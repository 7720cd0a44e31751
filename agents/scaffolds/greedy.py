"""`greedy`: a few drafts, then debug what failed, else improve the best (arXiv 2605.15871)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from agents.scaffolds.base import Decision
from agents.scaffolds.debugging import buggy_leaves, debug
from storage.records import View


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
        if leaves := buggy_leaves(view, self.debug_depth):
            return debug(leaves[0])
        best = view.best
        if best is None:
            return Decision("draft", (), "nothing has a score yet")
        return Decision("improve", (best,), f"slot {best.slot} is the best, score {best.score!r}")
