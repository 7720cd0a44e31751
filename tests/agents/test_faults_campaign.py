"""Campaigns in which every agent's provider has a fault of its own: typed, recorded, paid, and the others
go on. The real SDKs over real HTTP, on each of the three wires."""

from __future__ import annotations

import itertools
import json
import os
import re
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from agents.llm import Outcome
from agents.llm.loopback import (
    CACHED,
    HUGE,
    INPUT,
    OUTPUT,
    WRITTEN,
    Behaviour,
    Loopback,
    Received,
    hang,
    huge,
    malformed,
    ok,
    refusal,
    reset,
    status,
    text,
    truncated,
)
from archwright import console, report
from archwright.campaign import Campaign
from archwright.cli import app
from archwright.executor import LocalExecutor
from archwright.recipe import parse
from storage import blobs, database
from storage.ledger import BLOBS

KEY = "sk-secret-4711"
PRICE = {"input": 1.0, "output": 5.0, "cached_input": 0.1, "cache_write": 1.25}
# Of one reply, by what the loopback says it used.
PAID = ((INPUT - CACHED - WRITTEN) * 1 + CACHED * 0.1 + WRITTEN * 1.25 + OUTPUT * 5) / 1e6
ODD = "a\x00b\x1b[31m\u202e[/b] é"
Row = dict[str, Any]


def reply(pattern: str, hypothesis: str = "h") -> Behaviour:
    words = {"hypothesis": hypothesis, "reasoning": "r", "expected_effect": "+"}
    return ok({**words, "pattern": pattern})


@dataclass(frozen=True)
class Fault:
    """What a provider does in an agent's first slot, and what is recorded of that.

    ``calls``: (outcome, words of the error, USD or None for unknown) of each call; ``http``: requests
    on the wire in all.
    """

    plan: Sequence[Behaviour]
    calls: Sequence[tuple[str, str, float | None]]
    failure: str | None = None
    http: int = 1
    seconds: float = 10.0  # the agent's limit for a call


FINE = ("ok", "", PAID)
FAULTS: dict[str, Fault] = {
    "rate-limit": Fault([status(429, 0.6), reply("A")], [FINE], http=2),
    "lasting-rate-limit": Fault(
        [status(429, 0.01)] * 3, [("rate_limited", "HTTP 429", 0.0)], "rate_limited", 3
    ),
    "overload": Fault([status(529, 0.01)] * 3, [("overloaded", "529", 0.0)], "overloaded", 3),
    "server-error": Fault([status(500, 0.01)] * 3, [("server_error", "500", None)], "server_error", 3),
    "stalled-body": Fault([hang()], [("timeout", "within 0.5 s", None)], "timeout", seconds=0.5),
    "reset": Fault([reset()] * 3, [("connection", "", None)], "connection", 3),
    "bad-key": Fault([status(401, message="no such key")], [("auth", "no such key", 0.0)], "auth"),
    "bad-request": Fault(
        [status(400, message="no such field")], [("bad_request", "no such field", 0.0)], "bad_request"
    ),
    "refusal": Fault([refusal()], [("refusal", "I will not do that", PAID)], "refusal"),
    "truncation": Fault([truncated(), reply("M")], [("truncated", "cut short", PAID), FINE], http=2),
    "no-json": Fault(
        [malformed(), text("I would rather chat."), reply("Mb")],
        [("malformed", "not JSON", None), ("malformed", "not JSON", PAID), FINE],
        http=3,
    ),
    "bad-pattern": Fault([reply("A+Q"), reply("2A")], [FINE, FINE], http=2),
    "bad-for-good": Fault([reply("A+Q")] * 3, [FINE] * 3, "invalid-reply", 3),
    "control-characters": Fault([reply("2M", ODD)], [FINE]),
    "2-megabytes": Fault([huge(), reply("2Mb")], [("malformed", "the limit", None), FINE], http=2),
}  # fmt: skip
UNCHARGED = {"rate_limited", "overloaded", "server_error", "timeout", "connection", "auth"}


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().endswith("_PROXY") or name.startswith(("ANTHROPIC_", "OPENAI_")):
                patch.delenv(name)
        patch.setenv("ANTHROPIC_API_KEY", KEY)
        patch.setenv("OPENAI_API_KEY", KEY)
        yield patch


