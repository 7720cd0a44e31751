"""`workspace`: a bare coding agent: every slot is a session with tools, from the best file so far.

The rule is only this; what a session is, is in `agents/workspace`. It is for models that write code.
"""

from __future__ import annotations

import random

from agents.scaffolds.base import Decision, Limits, check_positive
from storage.records import View


class Workspace:
    """Draft while nothing has a score, then improve the best, each time in a session within the limits."""

    def __init__(self, turns: int = 30, tokens: int = 500_000, seconds: float = 900.0) -> None:
        check_positive(turns=turns, tokens=tokens, seconds=seconds)
        self.limits = Limits(turns, tokens, seconds)

    def next(self, view: View, rng: random.Random) -> Decision:
        best = view.best
        if best is None:
            return Decision("draft", (), "workspace: nothing has a score yet", self.limits)
        return Decision(
            "improve", (best,), f"workspace: from slot {best.slot}, the best", self.limits
        )
