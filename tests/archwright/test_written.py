"""Campaigns of written modules in this process: what each source comes to, and what the ledger tells of it.

Gate, training and scoring are real, in the sandbox; training is that of profile `smoke`.
"""

from __future__ import annotations

import multiprocessing
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from ledgers import merged, reading

from agents.grammar import draw, source
from agents.scaffolds.greedy import Greedy
from archwright import inspection, report, written
from archwright.campaign import Campaign
from archwright.executor import LocalExecutor
from archwright.recipe import Recipe, RecipeError, parse
from archwright.replay import replay
from archwright.replay_calls import replay_calls
from archwright.setup import check
from sandbox.contract import load
from sandbox.contract import written as primitive
from sandbox.gate import CHECKS
from search_space.model import Model, layer_cost, pattern_cost
from search_space.pattern import Layer, Pattern
from search_space.presets import preset
from search_space.primitives import CATALOGUE
from storage import database

Row = dict[str, Any]
HEAD = "import torch\nfrom torch import nn\n\n\nclass Mixer(nn.Module):\n"
INIT = "    def __init__(self, d_model, max_len, causal):\n        super().__init__()\n"
PLAIN = HEAD + INIT + "        self.w = nn.Linear(d_model, d_model)\n\n    def forward(self, x):\n"
LEAKS = f"{PLAIN}        return self.w(x.flip(1))\n"
LARGE = f"{PLAIN}        return self.w(x.cumsum(1) / 8)\n".replace(
    "nn.Linear(d_model, d_model)",
    "nn.Sequential(nn.Linear(d_model, 16 * d_model), nn.Linear(16 * d_model, d_model))",
)
HONEST = source(draw(random.Random(6)))  # a running maximum
RENAMED = HONEST.replace("self.value", "self.entry").replace("v = ", "v  =  ")
SOURCES = {
    "no Python": "class Mixer(nn.Module:\n",
    "too deep": "-" * 100_000 + "1",
    "leaks": LEAKS,
    "large": LARGE,
    "honest": HONEST,
    "renamed": RENAMED,
}
FAILS = {"no Python": "source", "too deep": "source", "leaks": "causality", "large": "budget"}

BASE: Row = {
    "name": "written",
    "kind": "module",
    "module": {"pattern": "X+M", "salt": 5},
    "evaluation": {"profile": "smoke", "tasks": ["compression"]},
    "agents": [{"name": "writer", "proposer": "grammar", "scaffold": "one-shot"}],
    "budget": {"evaluations": 2},
    "references": {"patterns": {"attention": "A+M"}, "seeds": 2},
    "confirm": {"finalists": 1, "seeds": 2},
    "lag": 1,
}


def recipe(**changes: Any) -> Recipe:
    """BASE with some fields changed; sections are merged."""
    return parse(merged(BASE, changes))


