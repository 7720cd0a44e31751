"""The driver of a module campaign is killed (SIGKILL) while a written module is in the sandbox; the run that
is resumed has the ledger of one that was never stopped.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from agents.grammar import draw, source
from archwright import inspection
from archwright.campaign import Campaign
from archwright.executor import LocalExecutor
from archwright.recipe import parse
from storage import database

LIMIT = 120.0  # seconds until a test gives a process up
HONEST = source(draw(random.Random(6)))
WORDS = {"hypothesis": "h", "reasoning": "r", "expected_effect": "e"}
EDIT = {"search": "nn.Module", "replace": "nn.Module)"}
REPLIES = [
    {**WORDS, "source": HONEST.replace("nn.Module)", "nn.Module"), "edits": []},
    {**WORDS, "source": "", "edits": [EDIT]},
]
RECIPE = {
    "name": "killed",
    "kind": "module",
    "module": {"pattern": "X+M", "salt": 5},
    "evaluation": {"profile": "smoke", "tasks": ["compression"]},
    "agents": [
        {
            "name": "writer",
            "proposer": "scripted",
            "options": {"replies": REPLIES},
            "scaffold_options": {"drafts": 1},
        }
    ],
    "budget": {"evaluations": 2},
    "confirm": {"finalists": 0},
    "lag": 1,
}
DRIVER = """
import json, sys
from pathlib import Path
from archwright.campaign import Campaign
from archwright.executor import LocalExecutor
from archwright.recipe import parse

Campaign.create(parse(json.loads(sys.argv[1])), Path(sys.argv[2]), 1).run(LocalExecutor())
"""
TOLD = {
    "proposals": "SELECT slot, status, operator, reason, seed, seen, candidate_id, hypothesis, failure, "
    "detail FROM proposal ORDER BY slot",
    "candidates": "SELECT id, content_hash, name, pattern, params, flops_per_token, source_sha "
    "FROM candidate ORDER BY id",
    "lineage": "SELECT * FROM proposal_parent ORDER BY proposal_id",
    "gate": "SELECT candidate_id, name, verdict, detail FROM gate_check ORDER BY id",
    "evaluations": "SELECT candidate_id, profile, rung, seed, sealed, state, failure, detail, steps, tokens "
    "FROM evaluation ORDER BY id",
    "scores": "SELECT evaluation_id, metric, split, value FROM measurement ORDER BY id",
    "calls": "SELECT proposal_id, operator, attempt, request_sha, reply_sha, outcome FROM llm_call "
    "ORDER BY id",
    "decisions": "SELECT what, reason, numbers FROM decision ORDER BY id",
}


def rows(folder: Path, query: str) -> list[Any]:
    with Session(database.open_(folder, readonly=True)) as db:
        return [tuple(row) for row in inspection.sql(db, query)[1]]


def told(folder: Path) -> dict[str, list[Any]]:
    """The ledger without times, attempts and seconds."""
    return {name: rows(folder, query) for name, query in TOLD.items()}


def killed(folder: Path) -> None:
    """A campaign whose driver dies while the second candidate is in the sandbox."""
    command = [sys.executable, "-c", DRIVER, json.dumps(RECIPE), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as driver:
        try:
            until = time.monotonic() + LIMIT
            while not _running(folder):
                assert driver.poll() is None, driver.stderr and driver.stderr.read().decode()
                assert time.monotonic() < until, "the driver never came to its second candidate"
                time.sleep(0.02)
        finally:
            driver.kill()
    assert driver.returncode == -signal.SIGKILL


def _running(folder: Path) -> bool:
    query = "SELECT id FROM evaluation WHERE candidate_id = 2 AND state = 'running'"
    try:
        return bool(rows(folder, query))
    except (database.LedgerError, ValueError):  # it is being made
        return False


def test_a_killed_design_campaign_is_resumed_to_the_same_ledger(tmp_path: Path) -> None:
    killed(tmp_path / "killed")
    assert len(rows(tmp_path / "killed", TOLD["evaluations"])) == 2
    assert rows(tmp_path / "killed", "SELECT COUNT(*) FROM measurement") == [(0,)]
    Campaign.open(tmp_path / "killed").run(LocalExecutor())
    Campaign.create(parse(RECIPE), tmp_path / "straight", 1).run(LocalExecutor())
    assert told(tmp_path / "killed") == told(tmp_path / "straight")
    attempts = "SELECT attempt FROM evaluation ORDER BY id"
    assert rows(tmp_path / "killed", attempts) == [(1,), (2,)]
    found = told(tmp_path / "straight")
    assert [row[2] for row in found["gate"]].count("fail") == 1
    assert found["scores"]
