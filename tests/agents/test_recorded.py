"""A search of models, replayed from its ledger with the server down, no keys and no sockets."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from driving import KEY, Scoring, keys_for, offline, reply
from ledgers import rows
from typer.testing import CliRunner

from agents.llm import Message, Outcome, Prompt, RecordedClient, ScriptedClient
from agents.llm.loopback import (
    Behaviour,
    Loopback,
    Received,
    malformed,
    refusal,
    reset,
    status,
    text,
    truncated,
)
from agents.proposers.replies import PATTERN
from archwright.campaign import NOTES, Campaign
from archwright.cli import app
from archwright.recipe import RecipeError, parse
from archwright.replay_calls import replay_calls
from storage import database
from storage.records import CallRecord

Row = dict[str, Any]

# What each agent's provider does first; after that it answers with patterns nobody has proposed yet.
PLANS: dict[str, list[Behaviour]] = {
    "greedy": [
        reply("A+M"),
        reply("A+Q"),  # refused by the space, repaired by the next
        reply("2A"),
        truncated(),
        reply("A+M"),  # repaired into a repetition
        refusal(),
        malformed(),
        text("I would rather chat."),
        text("Still chatting."),
    ],
    "mcts": [status(500)] * 3 + [reply("M+A")] + [status(429, 0.01)] * 3,
    "best-of-n": [reply("A+M"), reply("2M"), reply("A+M"), reset(), reset(), reset()],
    "no-key": [status(401, message="no such key")],
}
SCAFFOLDS = {"greedy": "greedy", "mcts": "mcts", "best-of-n": "one-shot", "no-key": "one-shot"}


def providers() -> Callable[[Received], Behaviour]:
    left = {name: deque(plan) for name, plan in PLANS.items()}
    fresh = (reply("+".join(codes)) for codes in itertools.product(["A", "M", "Mb"], repeat=4))

    def choose(request: Received) -> Behaviour:
        plan = left[request.body["model"]]
        return plan.popleft() if plan else next(fresh)

    return choose


def recipe(wire: str, url: str, **changes: Any) -> Row:
    provider, at = {"anthropic": ("anthropic", ""), "responses": ("openai", "")}.get(
        wire, ("openai", f"@{url}/v1")
    )
    models = {name: f"{provider}:{name}{at}" for name in PLANS}
    options = {"max_output_tokens": 300, "timeout_seconds": 10}
    agents = [
        {
            "name": name,
            "proposer": "best-of-n" if name == "best-of-n" else "llm",
            "model": models[name],
            "scaffold": SCAFFOLDS[name],
            "scaffold_options": {"drafts": 2} if name == "greedy" else {},
            "options": options,
        }
        for name in PLANS
    ]
    return {
        "name": "recorded",
        "space": {"primitives": ["A", "M", "Mb"], "layers": [2, 4], "preset": "mini"},
        "evaluation": {"profile": "smoke", "tasks": ["compression"]},
        "agents": agents[:2] + agents[3:],
        "controls": [agents[2], {"name": "evolution", "proposer": "evolution"}],
        "budget": {"evaluations": 8, "usd": 50},
        "references": {"patterns": {"llama": "A+M"}, "seeds": 2},
        "rungs": {"count": 2, "eta": 2},
        "confirm": {"finalists": 1, "seeds": 2},
        "prices": {m: {"input": 1.0, "output": 5.0} for m in models.values()},
        "lag": 3,
        **changes,
    }


@dataclass(frozen=True)
class Recorded:
    folder: Path
    recipe: Row


@pytest.fixture(scope="module", params=["anthropic", "responses", "chat"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Recorded]:
    """A finished search whose server is down, in a process without keys and sockets."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    with pytest.MonkeyPatch.context() as patch:
        with Loopback(providers()) as server:
            keys_for(server.url, patch)
            made = recipe(request.param, server.url)
            drive(folder, made)
            assert any(KEY in json.dumps(r.headers) for r in server.received)
        offline(patch)
        yield Recorded(folder, made)


def drive(folder: Path, made: Row) -> None:
    campaign = Campaign.create(parse(made), folder, workers=2)
    campaign.run(Scoring(2))
    campaign.ledger.engine.dispose()


PROPOSALS = """
    SELECT p.slot, p.seed, p.seen, p.status, p.rung, p.operator, p.reason, p.hypothesis, p.reasoning,
           p.expected_effect, p.failure, p.detail, p.candidate_id, c.content_hash, a.name, a.scaffold,
           (SELECT group_concat(pp.candidate_id) FROM proposal_parent pp WHERE pp.proposal_id = p.id)
           AS parents
    FROM proposal p JOIN agent a ON a.id = p.agent_id LEFT JOIN candidate c ON c.id = p.candidate_id
    ORDER BY p.slot
"""