def run(
    folder: Path, chosen: Recipe, pick: Callable[[Sequence[int]], int] = lambda handles: handles[0]
) -> Campaign:
    campaign = Campaign.create(chosen, folder, workers=2)
    campaign.run(LocalExecutor(2, pick))
    return campaign


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with reading(folder) as db:
        return [tuple(row) for row in inspection.sql(db, query)[1]]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign of an agent that was given the sources, one after the other."""
    options = {"sources": list(SOURCES.values())}
    agent = {"name": "writer", "proposer": "fixed", "options": options}
    chosen = recipe(agents=[agent], budget={"evaluations": len(SOURCES)})
    return run(tmp_path_factory.mktemp("written") / "run", chosen)


def candidate(ended: Campaign, name: str) -> int:
    slot = 1 + list(SOURCES).index(name)  # after the reference's
    found = ended.slots[slot].candidate
    assert found is not None
    return found


@pytest.mark.parametrize("name", FAILS)
def test_what_fails_the_gate_has_its_certificate_and_no_score(ended: Campaign, name: str) -> None:
    id_ = candidate(ended, name)
    with reading(ended.folder) as db:
        shown = report.candidate(db, id_)
        ranked = [row["candidate"] for row in report.leaderboard(db)]
    [evaluation] = shown["evaluations"]
    assert (evaluation["state"], evaluation["failure"]) == ("failed", "gate")
    assert evaluation["measurements"] == []
    assert id_ not in ranked
    assert [row["name"] for row in shown["certificate"]] == list(CHECKS)
    failed = {
        row["name"]: row["detail"] for row in shown["certificate"] if row["verdict"] == "fail"
    }
    assert FAILS[name] in failed
    assert f"{FAILS[name]}: {failed[FAILS[name]]}" in evaluation["detail"]


def test_an_agent_sees_the_failure_with_its_source_and_debugs_it(ended: Campaign) -> None:
    view = ended._view("writer", len(ended.slots), len(ended.slots))
    leaks = next(node for node in view.nodes if node.source == LEAKS)
    assert (leaks.failure, leaks.score) == ("gate", None)
    assert "causality: " in leaks.detail
    decision = Greedy(drafts=1).next(view, random.Random(0))
    assert decision.operator == "debug"
    assert decision.parents[0].failure == "gate"


def test_the_honest_one_is_measured_confirmed_and_ranked_beside_the_reference(
    ended: Campaign,
) -> None:
    id_ = candidate(ended, "honest")
    with reading(ended.folder) as db:
        results = [row for row in report.leaderboard(db) if row["sealed"]]
        shown = report.candidate(db, id_)
    assert {row["candidate"]: row["evaluations"] for row in results} == {1: 2, id_: 2}
    assert [e["state"] for e in shown["evaluations"]] == ["done"] * 3
    assert all(row["verdict"] in ("pass", "skip") for row in shown["certificate"])
    assert {e["facts"]["sandbox"] for e in shown["evaluations"]} <= {"bubblewrap", "landlock"}
    assert rows(ended.folder, "SELECT DISTINCT sandbox FROM environment")[0][0] != "none"


def test_the_same_code_in_other_words_is_a_duplicate_and_costs_nothing(ended: Campaign) -> None:
    assert candidate(ended, "renamed") == candidate(ended, "honest")
    slot, id_ = list(SOURCES).index("renamed") + 1, candidate(ended, "renamed")
    assert rows(ended.folder, f"SELECT status FROM proposal WHERE slot = {slot}") == [
        ("duplicate",)
    ]
    evaluated = f"SELECT attempt FROM evaluation WHERE candidate_id = {id_} AND NOT sealed"
    assert rows(ended.folder, evaluated) == [(1,)]


def test_what_the_gate_refused_and_what_was_proposed_twice_counts_against_its_agent(
    ended: Campaign,
) -> None:
    with reading(ended.folder) as db:
        [row] = report.submissions(db)
    assert (row["agent"], row["asked"], row["measured"]) == ("writer", len(ended.slots) - 1, 1)
    assert row["asked"] >= len(SOURCES)


def test_the_source_is_kept_as_it_was_written(ended: Campaign) -> None:
    with reading(ended.folder) as db:
        shown = inspection.rows(
            db, ended.folder, "candidate", candidate(ended, "honest"), None, None
        )
    assert shown[0]["source"] == HONEST


def test_its_cost_is_that_of_the_model_it_makes(ended: Campaign, tmp_path: Path) -> None:
    (tmp_path / "mixer.py").write_text(HONEST)
    mini = preset("mini")
    catalogue = {**CATALOGUE, "X": primitive(load(tmp_path / "mixer.py"), mini.length)}
    model = Model(written.pattern_of("X+M"), mini, 7, catalogue=catalogue)
    counted = sum(p.numel() for p in model.parameters()) - 2 * 7 * mini.width
    [found] = rows(
        ended.folder,
        f"SELECT params, flops_per_token FROM candidate WHERE id = {candidate(ended, 'honest')}",
    )
    assert found[0] == counted
    matrices = 3 * 2 * mini.width**2  # value, gate, projection
    assert found[1] - matrices == pattern_cost(Pattern.parse("M"), mini).flops_per_token


def test_the_cost_of_a_pattern_with_a_known_layer_as_X_is_the_patterns() -> None:
    mini = preset("mini")
    for text in ("X+M", "3(X+2M)", "2*(X+M)+A+X"):
        plain = pattern_cost(Pattern.parse(text.replace("X", "A")), mini)
        found = written.cost_in(written.pattern_of(text), mini, layer_cost(Layer("A"), mini))
        assert found == plain


def test_a_written_candidate_is_replayed_to_the_bit_and_so_are_all_decisions(
    ended: Campaign,
) -> None:
    with reading(ended.folder) as db:
        again = replay(db, ended.folder, candidate(ended, "honest"))
        reference = replay(db, ended.folder, 1)
    assert (again["match"], again["split"]) == (True, "test")
    assert reference["match"]
    assert replay_calls(ended.folder)["match"]


def test_a_finished_run_that_is_resumed_does_nothing_more(ended: Campaign) -> None:
    before = (
        rows(ended.folder, "SELECT * FROM evaluation"),
        rows(ended.folder, "SELECT * FROM gate_check"),
    )
    Campaign.open(ended.folder).run(LocalExecutor(1))
    after = (
        rows(ended.folder, "SELECT * FROM evaluation"),
        rows(ended.folder, "SELECT * FROM gate_check"),
    )
    assert before == after


def test_rungs_promote_without_a_second_gate_and_no_order_of_completion_matters(
    tmp_path: Path,
) -> None:
    chosen = recipe(
        rungs={"count": 2, "eta": 2},
        lag=2,
        references={"patterns": {}},
        confirm={"finalists": 0},
    )
    tables = []
    for name, pick in (("first", min), ("last", max)):
        folder = tmp_path / name
        run(folder, chosen, pick)
        scores = (
            "SELECT candidate_id, rung, e.seed, steps, value FROM evaluation e JOIN measurement m"
        )
        tables.append(
            [
                rows(folder, f"{scores} ON m.evaluation_id = e.id ORDER BY 1, 2, 3, metric"),
                rows(folder, "SELECT candidate_id, name, verdict FROM gate_check ORDER BY 1, id"),
                rows(folder, "SELECT slot, status, candidate_id, rung FROM proposal ORDER BY slot"),
            ]
        )
    assert tables[0] == tables[1]
    measured, checks, proposals = tables[0]
    assert "promoted" in {status for _, status, _, _ in proposals}
    assert len(checks) == len(CHECKS) * len({row[0] for row in checks})
    steps = {rung: {row[3] for row in measured if row[1] == rung} for rung in (0, 1)}
    assert steps == {0: {2}, 1: {3}}  # half of three, then all of them from the start


def test_another_salt_is_another_draw_of_the_held_out_data_and_is_kept(tmp_path: Path) -> None:
    """The salt that is drawn where the recipe has none."""
    made = [
        Campaign.create(recipe(module={"salt": None}), tmp_path / name, 1).recipe.module.salt
        for name in "ab"
    ]
    assert None not in made
    assert made[0] != made[1]
    assert Campaign.open(tmp_path / "a").recipe.module.salt == made[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"module": {"pattern": "A+M"}}, "has no X, the written mixer"),
        ({"module": {"pattern": "X+Q"}}, "Q"),
        ({"module": {"pattern": "X+[X|M]"}}, "stands in no fusion"),
        ({"evaluation": {"profile": "mad-grid", "tasks": []}}, "trains in several ways"),
        ({"agents": [{"name": "r", "proposer": "random"}]}, "agent r: proposer random writes no"),
        ({"references": {"patterns": {"x": "X+M"}}}, "X"),
    ],
)
def test_what_a_design_campaign_cannot_have_is_said_before_it_runs(changes: Row, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check(recipe(**changes))


def test_a_pattern_is_no_module_and_a_module_no_composition(tmp_path: Path) -> None:
    """What a proposer of the user's own may answer: it is recorded as its failure."""
    patterns = {"name": "writer", "proposer": "fixed", "options": {"patterns": ["A+M"]}}
    sources = {"name": "writer", "proposer": "fixed", "options": {"sources": [HONEST]}}
    plain = {"references": {"patterns": {}}, "budget": {"evaluations": 1}}
    run(tmp_path / "module", recipe(agents=[patterns], **plain))
    run(tmp_path / "composition", recipe(agents=[sources], kind="composition", **plain))
    query = "SELECT failure FROM proposal ORDER BY slot LIMIT 1"
    assert rows(tmp_path / "module", query) == [("invalid-source",)]
    assert rows(tmp_path / "composition", query) == [("invalid-pattern",)]


