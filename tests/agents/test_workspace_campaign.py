"""A campaign of coding agents: the real SDKs over real HTTP, gate, probe and scoring in the real sandbox.

What a session does with its limits and with hostile calls is in `test_sessions.py`.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from driving import KEY, keys_for
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from agents.grammar import draw, source
from agents.llm.loopback import Behaviour, Loopback, Received, use
from archwright import inspection
from archwright.campaign import Campaign
from archwright.cli import app
from archwright.executor import LocalExecutor
from archwright.recipe import RecipeError, parse
from archwright.replay_calls import replay_calls
from archwright.setup import check
from storage import database

Row = dict[str, Any]
HONEST = source(draw(random.Random(6)))
CALL = "        v = self.value(x)\n"
LEAKS = HONEST.replace(CALL, CALL.replace("(x)", "(x.flip(1))"))
OTHER = HONEST.replace("torch.sigmoid(self.gate(x))", "torch.tanh(self.gate(x))")
WORDS = {"hypothesis": "A maximum remembers.", "reasoning": "r", "expected_effect": "+"}
# What the agents do, turn by turn: one meets the gate's refusal and mends it, the other is quick.
CAREFUL = [
    [("list", {}), ("read", {"path": "material/examples.txt"})],
    [("write", {"path": "mixer.py", "text": LEAKS})],
    [("run_gate", {})],
    [("edit", {"path": "mixer.py", "search": "x.flip(1)", "replace": "x"}), ("run_gate", {})],
    [("run_probe", {})],
    [("submit", WORDS)],
]
QUICK = [[("write", {"path": "mixer.py", "text": OTHER}), ("submit", WORDS)]]


def provider(request: Received) -> Behaviour:
    """The turn that is due: as many as the model has had are in the request."""
    messages = request.body.get("messages")
    had = sum(turn["role"] == "assistant" for turn in messages) if messages else 0
    return use(*(CAREFUL if messages else QUICK)[had])


def recipe(**changes: Any) -> Row:
    base = {
        "name": "workspace",
        "kind": "module",
        "module": {"pattern": "X+M", "salt": 5},
        "evaluation": {"profile": "smoke", "tasks": ["compression"]},
        "agents": [
            {"name": "careful", "proposer": "llm", "model": "anthropic:m", "scaffold": "workspace"},
            {"name": "quick", "proposer": "llm", "model": "openai:m", "scaffold": "workspace"},
        ],
        "budget": {"evaluations": 2},
        "confirm": {"finalists": 0},
        "lag": 1,
    }
    return base | changes


def rows(folder: Path, query: str) -> list[Row]:
    with closing(sqlite3.connect(folder / database.FILE)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(query)]


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as made:
        yield made


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("workspace") / "run"
    with Loopback(provider) as server:
        keys_for(server.url, patch)
        Campaign.create(parse(recipe()), folder, workers=1).run(LocalExecutor())
    return folder


def test_e2e(ended: Path) -> None:
    with Session(database.open_(ended, readonly=True)) as db:
        for row in inspection.rows(db, ended, "transcript", 0, None, None):
            print(row["who"], row["tool"], row["text"][:3000])
    print(rows(ended, "select * from proposal"))
    print(rows(ended, "select * from evaluation"))
