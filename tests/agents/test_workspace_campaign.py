"""A campaign of coding agents: the real SDKs over real HTTP, gate, probe and scoring in the real sandbox.

It is killed in the middle of a session and resumed. What a session does with its limits and with hostile
calls is in `test_sessions.py`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from driving import KEY, keys_for
from ledgers import rows
from typer.testing import CliRunner

from agents.grammar import draw, source
from agents.llm.loopback import Behaviour, Loopback, Received, Tokens, use
from archwright import written
from archwright.campaign import Campaign
from archwright.cli import app
from archwright.executor import LocalExecutor
from archwright.recipe import RecipeError, parse
from archwright.replay_calls import replay_calls
from archwright.setup import check

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


@dataclass
class Provider:
    """Plays the turn that is due, by how many the request holds. ``victim``, where there is one, is killed
    at the careful agent's third."""

    victim: int | None = None
    requests: list[str] = field(default_factory=list)

    def __call__(self, request: Received) -> Behaviour:
        messages = request.body.get("messages")
        had = sum(turn["role"] == "assistant" for turn in messages) if messages else 0
        if messages and had == 2 and self.victim is not None:
            os.kill(self.victim, signal.SIGKILL)
        elif self.victim is None:
            self.requests.append(request.content.decode())
        return use(*(CAREFUL if messages else QUICK)[had])


def recipe(**changes: Any) -> Row:
    models = {"careful": "anthropic:m", "quick": "openai:m"}
    base = {
        "name": "workspace",
        "kind": "module",
        "module": {"pattern": "X+M", "salt": 5},
        "evaluation": {"profile": "smoke", "tasks": ["compression"]},
        "agents": [
            {"name": name, "proposer": "llm", "model": model, "scaffold": "workspace"}
            for name, model in models.items()
        ],
        "budget": {"evaluations": 2, "calls": 100},
        "confirm": {"finalists": 0},
        "lag": 1,
    }
    return base | changes


def drive(folder: Path, pick: Callable[[Sequence[int]], int] = lambda handles: handles[0]) -> None:
    campaign = Campaign.open(folder)
    campaign.run(LocalExecutor(1, pick))
    campaign.ledger.engine.dispose()


def create(made: Row, folder: Path) -> None:
    Campaign.create(parse(made), folder, workers=1).ledger.engine.dispose()


@dataclass(frozen=True)
class Ended:
    folder: Path
    requests: list[str]  # of the driver that was not killed


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as made:
        yield made


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Ended:
    """A run whose first driver was killed while an agent was at work, and whose second came to the end."""
    folder, provider = tmp_path_factory.mktemp("workspace") / "run", Provider()
    with Loopback(provider) as server:
        keys_for(server.url, patch)
        create(recipe(), folder)
        driver = multiprocessing.get_context("fork").Process(target=drive, args=(folder,))
        driver.start()
        provider.victim = driver.pid
        driver.join()
        assert driver.exitcode == -signal.SIGKILL
        assert [row["status"] for row in rows(folder, "SELECT status FROM proposal")] == ["asked"]
        provider.victim = None
        drive(folder)
    return Ended(folder, provider.requests)


def test_what_agents_submit_is_gated_and_scored_by_the_driver_alone(ended: Ended) -> None:
    found = rows(ended.folder, "SELECT status, operator, hypothesis FROM proposal ORDER BY slot")
    assert [row["status"] for row in found] == ["accepted", "accepted"]
    assert {row["hypothesis"] for row in found} == {WORDS["hypothesis"]}
    hashes = rows(ended.folder, "SELECT content_hash FROM candidate ORDER BY id")
    chosen = parse(recipe())
    expected = [written.module(text, chosen).content_hash for text in (HONEST, OTHER)]
    assert [row["content_hash"] for row in hashes] == expected
    evaluated = rows(ended.folder, "SELECT candidate_id, state, attempt, steps FROM evaluation")
    assert [tuple(row.values()) for row in evaluated] == [(1, "done", 1, 3), (2, "done", 1, 3)]
    checks = rows(ended.folder, "SELECT candidate_id FROM gate_check")
    assert len(checks) == 22, "one certificate each, the driver's"
    scores = rows(ended.folder, "SELECT value FROM measurement WHERE metric = 'score'")
    probed = next(row["text"] for row in transcript(ended, 0) if row["tool"] == "run_probe"
                  and row["who"] == "tool")  # fmt: skip
    assert probed.startswith("pass\nafter 1/3 of the training")
    assert not any(f"{row['value']:.4f}" in probed for row in scores), "other data, other training"


def transcript(ended: Ended, slot: int) -> list[Row]:
    shown = CliRunner().invoke(
        app, ["inspect", str(ended.folder), "transcript", str(slot), "--json"]
    )
    assert shown.exit_code == 0, shown.output
    found: list[Row] = json.loads(shown.output.splitlines()[-1])["rows"]
    return found


def test_the_whole_transcript_is_in_the_ledger(ended: Ended) -> None:
    said = transcript(ended, 0)
    played = [call for turn in CAREFUL for call in turn]
    called = [(row["tool"], json.loads(row["text"])) for row in said if row["who"] == "agent"]
    assert called == played
    answered = [row["tool"] for row in said if row["who"] == "tool"]
    assert answered == [tool for tool, _ in played[:-1]], "each call but the submission"
    refused, passed = (
        row["text"] for row in said if row["tool"] == "run_gate" and row["who"] == "tool"
    )
    assert refused.startswith("fail\n") and "causality: fail: " in refused
    assert passed.startswith("pass\n") and passed.count("\n") == 11
    people = CliRunner().invoke(app, ["inspect", str(ended.folder), "transcript", "0"]).output
    assert "tool, run_gate" in people and "causality: fail: " in people
    nothing = CliRunner().invoke(app, ["inspect", str(ended.folder), "transcript", "9"])
    assert nothing.exit_code == 2 and "no model was called in it" in nothing.output