def by_model(plans: Mapping[str, Sequence[Behaviour]]) -> Callable[[Received], Behaviour]:
    """Each model its own behaviours in turn; then valid replies that nobody has given before."""
    left = {model: deque(plan) for model, plan in plans.items()}
    fresh = (reply("+".join(codes)) for codes in itertools.product(["A", "M", "Mb"], repeat=4))

    def choose(request: Received) -> Behaviour:
        plan = left[request.body["model"]]
        return plan.popleft() if plan else next(fresh)

    return choose


@dataclass(frozen=True)
class Ended:
    """A campaign of all the faults, and what the provider saw of it."""

    wire: str
    folder: Path
    server: Loopback
    said: str  # on stderr while it ran and at its end

    def rows(self, query: str, *values: object) -> list[Row]:
        with closing(sqlite3.connect(self.folder / database.FILE)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(query, values)]

    @contextmanager
    def ledger(self) -> Iterator[Session]:
        engine = database.open_(self.folder, readonly=True)
        with Session(engine) as db:
            yield db
        engine.dispose()

    def slots(self, agent: str) -> list[Row]:
        query = "SELECT p.* FROM proposal p JOIN agent a ON a.id = p.agent_id WHERE a.name = ?"
        return self.rows(f"{query} ORDER BY slot", agent)

    def calls(self, proposal: int) -> list[Row]:
        return self.rows("SELECT * FROM llm_call WHERE proposal_id = ? ORDER BY attempt", proposal)

    def requests(self, fault: str) -> list[Received]:
        return [r for r in self.server.received if r.body["model"] == fault]


@pytest.fixture(scope="module", params=["anthropic", "responses", "chat"])
def ended(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    environment: pytest.MonkeyPatch,
) -> Ended:
    folder = tmp_path_factory.mktemp(request.param) / "run"
    said = folder.with_name("said")
    with Loopback(by_model({name: fault.plan for name, fault in FAULTS.items()})) as server:
        environment.setenv("ANTHROPIC_BASE_URL", server.url)
        environment.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        run = Campaign.create(parse(recipe(request.param, server.url)), folder, workers=1)
        with said.open("w") as file, pytest.MonkeyPatch.context() as patch:
            for name in ("err", "out"):
                patch.setattr(console, name, console.Console(file=file, width=160))
            run.run(LocalExecutor(), console.Watcher(run.recipe))
            with Session(run.ledger.engine) as db:
                console.outcome(report.summary(db, "run"))
        run.ledger.engine.dispose()
    return Ended(request.param, folder, server, said.read_text())


