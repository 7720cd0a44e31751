"""`incumbent`: every slot changes the one that has not been beaten, as a researcher edits one file.

Who that is is the campaign's to say (`archwright.incumbents`): it takes repeated runs to beat it. Failed and
beaten attempts are dropped, never debugged.
"""

from __future__ import annotations

import random

from agents.scaffolds.base import Decision
from storage.records import View


class Incumbent:
    """Improve the incumbent; where a campaign has none, the best."""

    def next(self, view: View, rng: random.Random) -> Decision:
        held = view.incumbent or view.best
        if held is None:
            return Decision("draft", (), "nothing has a score yet")
        return Decision("improve", (held,), f"candidate {held.candidate} has not been beaten")
