"""Money in campaigns whose calls go over real HTTP: what is promised is computed at the provider's side."""

from __future__ import annotations

import itertools
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from driving import Threads, keys_for, reply
from ledgers import rows
from typer.testing import CliRunner

from agents.llm.loopback import Behaviour, Loopback, Received, Tokens, refusal, text
from archwright.campaign import Campaign
from archwright.cli import app
from archwright.recipe import parse

CAP, AGENTS, MOST_OUTPUT = 0.05, 8, 600
PATIENCE = 60.0  # seconds for which the first call waits for the others
PRICE = {"input": 0.1, "output": 1.0}  # USD per million tokens
Row = dict[str, Any]


class Provider:
    """Answers nobody before all agents' calls are open, and counts what it bills: every reply is about as
    dear as it may be. ``open_at_most``: calls open at
    once; ``committed``: at each arrival, all that was billed by then and the most of all that is open."""

    def __init__(self) -> None:
        self.lock, self.together = threading.Lock(), threading.Event()
        self.billed = self.opened = 0.0
        self.open = self.open_at_most = self.replies = 0
        self.committed: list[float] = []
        self.patterns = map("+".join, itertools.product(["A", "M", "Mb"], repeat=4))

    def __call__(self, request: Received) -> Behaviour:
        most = dearest(request)
        with self.lock:
            self.open += 1
            self.open_at_most = max(self.open_at_most, self.open)
            self.opened += most
            self.committed.append(self.billed + self.opened)
            behaviour = self._answer(request)
            if self.open == AGENTS:
                self.together.set()
        self.together.wait(PATIENCE)
        with self.lock:
            self.open -= 1
            self.opened -= most
            self.billed += most
        return behaviour

    def _answer(self, request: Received) -> Behaviour:
        """Every third reply needs a repair, every seventh is a refusal, every eighth is chat."""
        self.replies += 1
        n, made = self.replies, reply(next(self.patterns))
        if n % 3 == 0:
            made = reply("A+Q")
        if n % 7 == 0:
            made = refusal()
        if n % 8 == 0:
            made = text("I would rather chat.")
        return replace(made, tokens=Tokens(len(request.content), 0, 0, MOST_OUTPUT, 0))


def dearest(request: Received) -> float:
    """The most that a reply can cost: a token for each byte of the request, and all that may be said."""
    return (len(request.content) * PRICE["input"] + MOST_OUTPUT * PRICE["output"]) / 1e6


def recipe(prices: Row, budget: Row, repairs: int) -> Row:
    models = ["anthropic:m", "openai:m"]
    options = {"max_output_tokens": MOST_OUTPUT, "max_repairs": repairs, "memory_tokens": 600}
    agents = [
        {"name": f"a{i}", "proposer": "llm", "model": models[i % 2], "scaffold": "greedy"}
        for i in range(AGENTS)
    ]
    return {
        "name": "money",
        "space": {"primitives": ["A", "M", "Mb"], "layers": [2, 4], "preset": "mini"},
        "evaluation": {"profile": "smoke", "tasks": ["compression"]},
        "agents": [agent | {"options": options} for agent in agents],
        "budget": budget,
        "confirm": {"finalists": 0},
        "prices": {model: prices for model in models if prices},
        "lag": AGENTS,
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    with Loopback(Provider()) as made:
        keys_for(made.url, monkeypatch)
        yield made


def drive(folder: Path, made: Row) -> None:
    campaign, executor = Campaign.create(parse(made), folder, workers=2), Threads(2)
    campaign.run(executor)
    executor.close()
    campaign.ledger.engine.dispose()


@pytest.mark.parametrize("repairs", [0, 1])
def test_a_cap_of_five_cents_holds_with_eight_agents_at_once(
    server: Loopback, tmp_path: Path, repairs: int
) -> None:
    drive(tmp_path / "run", recipe(PRICE, {"evaluations": 500, "usd": CAP}, repairs))
    provider = server._choose
    assert isinstance(provider, Provider)
    one = max(dearest(request) for request in server.received)
    assert provider.open_at_most >= AGENTS, "they were at it together"
    assert max(provider.committed) <= CAP + one
    assert provider.billed <= CAP
    assert provider.billed > CAP / 2, "what can be afforded is done"
    (stop,) = rows(tmp_path / "run", "SELECT reason FROM decision WHERE what = 'stop'")
    assert "budget of $0.05" in stop["reason"]
    calls = rows(tmp_path / "run", "SELECT * FROM llm_call")
    assert len(calls) == len(server.received) == provider.replies
    costs = defaultdict[str, float](float)
    for call in calls:
        costs[call["outcome"]] += call["cost_usd"]
    assert sum(costs.values()) == pytest.approx(provider.billed), "each reply is charged as billed"
    assert costs["refusal"] > 0 and costs["malformed"] > 0, "failed ones too"
    settled = rows(
        tmp_path / "run", "SELECT SUM(usd) AS usd FROM budget_entry WHERE kind = 'settle'"
    )
    assert settled[0]["usd"] == pytest.approx(provider.billed)
    if repairs:
        repaired = rows(tmp_path / "run", "SELECT SUM(cost_usd) AS usd FROM llm_call WHERE attempt")
        assert repaired[0]["usd"] > 0


def test_an_unknown_price_is_shown_as_unknown(server: Loopback, tmp_path: Path) -> None:
    drive(tmp_path / "run", recipe({}, {"evaluations": 8, "calls": 30}, 1))
    run = str(tmp_path / "run")
    assert len(server.received) <= 30
    for what, column in (("spend", "usd"), ("agents", "usd"), ("calls", "cost_usd")):
        people = CliRunner().invoke(app, ["inspect", run, what])
        machines = CliRunner().invoke(app, ["inspect", run, what, "--json"])
        assert "unknown" in people.output
        found = [row[column] for row in json.loads(machines.output.splitlines()[-1])["rows"]]
        assert None in found
        assert what == "agents" or set(found) == {None}, "never zero"
