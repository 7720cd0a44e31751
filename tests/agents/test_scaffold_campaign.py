"""Every scaffold with every classical proposer in a whole campaign, and what its ledger says about it."""

import asyncio
import functools
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from agents.agent import Agent
from agents.scaffolds import SCAFFOLDS, WITH_TOOLS
from archwright import report
from archwright.campaign import Campaign
from archwright.executor import LocalExecutor
from archwright.recipe import parse
from archwright.setup import agent_specs
from storage import queries

OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"drafts": 2},
    "tournament": {"population": 3, "sample": 2},
    "mcts": {"children": 2},
    "evolution": {"islands": 2, "generation": 2, "crossover": 1.0, "migrate_every": 2},
    "map-elites": {"drafts": 2},
}
OPERATORS = {
    "one-shot": {"draft"},
    "evolution": {"draft", "crossover"},
    **{
        name: {"draft", "improve"}
        for name in ("greedy", "tournament", "mcts", "map-elites", "incumbent")
    },
}


CLASSICAL = [name for name in SCAFFOLDS if name not in WITH_TOOLS]  # those: test_workspace_campaign


class Remembering(LocalExecutor):
    """Trains equal jobs once: an evaluation is a pure function of its job (tests/evaluator holds that)."""

    trained = staticmethod(functools.cache(lambda task, *args: task(*args)))

    def submit(self, task: Callable[..., Any], *args: Any) -> int:
        return super().submit(self.trained, task, *args)


@pytest.mark.parametrize(
    ("scaffold", "proposer"),
    [*product(CLASSICAL, ["random", "evolution"]), ("one-shot", "bayes")],
)
def test_a_campaign_ends_and_its_decisions_can_be_read_from_its_ledger(
    tmp_path: Path, scaffold: str, proposer: str
) -> None:
    """Each recorded decision and proposal follows from what the ledger holds of the slots before it: to
    resume is to read."""
    agent = {"name": "a", "proposer": proposer, "scaffold": scaffold}
    recipe = {
        "name": "scaffolds",
        "space": {"primitives": ["A", "M", "Mb"], "layers": [2, 3], "preset": "mini"},
        "evaluation": {"profile": "smoke", "tasks": ["compression"]},
        "agents": [agent | {"scaffold_options": OPTIONS.get(scaffold, {})}],
        "budget": {"evaluations": 13},  # `bayes` has a model after ten
        "confirm": {"finalists": 1, "seeds": 2},
        "lag": 2,
    }
    Campaign.create(parse(recipe), tmp_path / "run", workers=2).run(Remembering(2))
    run = Campaign.open(tmp_path / "run")
    with Session(run.ledger.engine) as db:
        assert report.summary(db, "run")["status"] == "done"
        rows = queries.proposals(db)
        run.slots = [run._load(db, row) for row in rows]
        again = Agent(agent_specs(run.recipe)[1])
        for row in rows:
            view = run._view("a", row.seen, row.slot)
            answer = asyncio.run(again.propose(view, row.seed))
            assert (answer.operator, answer.reason) == (row.operator, row.reason)
            assert answer.parents == tuple(p.candidate_id for p in row.parents)
            assert row.candidate is not None
            assert answer.pattern == row.candidate.pattern
        assert {row.operator for row in rows} >= OPERATORS[scaffold]
        assert len(rows) >= 13
