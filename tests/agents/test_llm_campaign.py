"""A whole campaign whose agents are models: the real SDKs over real HTTP, the real ledger."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from agents.agent import Agent
from agents.llm.loopback import Behaviour, Loopback, malformed, ok, refusal, status, text
from archwright import inspection, report
from archwright.campaign import Campaign
from archwright.executor import LocalExecutor
from archwright.recipe import RecipeError, parse
from archwright.setup import agent_specs
from storage import queries
from storage.records import View

KEY = "sk-secret-4711"
PRICE = {"input": 1.0, "output": 5.0}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def reply(pattern: str) -> Behaviour:
    words = {"hypothesis": f"{pattern} is good", "reasoning": "r", "expected_effect": "+"}
    return ok({**words, "pattern": pattern})


def campaign(folder: Path, url: str, provider: str = "anthropic", **budget: Any) -> Campaign:
    model = f"{provider}:m@{url}" + ("/v1" if provider == "openai" else "")
    options = {"max_output_tokens": 200, "timeout_seconds": 5}
    recipe = {
        "name": "llm",
        "space": {"layers": [1, 3], "preset": "mini"},
        "evaluation": {"profile": "smoke", "tasks": ["compression"]},
        "agents": [{"name": "a", "proposer": "llm", "model": model, "options": options}],
        "budget": {"evaluations": 4, **budget},
        "confirm": {"finalists": 1, "seeds": 2},
        "prices": {model: PRICE},
    }
    return Campaign.create(parse(recipe), folder, workers=1)


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_campaign_of_a_model_ends_with_confirmed_results(tmp_path: Path, provider: str) -> None:
    behaviours = [
        reply("A+M"),
        reply("A+Q"),  # refused by the space, repaired by the next
        reply("A+Mb"),
        refusal(),
        malformed(),
        text("I would rather chat."),
        text("Still chatting."),
        reply("2A+M"),
        reply("A+M"),  # a repetition: answered from the ledger, not charged
    ]
    with Loopback(behaviours) as server:
        run = campaign(tmp_path / "run", server.url, provider, calls=40, usd=1.0)
        run.run(LocalExecutor())
        sent = [str(received.body) for received in server.received]
    assert any("column 3: unknown code 'Q'" in body for body in sent)
    with Session(run.ledger.engine) as db:
        told = [(n.status, n.failure) for n in _nodes(run)]
        assert told[:3] == [("accepted", None), ("accepted", None), ("failed", "refusal")]
        summary, calls = report.summary(db, "run"), queries.calls(db)
        assert summary["best"]["sealed"]
        assert summary["status"] == "done"
        assert len(calls) == summary["spend"]["calls"] == len(sent) - _retries(calls)
        one = inspection.rows(db, run.folder, "calls", 1, None, None)[0]
    assert one["request"] in {r.replace("'", '"') for r in sent} or "messages" in one["request"]
    assert "A+M is good" in one["reply"].replace("\\", "")
    _no_key_in(run.folder)


def _nodes(run: Campaign) -> list[Any]:
    return [state.node for state in run.slots]


def _retries(calls: list[dict[str, Any]]) -> int:
    return sum(call["http_attempts"] - 1 for call in calls)


def _no_key_in(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_refused_key_stops_that_agent_and_the_control_goes_on(tmp_path: Path) -> None:
    with Loopback([status(401)] * 20) as server:
        recipe = campaign(tmp_path / "x", server.url).recipe.model_dump(mode="json")
        recipe["controls"] = [{"name": "random", "proposer": "random"}]
        run = Campaign.create(parse(recipe), tmp_path / "run", workers=1)
        run.run(LocalExecutor())
    with Session(run.ledger.engine) as db:
        rows = {row["agent"]: row for row in report.agents(db)}
    assert rows["a"]["failed"] == 1
    assert rows["random"]["accepted"] == 4


def test_trouble_at_the_provider_is_not_charged_to_the_search(tmp_path: Path) -> None:
    behaviours = [status(500)] * 3 + [reply(p) for p in ("A", "M", "Mb", "A+M")]
    with Loopback(behaviours) as server:
        run = campaign(tmp_path / "run", server.url)
        run.run(LocalExecutor())
    assert [n.failure for n in _nodes(run)] == ["server_error", None, None, None, None]


def test_the_money_cap_is_never_exceeded(tmp_path: Path) -> None:
    with Loopback([reply(p) for p in ("A", "M", "Mb", "A+M")]) as server:
        recipe = campaign(tmp_path / "x", server.url).recipe
        quote = Agent(agent_specs(recipe)[1]).quote(View(), 0)
        assert quote is not None
        assert quote.usd is not None
        cap = quote.usd * 1.01  # one worst case fits, and hardly more
        run = campaign(tmp_path / "run", server.url, usd=cap)
        run.run(LocalExecutor())
        asked = len(server.received)
    with Session(run.ledger.engine) as db:
        spent, stopped = queries.spent(db).usd, queries.decision(db, "stop")
    assert spent is not None
    assert 0 < spent <= cap
    assert stopped is not None
    assert 0 < asked < 4  # the worst case of the next one no longer fitted


def test_a_cap_on_money_needs_a_price_and_a_model_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {"name": "x", "agents": [{"name": "a", "proposer": "llm", "model": "openai:m"}]}
    with pytest.raises(RecipeError, match="no known price"):
        Campaign.create(parse({**base, "budget": {"usd": 1}}), tmp_path / "run", 1)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(RecipeError, match="OPENAI_API_KEY"):
        Campaign.create(parse(base), tmp_path / "run", 1)
    assert not (tmp_path / "run").exists()