# ------------------------------------------------------------------------------- a driver is killed

WORDS = {"hypothesis": "h", "reasoning": "r", "expected_effect": "e"}
REPLIES = [
    {**WORDS, "source": HONEST.replace("nn.Module)", "nn.Module"), "edits": []},
    {**WORDS, "source": "", "edits": [{"search": "nn.Module", "replace": "nn.Module)"}]},
]
TOLD = (
    "SELECT slot, status, operator, reason, seed, seen, candidate_id, failure, detail FROM proposal",
    "SELECT id, content_hash, name, pattern, params, flops_per_token, source_sha FROM candidate",
    "SELECT candidate_id, name, verdict, detail FROM gate_check",
    "SELECT candidate_id, profile, seed, state, failure, detail, steps, tokens FROM evaluation",
    "SELECT evaluation_id, metric, split, value FROM measurement",
    "SELECT proposal_id, operator, request_sha, reply_sha, outcome FROM llm_call",
    "SELECT what, reason, numbers FROM decision",
)


def _dies(folder: Path, chosen: Recipe) -> None:
    """A campaign whose driver is killed (SIGKILL) while its second candidate is in the sandbox."""
    driver = multiprocessing.get_context("fork").Process(target=_drives, args=(folder, chosen))
    driver.start()
    until = time.monotonic() + 120
    while not _second_is_running(folder / database.FILE):
        assert driver.is_alive()
        assert time.monotonic() < until, "the driver never came to its second candidate"
        time.sleep(0.1)
    driver.kill()
    driver.join()
    assert driver.exitcode == -signal.SIGKILL