def found(folder: Path) -> Row:
    """All that a search asked, was told, decided and paid, but for when; ids of work in their order."""
    dated = {"id", "created", "proposal_id"}
    calls = rows(
        folder, "SELECT l.*, p.slot FROM llm_call l JOIN proposal p ON p.id = l.proposal_id"
    )
    money = (
        "SELECT slot, kind, calls, usd FROM budget_entry b JOIN proposal p ON p.id = proposal_id"
    )
    scores = (
        "SELECT e.candidate_id, e.seed, e.rung, e.sealed, m.metric, m.value FROM evaluation e JOIN "
    )
    scores += "measurement m ON m.evaluation_id = e.id ORDER BY 1, 2, 3, 4, 5"
    return {
        "slots": rows(folder, PROPOSALS),
        "calls": [{k: v for k, v in call.items() if k not in dated} for call in calls],
        "money": rows(folder, f"{money} ORDER BY slot, b.id"),
        "decisions": rows(folder, "SELECT what, reason, numbers FROM decision ORDER BY id"),
        "scores": rows(folder, scores),
    }


def replayed(arguments: list[str]) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["replay", *arguments])
    return done.exit_code, done.output


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file but those by which SQLite's readers share it, a log without a page among them."""
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {path: path.read_bytes() for path in files if path.suffix != ".db-shm"}
    return {path: data for path, data in found.items() if data or path.suffix != ".db-wal"}


# -------------------------------------------------------------------------------------- whole searches


def test_the_recorded_search_holds_what_it_is_about(run: Recorded) -> None:
    outcomes = {row["outcome"] for row in rows(run.folder, "SELECT outcome FROM llm_call")}
    assert outcomes >= {"ok", "refusal", "malformed", "truncated", "server_error", "rate_limited"}
    assert outcomes >= {"auth", "connection"}
    statuses = {row["status"] for row in rows(run.folder, "SELECT status FROM proposal")}
    assert statuses == {"accepted", "duplicate", "failed", "promoted"}
    asked = Counter(
        row["request_sha"] for row in rows(run.folder, "SELECT request_sha FROM llm_call")
    )
    assert max(asked.values()) >= 4, "one request was made several times"


def test_the_command_decides_all_of_it_again(run: Recorded) -> None:
    before = found(run.folder)
    files = contents(run.folder)
    code, output = replayed([str(run.folder), "--calls", "--json"])
    said = json.loads(output.splitlines()[-1])
    assert (code, said["match"], said["difference"]) == (0, True, None)
    slots = before["slots"]
    answered = sum(slot["status"] != "promoted" for slot in slots)
    assert said["recorded"] == said["replayed"] == len(slots) + answered + 2
    assert said["calls"] == len(before["calls"])
    code, output = replayed([str(run.folder), "--calls"])
    assert code == 0
    assert f"{said['recorded']} of {said['recorded']} decisions equal" in output
    assert files == contents(run.folder), "it writes nothing"


def test_recorded_agents_in_a_recipe_make_the_same_search(run: Recorded, tmp_path: Path) -> None:
    """With the driver, its budget and its evaluations for real; then that run is replayed in its turn."""

    drive(tmp_path / "second", again(run, run.folder))
    assert found(tmp_path / "second") == found(run.folder)
    drive(tmp_path / "third", again(run, tmp_path / "second"))
    assert found(tmp_path / "third") == found(run.folder)
    assert replay_calls(tmp_path / "third")["match"]


class Interrupted(Scoring):
    """Ctrl-C at wait number 20."""

    waits = 0

    def wait(self, handles: Sequence[int], timeout: float) -> list[int]:
        self.waits += 1
        if self.waits == 20:
            raise KeyboardInterrupt
        return super().wait(handles, timeout)


def test_an_interrupted_search_is_replayed_as_far_as_it_came_and_goes_on_from_there(
    run: Recorded, tmp_path: Path
) -> None:
    campaign = Campaign.create(parse(again(run, run.folder)), tmp_path / "run", workers=2)
    with pytest.raises(KeyboardInterrupt):
        campaign.run(Interrupted(2))
    part = replay_calls(tmp_path / "run")
    assert (part["match"], part["difference"]) == (True, None)
    assert 5 < part["recorded"] < replay_calls(run.folder)["recorded"]
    Campaign.open(tmp_path / "run").run(Scoring(2))
    whole, once = found(tmp_path / "run"), found(run.folder)
    assert [whole[k] for k in ("slots", "decisions", "scores")] == [
        once[k] for k in ("slots", "decisions", "scores")
    ]
    assert [c for c in whole["calls"] if c["outcome"] != "lost"] == once["calls"]


