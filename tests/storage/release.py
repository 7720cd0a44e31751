"""Makes the small ledger of a release that `test_migrations.py` opens: run with the release's code as

    python tests/storage/release.py > tests/storage/released/<revision>.sql

A campaign of a stand-in task, in this process, as the SQL that restores it.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from archwright.campaign import Campaign
from archwright.executor import LocalExecutor
from archwright.recipe import parse

RECIPE = {
    "name": "released",
    "seed": 3,
    "space": {"primitives": ["A", "M"], "layers": [2, 2], "preset": "mini"},
    "evaluation": {"profile": "lra-standins", "tasks": ["lra-text"]},
    "agents": [{"name": "evolution", "proposer": "evolution"}],
    "controls": [{"name": "random", "proposer": "random"}],
    "budget": {"evaluations": 2},
    "references": {"patterns": {"llama": "A+M"}, "seeds": 2},
    "confirm": {"finalists": 1, "seeds": 2},
}


def dumped() -> str:
    """The ledger of a finished campaign as SQL."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        campaign = Campaign.create(parse(RECIPE), folder, workers=1)
        campaign.run(LocalExecutor())
        campaign.ledger.engine.dispose()
        with closing(sqlite3.connect(folder / "ledger.db")) as db:
            return "\n".join(db.iterdump())


if __name__ == "__main__":
    print(dumped())