def recipe(wire: str, url: str) -> Row:
    provider, at = {"anthropic": ("anthropic", ""), "responses": ("openai", "")}.get(
        wire, ("openai", f"@{url}/v1")
    )
    models = {name: f"{provider}:{name}{at}" for name in FAULTS}
    return {
        "name": "faults",
        "space": {"layers": [1, 4], "preset": "mini"},
        "evaluation": {"profile": "smoke", "tasks": ["compression"]},
        "agents": [
            {
                "name": name,
                "proposer": "llm",
                "scaffold": "one-shot",
                "model": models[name],
                "options": {"max_output_tokens": 200, "timeout_seconds": fault.seconds},
            }
            for name, fault in FAULTS.items()
        ],
        "budget": {"evaluations": 2 * len(FAULTS), "usd": 100},
        "confirm": {"finalists": 1, "seeds": 2},
        "prices": dict.fromkeys(models.values(), PRICE),
        "lag": len(FAULTS),
    }


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_typed_recorded_and_paid(ended: Ended, name: str) -> None:
    fault, slot = FAULTS[name], ended.slots(name)[0]
    assert (slot["status"], slot["failure"]) == (
        "failed" if fault.failure else "accepted",
        fault.failure,
    )
    calls = ended.calls(slot["id"])
    assert [call["outcome"] for call in calls] == [outcome for outcome, *_ in fault.calls]
    assert [call["attempt"] for call in calls] == list(range(len(fault.calls)))
    for call, (_, words, usd) in zip(calls, fault.calls, strict=True):
        assert re.search(words, call["error"])
        assert call["cost_usd"] == (None if usd is None else pytest.approx(usd))
        assert call["request_sha"] is not None
    assert sum(call["http_attempts"] for call in calls) == fault.http
    entries = ended.rows("SELECT * FROM budget_entry WHERE proposal_id = ?", slot["id"])
    reserved, settled = ({e["kind"]: e for e in entries}[kind] for kind in ("reserve", "settle"))
    known = all(usd is not None for *_, usd in fault.calls)
    spent = sum(usd or 0 for *_, usd in fault.calls) if known else reserved["usd"]
    assert settled["usd"] == pytest.approx(spent), "what may have been billed counts in full"
    assert settled["calls"] == len(fault.calls)


def test_every_class_of_outcome_has_happened(ended: Ended) -> None:
    found = {row["outcome"] for row in ended.rows("SELECT outcome FROM llm_call")}
    assert found == set(Outcome) - {Outcome.unrecorded}


@pytest.mark.parametrize("name", FAULTS)
def test_the_others_go_on_and_so_does_the_agent_unless_its_key_is_refused(
    ended: Ended, name: str
) -> None:
    later = ended.slots(name)[1:]
    if name == "bad-key":
        assert later == [] and len(ended.requests(name)) == 1
    else:
        assert later
        assert {slot["status"] for slot in later} == {"accepted"}


def test_the_whole_budget_was_searched(ended: Ended) -> None:
    slots = [slot for name in FAULTS for slot in ended.slots(name)]
    charged = [slot for slot in slots if slot["failure"] not in UNCHARGED]
    assert len(charged) == 2 * len(FAULTS)
    assert ended.rows("SELECT status FROM campaign") == [{"status": "done"}]
    states = ended.rows("SELECT DISTINCT state FROM evaluation")
    assert states == [{"state": "done"}], "no fault of a provider's reached an evaluation"


def test_retry_after_is_honoured(ended: Ended) -> None:
    """The SDKs' own first back-off is at most .5 s, so .6 s can only come from the header."""
    first, second, *_ = ended.requests("rate-limit")
    assert second.at - first.at >= 0.6
    assert first.content == second.content


def test_an_invalid_pattern_goes_back_with_column_rule_and_nearest_code(ended: Ended) -> None:
    _, repaired, *_ = ended.requests("bad-pattern")
    last = next(reversed(repaired.body.get("messages") or repaired.body["input"]))
    assert last["role"] == "user"
    assert re.search(r"column 3: unknown code 'Q'.*nearest.*'A'", last["content"])


def test_the_user_is_told_once_of_the_key_and_at_the_end_again(ended: Ended) -> None:
    told = [line for line in ended.said.splitlines() if "no such key" in line]
    assert len(told) == 2
    assert all("agent bad-key is stopped, the others go on" in line for line in told)
    with ended.ledger() as db:
        rows = {row["agent"]: row for row in report.agents(db)}
        summary = report.summary(db, "run")
    assert summary["stopped"] == {"bad-key": "HTTP 401: no such key"}
    assert {name for name, row in rows.items() if row["stopped"]} == {"bad-key"}