def again(run: Recorded, folder: Path) -> Row:
    """The recipe of the run with its model agents answered by the record in a folder."""

    def recorded(agent: Row) -> Row:
        options = {"run": str(folder), "agent": agent["name"]}
        return {"name": agent["name"], "proposer": "recorded", "options": options}

    agents, (control, evolution) = run.recipe["agents"], run.recipe["controls"]
    controls = [recorded(control), evolution]
    return run.recipe | {"agents": [recorded(agent) for agent in agents], "controls": controls}


@pytest.fixture
def copy(run: Recorded, tmp_path: Path) -> Path:
    return shutil.copytree(run.folder, tmp_path / "copy")


def change(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / database.FILE)) as db, db:
        assert db.execute(statement, values).rowcount == 1


def test_another_hypothesis_is_a_difference_and_later_decisions_are_still_compared(
    copy: Path,
) -> None:
    slot = rows(copy, "SELECT slot FROM proposal WHERE status = 'accepted' ORDER BY slot DESC")[0]
    change(copy, "UPDATE proposal SET hypothesis = 'another' WHERE slot = ?", slot["slot"])
    code, output = replayed([str(copy), "--calls", "--json"])
    said = json.loads(output.splitlines()[-1])
    assert (code, said["match"]) == (1, False)
    assert said["recorded"] - said["replayed"] == 1
    place = {"slot": slot["slot"], "decision": "proposal", "field": "hypothesis"}
    assert said["difference"].items() >= place.items()
    assert said["difference"]["recorded"] == "another"
    code, output = replayed([str(copy), "--calls"])
    assert code == 1
    assert f"{said['replayed']} of {said['recorded']} decisions equal" in output
    assert "another" in output


def test_another_score_is_another_decision(copy: Path) -> None:
    """The best becomes the worst: who was promoted and what was improved do not follow any more."""
    query = "SELECT m.id FROM measurement m JOIN evaluation e ON e.id = m.evaluation_id "
    best = rows(copy, f"{query} WHERE NOT e.sealed ORDER BY value DESC")[0]
    change(copy, "UPDATE measurement SET value = -1 WHERE id = ?", best["id"])
    assert not replay_calls(copy)["match"]


def test_a_prompt_that_was_never_sent_is_a_failure_that_says_where_it_differs(copy: Path) -> None:
    (copy / NOTES).write_text("Prefer few layers.")
    said = replay_calls(copy)
    assert not said["match"]
    failure, why = said["difference"]["replayed"]
    assert (said["difference"]["field"], failure) == ("failure", "unrecorded")
    assert f"agent greedy of {copy}, slot 1 of its own: the recorded request is another" in why
    assert "has '# Notes of the user" in why
    assert "replay with the recipe, the notes and the literature of that run, or ask a model" in why


def test_a_recorded_agent_that_is_asked_something_else_is_stopped(
    run: Recorded, tmp_path: Path
) -> None:
    agent = run.recipe["controls"][0]
    options = {"run": str(run.folder), "agent": agent["name"]}
    made = {
        "agents": [{"name": "again", "proposer": "recorded", "options": options}],
        "controls": [{"name": "random", "proposer": "random"}],
        "rungs": {"count": 1},
    }
    drive(tmp_path / "run", run.recipe | made)
    mine = [row for row in rows(tmp_path / "run", PROPOSALS) if row["name"] == "again"]
    assert mine[0]["failure"] == "unrecorded", "without rungs the task is another"
    assert "section rules," in mine[0]["detail"]
    assert len(mine) <= 3, "those in flight when the first had failed"


