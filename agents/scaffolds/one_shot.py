"""`one-shot`: every slot is a draft, made without feedback. The published baseline, and the controls'."""

from __future__ import annotations

import random

from agents.scaffolds.base import Decision
from storage.records import View


class OneShot:
    """Draft, whatever was measured."""

    def next(self, view: View, rng: random.Random) -> Decision:
        return Decision("draft", (), "one-shot: every slot is a draft")