def _drives(folder: Path, chosen: Recipe) -> None:
    written._sandbox.cache_clear()  # the other process's
    run(folder, chosen)


def _second_is_running(ledger: Path) -> bool:
    query = "SELECT COUNT(*) FROM evaluation WHERE candidate_id = 2 AND state = 'running'"
    with (
        suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db,
    ):
        return bool(db.execute(query).fetchone()[0])
    return False  # it is being made


def test_a_run_whose_driver_was_killed_is_resumed_to_the_same_ledger(tmp_path: Path) -> None:
    """A model's script: a file with a bracket missing, then an edit that puts it there."""
    agent = {"name": "writer", "proposer": "scripted", "options": {"replies": REPLIES}}
    agents = [{**agent, "scaffold_options": {"drafts": 1}}]
    chosen = recipe(agents=agents, references={"patterns": {}}, confirm={"finalists": 0})
    _dies(tmp_path / "killed", chosen)
    assert rows(tmp_path / "killed", "SELECT COUNT(*) FROM measurement") == [(0,)]
    Campaign.open(tmp_path / "killed").run(LocalExecutor(1))
    run(tmp_path / "straight", chosen)
    for query in TOLD:
        found = rows(tmp_path / "straight", query)
        assert found
        assert rows(tmp_path / "killed", query) == found
    attempts = rows(tmp_path / "killed", "SELECT attempt FROM evaluation ORDER BY id")
    assert attempts == [(1,), (2,)]