def test_a_run_that_depended_on_timing_is_refused(run: Recorded, tmp_path: Path) -> None:
    loose = run.recipe | {"reproducible": False, "agents": [run.recipe["controls"][1]]}
    drive(tmp_path / "run", loose | {"controls": [], "budget": {"evaluations": 2}})
    code, output = replayed([str(tmp_path / "run"), "--calls"])
    assert code == 2
    assert "reproducible: false" in output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give both"),
        ({"run": "RUN", "agent": "gredy"}, "'greedy'"),
        ({"run": "RUN", "agent": "evolution"}, "calls cannot be replayed"),
    ],
)
def test_a_record_that_is_not_there_is_said_before_anything_is_written(
    run: Recorded, tmp_path: Path, options: Row, words: str
) -> None:
    filled = {k: str(run.folder) if v == "RUN" else v for k, v in options.items()}
    agent = {"name": "again", "proposer": "recorded", "options": filled}
    with pytest.raises(RecipeError, match=words):
        drive(tmp_path / "run", run.recipe | {"agents": [agent]})
    with pytest.raises(database.LedgerError, match="holds no ledger"):
        nowhere = agent | {"options": {"run": str(tmp_path), "agent": "greedy"}}
        drive(tmp_path / "run", run.recipe | {"agents": [nowhere]})
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------ the client

PROMPT = Prompt("system", (Message("user", "# Your task\nPropose."),), PATTERN.schema, 100)


def recorded(replies: list[Any], prompts: list[Prompt]) -> list[CallRecord]:
    """The records of these prompts, answered by the script."""
    client = ScriptedClient(replies)
    calls = [asyncio.run(client.complete(prompt)) for prompt in prompts]
    return [
        CallRecord("scripted", "s", "draft", i, c.request, c.reply, c.outcome.value, c.error)
        for i, c in enumerate(calls)
    ]


def ask(client: RecordedClient, prompt: Prompt) -> tuple[Outcome, Any, str]:
    call = asyncio.run(client.complete(prompt))
    return call.outcome, call.data, call.error


def test_of_equal_requests_the_kth_reply_comes_the_kth_time_and_then_none() -> None:
    calls = recorded([{"n": 1}, "chat", {"n": 3}], [PROMPT, PROMPT, PROMPT])
    client = RecordedClient("scripted", calls, "here")
    asked = [ask(client, PROMPT) for _ in range(4)]
    outcomes = [Outcome.ok, Outcome.malformed, Outcome.ok, Outcome.unrecorded]
    assert [outcome for outcome, *_ in asked] == outcomes
    assert [data for _, data, _ in asked] == [{"n": 1}, None, {"n": 3}, None]
    assert "not JSON" in asked[1][2]
    assert "here: 3 calls are recorded there, and this is one more" in asked[3][2]
    assert client.played == [*calls, None]


def test_requests_are_found_by_what_they_say_in_whatever_order_they_come() -> None:
    other = replace(PROMPT, system="another")
    calls = recorded([{"n": 1}, {"n": 2}], [PROMPT, other])
    laid_out = [replace(c, request=json.dumps(json.loads(c.request), indent=1)) for c in calls]
    client = RecordedClient("scripted", laid_out, "here")
    assert [ask(client, p)[1] for p in (other, PROMPT)] == [{"n": 2}, {"n": 1}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"system": "systems"}, "system has 'systems' where it has 'system'"),
        ({"max_output_tokens": 7}, "max_output_tokens is 7, not 100"),
        (
            {"messages": (Message("user", "# Your task\nRefuse."),)},
            "messages.0.text, section task, has 'Refuse.' where it has 'Propose.'",
        ),
        (
            {"messages": (*PROMPT.messages, Message("assistant", "no"))},
            "messages.1 is {'role': 'assistant', 'text': 'no'}, not None",
        ),
    ],
)
def test_what_differs_from_the_record_is_named(change: Row, words: str) -> None:
    client = RecordedClient("scripted", recorded([{"n": 1}], [PROMPT]), "here")
    outcome, data, error = ask(client, replace(PROMPT, **change))
    assert (outcome, data) == (Outcome.unrecorded, None)
    assert words in error
    assert ask(client, PROMPT)[1] == {"n": 1}, "and the record is not used up by it"


@pytest.mark.parametrize("model", ["anthropic:m", "openai:m", "openai:m@http://127.0.0.1:9/v1"])
def test_a_call_that_never_reached_the_wire_is_answered_in_its_turn(model: str) -> None:
    call = CallRecord("p", model, "draft", 0, "", "", "bad_request", "UnicodeEncodeError: x")
    client = RecordedClient(model, [call], "here")
    assert ask(client, PROMPT) == (Outcome.bad_request, None, "UnicodeEncodeError: x")


def test_a_request_that_is_no_json_is_another_request() -> None:
    call = CallRecord("mine", "scripted", "draft", 0, "Propose!", "{}", "ok")
    outcome, _, error = ask(RecordedClient("scripted", [call], "here"), PROMPT)
    assert outcome is Outcome.unrecorded
    assert "not 'Propose!'" in error