def test_what_was_paid_without_a_known_cost_is_not_shown_as_nothing(ended: Ended) -> None:
    with ended.ledger() as db:
        rows = {row["agent"]: row for row in report.agents(db)}
    for name, fault in FAULTS.items():
        calls = [call for slot in ended.slots(name) for call in ended.calls(slot["id"])]
        assert rows[name]["calls"] == len(calls)
        costs = [call["cost_usd"] for call in calls]
        unknown = any(usd is None for *_, usd in fault.calls)
        assert rows[name]["usd"] == (None if unknown else pytest.approx(sum(costs)))
    assert rows["references"]["usd"] == 0


def test_odd_characters_are_kept_and_not_shown_to_the_terminal(
    ended: Ended, capsys: pytest.CaptureFixture[str]
) -> None:
    (slot, *_) = ended.slots("control-characters")
    assert slot["hypothesis"] == ODD
    with ended.ledger() as db:
        lineage = report.queries.lineage(db, slot["candidate_id"])
    console.table(lineage, "lineage")
    console.details(lineage[0])
    shown = capsys.readouterr().out
    assert "\\x1b[31m\\u202e[/b] é" in re.sub(r"\s*\n\s*", "", shown)
    assert not re.search(r"[\x00\x1b\u202e]", shown)


def test_of_a_reply_of_two_megabytes_the_head_is_kept(ended: Ended) -> None:
    slot = ended.slots("2-megabytes")[0]
    call, _ = ended.calls(slot["id"])
    kept = blobs.get(ended.folder / BLOBS, call["reply_sha"])
    whole = next(body for _, body in ended.server.answered if len(body) > HUGE)
    assert len(kept) == 10_000 and whole.startswith(kept)
    again = ended.requests("2-megabytes")[1]
    assert len(again.content) < 30_000, "the repair does not send it back"


def test_all_else_is_kept_as_it_went_over_the_wire(ended: Ended) -> None:
    """The last request of each call, and its answer, errors included."""
    went = {(request.content, body) for request, body in ended.server.answered}
    calls = ended.rows("SELECT * FROM llm_call")
    silent = {"timeout", "connection"}
    for call in calls:
        request = blobs.get(ended.folder / BLOBS, call["request_sha"])
        if call["outcome"] in silent:
            assert call["reply_sha"] is None
            assert request in {received.content for received in ended.server.received}
        elif "the limit" not in call["error"]:
            assert (request, blobs.get(ended.folder / BLOBS, call["reply_sha"])) in went
    requests = sum(call["http_attempts"] for call in calls)
    assert requests == len(ended.server.received)


@pytest.mark.parametrize("name", ["bad-pattern", "refusal", "bad-key", "no-json"])
def test_inspecting_a_call_shows_to_the_byte_what_went_over_the_wire(
    ended: Ended, name: str
) -> None:
    went = {(request.content, body) for request, body in ended.server.answered}
    for call in ended.calls(ended.slots(name)[0]["id"]):
        command = ["inspect", str(ended.folder), "calls", str(call["id"]), "--json"]
        (row,) = json.loads(CliRunner().invoke(app, command).output.splitlines()[-1])["rows"]
        assert (row["request"].encode(), row["reply"].encode()) in went
        tokens = {part["section"]: part["tokens"] for part in row["sections"]}
        assert tokens.keys() == {
            "opening",
            "grammar",
            "catalogue",
            "rules",
            "reply",
            "task",
            "rest",
        }
        assert min(tokens.values()) > 0
        assert sum(part["characters"] for part in row["sections"]) == len(row["request"])


def test_instructions_are_marked_for_the_cache_on_anthropic(ended: Ended) -> None:
    for request in ended.server.received:
        marked = "cache_control" in json.dumps(request.body)
        assert marked == (ended.wire == "anthropic")
        if marked:
            assert request.body["system"][-1]["cache_control"] == {"type": "ephemeral"}


def test_the_key_is_in_no_file(ended: Ended) -> None:
    assert any(KEY in json.dumps(r.headers) for r in ended.server.received), "it was in use"
    for path in ended.folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes()
    for row in ended.rows("SELECT sha256 FROM artifact"):
        assert KEY.encode() not in blobs.get(ended.folder / BLOBS, row["sha256"])
