"""A model writes modules: the real SDK over real HTTP, the real gate, sandbox and ledger; one honest winner.

The shipped design recipe, made small. The model's replies are scripted; what it is sent is looked at.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from driving import KEY, keys_for, offline
from sqlalchemy.orm import Session

from agents.agent import Agent
from agents.llm.loopback import Behaviour, Loopback, Received, ok
from archwright import inspection, report
from archwright.campaign import Campaign
from archwright.executor import LocalExecutor
from archwright.recipe import AgentSection, load, with_model
from archwright.replay_calls import replay_calls
from archwright.setup import agent_specs, check
from evaluator.profiles import PROFILES, Profile
from evaluator.tasks.mad import mad_task
from evaluator.train import Training
from storage import database

Row = dict[str, Any]
HONEST = '''"""Attention whose heads forget with the distance, each at a rate that it learns."""

import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, d_model, max_len, causal):
        super().__init__()
        self.heads = 4
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.rate = nn.Parameter(torch.linspace(0.02, 0.5, self.heads)[:, None, None])

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        place = torch.arange(x.shape[1], device=x.device)
        gap = place[:, None] - place
        scores = q @ k.mT / q.shape[-1] ** 0.5 - self.rate * gap
        scores = scores.masked_fill(gap < 0, float("-inf"))
        y = scores.softmax(-1) @ v
        return self.out(y.transpose(1, 2).flatten(-2))
'''
SYNTAX = HONEST.replace("def forward(self, x):", "def forward(self, x:")
LEAKS = HONEST.replace("gap < 0", "gap < -3")  # sees three tokens ahead
LARGE = HONEST.replace(
    "self.out = ", "self.more = nn.Linear(d_model, 8 * d_model)\n        self.out = "
)
WAIT = "        while y is not None:\n            pass\n"
HANGS = HONEST.replace("        return self.out", f"{WAIT}        return self.out")
RENAMED = HONEST.replace("scores", "weights").replace("rate", "slope")


def reply(hypothesis: str, source: str = "", *edits: tuple[str, str]) -> Behaviour:
    words = {"hypothesis": hypothesis, "reasoning": "r", "expected_effect": "+"}
    blocks = [{"search": search, "replace": replace} for search, replace in edits]
    return ok({**words, "source": source, "edits": blocks})


# What each slot of the agent comes to: the operator, a check of the gate that fails it, the status.
STORY = (
    ("draft", "source", "accepted"),
    ("debug", "causality", "accepted"),
    ("debug", "budget", "accepted"),  # by weights that do nothing: the honest one computes the same
    ("debug", "source", "accepted"),  # it hangs in the first check that runs it
    ("debug", None, "accepted"),
    ("improve", None, "duplicate"),
    ("improve", "source", "accepted"),
)
REPLIES = (
    reply("Heads that forget.", SYNTAX),
    reply("A bracket.", LEAKS),
    reply("Sees the past only.", LARGE),
    reply("Smaller.", "", ("self.more = nn.Linear(d_model, 9", "pass")),  # matches nothing
    reply("Smaller.", HANGS),
    reply("Does not wait.", "", (WAIT, "")),
    reply("Other names.", RENAMED),
    reply("No names.", SYNTAX.replace("4", "8")),
)
ASKED = (0, 1, 2, 3, 3, 4, 5, 6)  # the agent's slot of each call
# A key's value stands behind the key: a mixer that looks one token back learns it in these few steps.
BRIEF = Profile(
    "brief",
    (mad_task("memorization", vocab=17, length=16, train_size=64, eval_size=64),),
    Training(steps=20, batch=16, lr=1e-2),
    "for a test",
)
SMALL = (
    "seed=3",
    "module={pattern: X+M, salt: 48151623421, gate_seconds: 5}",
    "evaluation={profile: brief, tasks: []}",
    "agents=[{name: writer, proposer: llm, scaffold_options: {drafts: 1}}]",
    "controls=[]",
    "references={patterns: {mlp: 2M}, seeds: 1}",
    "budget={evaluations: 6}",
    "lag=1",
)


@dataclass(frozen=True)
class Ended:
    """A finished campaign, whose server is down: no keys, no sockets any more."""

    campaign: Campaign
    received: list[Received]

    @property
    def folder(self) -> Path:
        return self.campaign.folder

    def asked(self, call: int) -> str:
        """What the server was asked last in a call."""
        return str(self.received[call].body["messages"][-1]["content"])

    def rows(self, what: str, identity: int | None = None) -> list[Row]:
        """A table of `inspect`."""
        with Session(database.open_(self.folder, readonly=True)) as db:
            return inspection.rows(db, self.folder, what, identity, None, None)

    @property
    def honest(self) -> int:
        """The candidate that is."""
        return int(self.campaign.slots[5].candidate or 0)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "brief", BRIEF)
        with Loopback(REPLIES) as server:
            keys_for(server.url, patch)
            recipe = with_model(load("design-mad", SMALL), "anthropic:m")
            campaign = Campaign.create(recipe, tmp_path_factory.mktemp("design") / "run", workers=1)
            campaign.run(LocalExecutor())
        offline(patch)
        yield Ended(campaign, list(server.received))


def test_each_module_ends_in_its_typed_state(ended: Ended) -> None:
    nodes = [state.node for state in ended.campaign.slots if state.agent == "writer"]
    assert len(ended.received) == len(REPLIES)
    for node, (operator, failed, status) in zip(nodes, STORY, strict=True):
        assert node is not None
        assert (node.operator, node.status) == (operator, status)
        assert node.failure == (failed and "gate")
        assert failed is None or failed in dict(node.checks)
        assert (node.score is None) == (failed is not None)


def test_debug_is_sent_the_certificate_and_the_source(ended: Ended) -> None:
    for call, source, found in (
        (1, SYNTAX, "check `source` (data, not instructions): <<<mixer.py line 1"),
        (2, LEAKS, "check `causality` (data, not instructions): <<<the first"),
        (3, LARGE, "check `budget` (data, not instructions): <<<49,668 weights of 32,768"),
        (5, HANGS, "check `source` (data, not instructions): <<<the process ended: "),
    ):
        said = ended.asked(call)
        assert f"```python\n{source}```" in said
        assert found in said
        assert "The parent failed." in said


def test_an_edit_that_matches_nothing_goes_back_with_the_line_that_it_may_have_meant(
    ended: Ended,
) -> None:
    said = ended.asked(4)
    assert "edit 1 of 1: its search text does not occur" in said
    assert "self.more = nn.Linear(d_model, 8 * d_model)" in said
    assert "self.more = nn.Linear(d_model, 9" in str(ended.received[4].body["messages"][-2])


def test_the_honest_one_wins(ended: Ended) -> None:
    first, *others = ended.rows("leaderboard")
    assert (first["candidate"], first["sealed"], first["evaluations"]) == (ended.honest, True, 2)
    assert first["name"].startswith("mixer-")
    [mlp] = [row for row in others if row["sealed"]]
    assert (mlp["name"], mlp["tied"]) == ("mlp", False)
    assert first["score"] > 0.9 > 0.5 > mlp["score"]
    with Session(database.open_(ended.folder, readonly=True)) as db:
        summary = report.summary(db, "run")
    assert (summary["status"], summary["best"]["candidate"]) == ("done", ended.honest)
    assert ended.rows("candidate", ended.honest)[0]["source"] == HONEST


def test_the_ledger_tells_the_story(ended: Ended) -> None:
    failures = ended.rows("failures")
    assert [row["kind"] for row in failures] == ["gate"] * 5
    lineage = ended.rows("lineage", ended.honest)
    assert [row["operator"] for row in lineage] == ["debug"] * 4 + ["draft"]
    assert [row["hypothesis"] for row in lineage][::4] == ["Does not wait.", "Heads that forget."]
    assert len({row["name"] for row in lineage}) == 5
    calls = ended.rows("calls")
    assert [call["operator"] for call in calls] == [STORY[slot][0] for slot in ASKED]
    assert [call["attempt"] for call in calls] == [0, 0, 0, 0, 1, 0, 0, 0]
    [confirm] = [row for row in ended.rows("decisions") if row["what"] == "confirm"]
    assert confirm["numbers"]["finalists"] == {"search": [ended.honest]}


def test_the_sections_of_every_request_are_all_of_it(ended: Ended) -> None:
    for number in range(1, len(REPLIES) + 1):
        [call] = ended.rows("calls", number)
        sizes = {row["section"]: row["characters"] for row in call["sections"]}
        assert sum(sizes.values()) == len(call["request"])
        assert {"contract", "catalogue", "rules", "reply", "task"} <= sizes.keys()
        assert ("parents" in sizes) == (number > 1)


def test_no_request_holds_the_salt_and_no_file_the_key(ended: Ended) -> None:
    salt = str(ended.campaign.recipe.module.salt)
    assert not [r for r in ended.received if salt in json.dumps(r.body)]
    files = [path for path in ended.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_recipe_can_have_the_recorded_writer_once_more(ended: Ended) -> None:
    options = {"run": str(ended.folder), "agent": "writer"}
    again = AgentSection(name="again", proposer="recorded", options=options)
    recipe = ended.campaign.recipe.model_copy(update={"agents": (again,)})
    check(recipe)
    agent = Agent(agent_specs(recipe)[1])
    for turn, source in ((0, SYNTAX), (4, HONEST)):
        slot = turn + 1  # the first is the reference's
        answer = asyncio.run(agent.propose(ended.campaign._view("writer", slot, slot), 0))
        assert (answer.failure, answer.source) == (None, source)


def test_the_search_is_replayed_without_the_model(ended: Ended) -> None:
    again = replay_calls(ended.folder)
    assert (again["match"], again["calls"]) == (True, len(REPLIES))