def test_every_call_is_recorded_as_it_was_sent_and_the_lost_one_is_paid(ended: Ended) -> None:
    calls = rows(ended.folder, "SELECT * FROM llm_call ORDER BY id")
    assert [call["outcome"] for call in calls] == ["lost", *["ok"] * 7]
    assert [call["attempt"] for call in calls] == [0, *range(6), 0]
    shown = CliRunner().invoke(app, ["inspect", str(ended.folder), "calls", "4", "--json"])
    assert json.loads(shown.output.splitlines()[-1])["rows"][0]["request"] == ended.requests[2]
    settled = "SELECT SUM(calls) AS calls FROM budget_entry WHERE kind = 'settle'"
    assert rows(ended.folder, settled) == [{"calls": 30 + 6 + 1}]
    files = [path for path in ended.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_the_search_is_decided_again_from_its_record(
    ended: Ended, patch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: Any) -> None:
        raise AssertionError("something ran")

    with pytest.MonkeyPatch.context() as inner:
        inner.setattr(written, "_sandbox", nothing)
        found = replay_calls(ended.folder)
    assert (found["match"], found["calls"]) == (True, 7), found["difference"]


# ------------------------------------------------------------------------- the campaign's budget


@dataclass
class Endless:
    """Never submits; every reply costs as much as it may: a token for each byte, the longest reply."""

    billed: list[float] = field(default_factory=list)

    def __call__(self, request: Received) -> Behaviour:
        size = len(request.content)
        self.billed.append((size + 5 * 300) / 1e6)
        text = f"x = {sum('tool_use' in str(turn) for turn in request.body['messages'])}\n"
        tokens = Tokens(size, 0, 0, 300, 0)
        return use(("write", {"path": "mixer.py", "text": text}), tokens=tokens)


def short_of(
    folder: Path, patch: pytest.MonkeyPatch, budget: Row, pick: Callable[[Sequence[int]], int] = min
) -> Endless:
    """A campaign of two agents that never submit, at a provider that bills them."""
    provider = Endless()
    patch.setattr(written, "environment", lambda recipe: {"sandbox": "none"})  # nothing is run
    with Loopback(provider) as server:
        keys_for(server.url, patch)
        agents = [
            {"name": name, "proposer": "llm", "model": "anthropic:m", "scaffold": "workspace"}
            | {"scaffold_options": {"turns": 5}, "options": {"max_output_tokens": 300}}
            for name in "ab"
        ]
        prices = {"anthropic:m": {"input": 1.0, "output": 5.0}}
        create(
            recipe(agents=agents, budget={"evaluations": 4, **budget}, prices=prices, lag=2), folder
        )
        drive(folder, pick)
    return provider


STATE = "SELECT slot, agent_id, seen, failure, detail FROM proposal ORDER BY slot"
ENTRIES = "SELECT proposal_id, kind, calls, usd FROM budget_entry ORDER BY proposal_id, id"
STOP = "SELECT reason FROM decision WHERE what = 'stop'"


def test_a_campaign_of_seven_calls_makes_seven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = []
    for name, pick in (("first", min), ("last", max)):
        provider = short_of(tmp_path / name, monkeypatch, {"calls": 7}, pick)
        assert len(provider.billed) == 7
        tables.append([rows(tmp_path / name, query) for query in (STATE, ENTRIES, STOP)])
    assert tables[0] == tables[1], "whoever answers first"
    proposals, entries, stop = tables[0]
    assert {row["failure"] for row in proposals} == {"budget"}
    assert "turns: 5 are used" in proposals[0]["detail"]
    assert "calls: 2 are used, and the campaign has no more" in proposals[1]["detail"]
    assert [row["calls"] for row in entries if row["kind"] == "reserve"] == [5, 2]
    assert "budget of 7 calls" in stop[0]["reason"]


def test_a_campaign_of_some_cents_spends_no_more_and_what_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = short_of(tmp_path / "run", monkeypatch, {"usd": 0.08})
    assert sum(provider.billed) <= 0.08 < sum(provider.billed) + 2 * max(provider.billed)
    settled = "SELECT SUM(usd) AS usd FROM budget_entry WHERE kind = 'settle'"
    assert rows(tmp_path / "run", settled)[0]["usd"] == pytest.approx(sum(provider.billed))
    assert "budget of $0.08" in rows(tmp_path / "run", STOP)[0]["reason"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "composition"}, "needs kind: module"),
        ({"agents": [{"name": "g", "proposer": "grammar", "scaffold": "workspace"}]}, "agent g: "),
        ({"agents": [{"name": "w", "proposer": "scripted", "scaffold": "workspace",
                      "scaffold_options": {"turns": 0}}]}, "turns must be above 0"),
        ({"agents": [{"name": "w", "proposer": "scripted", "scaffold": "workspace",
                      "scaffold_options": {"steps": 9}}]}, "refused its options"),
    ],
)  # fmt: skip
def test_where_there_can_be_no_session_is_said_before_it_runs(
    changes: Row, said: str, patch: pytest.MonkeyPatch
) -> None:
    keys_for("http://127.0.0.1:1", patch)
    with pytest.raises(RecipeError, match=said):
        check(parse(recipe(**changes)))
