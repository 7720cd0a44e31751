"""Campaigns of training scripts: what each comes to, who takes the title, and what the ledger tells of it.

Training and scoring are real, in the sandbox. The scripts count pairs of bytes and end at once, so that a
seed gives the same score whatever the machine does; their noise is drawn from the seed. The text is short.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ledgers import merged, reading
from test_written import rows, run
from typed import command

from archwright import inspection, report, scripts
from archwright.campaign import Campaign
from archwright.console import leaderboard, outcome
from archwright.estimate import estimate
from archwright.executor import LocalExecutor
from archwright.recipe import Recipe, RecipeError, load, parse
from archwright.replay import replay
from archwright.replay_calls import replay_calls
from archwright.setup import check, goal_of
from evaluator.tasks.text import read_corpus

Row = dict[str, Any]
BASELINE = """
import torch
from torch import nn

SMOOTHING = 4.0
NOISE = 0.02

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.pairs = nn.Embedding(256, 256)
    def forward(self, x):
        return self.pairs(x)

def build(length):
    return Net()

def train(model, text, seconds):
    text = text.long()
    counts = torch.bincount(256 * text[:-1] + text[1:], minlength=65536).view(256, 256)
    noise = NOISE * torch.rand(1) * torch.randn(256, 256)
    model.pairs.weight.data = (counts + SMOOTHING).log() + noise
"""
BETTER = BASELINE.replace("SMOOTHING = 4.0", "SMOOTHING = 0.1")  # saves a bit a byte
NOISY = BASELINE.replace("NOISE = 0.02", "NOISE = 0.02\nUNUSED = 1")  # the same, and lucky or not
LEAKS = BASELINE.replace("self.pairs(x)\n", "self.pairs(x.roll(-1, 1))\n")
CRASHES = BASELINE.replace("    text = text.long()\n", "    raise MemoryError('full')\n")
SOURCES = {
    "noisy": NOISY,
    "leaks": LEAKS,
    "better": BETTER,
    "crashes": CRASHES,
    "renamed": BETTER.replace("counts", "found"),
}
BASE: Row = {
    "name": "scripts",
    "kind": "script",
    "script": {"seconds": 5, "repeats": 2, "block": 3, "salt": 5},
    "evaluation": {},
    "agents": [{"name": "writer", "proposer": "knobs"}],
    "budget": {"evaluations": 4},
    "references": {"seeds": 3},
    "confirm": {"finalists": 1, "seeds": 2},
    "lag": 1,
}


def recipe(folder: Path, **changes: Any) -> Recipe:
    """BASE with some fields changed; sections are merged."""
    (folder / "mine.py").write_text(BASELINE)
    here = {
        "script": {"baseline": str(folder / "mine.py")},
        "evaluation": {"profile": f"text-mini:{corpus(folder)}"},
    }
    return parse(merged(merged(BASE, here), changes))


def corpus(folder: Path) -> Path:
    """A text of 300 windows."""
    (folder / "text.txt").write_bytes(bytes(read_corpus("pydoc-topics").data[:20_000].tolist()))
    return folder / "text.txt"


def table(folder: Path, what: str, identity: int | None = None) -> list[Row]:
    with reading(folder) as db:
        return inspection.rows(db, folder, what, identity, None, None)


def reply(name: str, source: str) -> Row:
    said = {"hypothesis": name, "reasoning": "", "expected_effect": ""}
    if name == "better":
        return {**said, "source": "", "edits": [{"search": "= 4.0", "replace": "= 0.1"}]}
    return {**said, "source": source, "edits": []}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign of a model's double, which replies with the sources, one after the other; with the better
    one as an edit of what it was shown."""
    folder = tmp_path_factory.mktemp("scripts")
    replies = [reply(name, source) for name, source in SOURCES.items()]
    agent = {"name": "writer", "proposer": "scripted", "scaffold": "incumbent"}
    agent["options"] = {"replies": replies}  # type: ignore[assignment]
    return run(folder / "run", recipe(folder, agents=[agent], budget={"evaluations": 5}))


def candidate(ended: Campaign, name: str) -> int:
    rank = list(SOURCES).index(name)
    slots = [s for s in ended.slots if s.agent == "writer" and not s.promotion]
    assert slots[rank].candidate is not None
    return slots[rank].candidate


def test_only_the_one_with_a_real_gain_takes_the_title(ended: Campaign) -> None:
    found = table(ended.folder, "incumbents")
    assert [row["candidate"] for row in found if row["verdict"] == "kept"] == [
        candidate(ended, "better")
    ]
    kept = next(row for row in found if row["verdict"] == "kept")
    assert (kept["arm"], kept["against"], kept["runs"]) == ("search", 1, 2)
    assert 0.9 < kept["gain"] < 1.3  # bits per byte
    assert kept["low"] > 0
    assert kept["probability"] >= 0.95
    assert {row["candidate"] for row in found} <= {candidate(ended, n) for n in ("noisy", "better")}
    decided = [row for row in table(ended.folder, "decisions") if row["what"] == "incumbent"]
    assert [row["numbers"]["candidate"] for row in decided] == [row["candidate"] for row in found]
    assert all(row["reason"] for row in decided)


def test_its_runs_are_on_seeds_of_their_own_and_so_are_its_holders(ended: Campaign) -> None:
    query = "SELECT candidate_id, seed FROM evaluation WHERE NOT sealed"
    found = rows(ended.folder, query)
    assert len(set(found)) == len(found)
    better = {seed for id_, seed in found if id_ == candidate(ended, "better")}
    baseline = {seed for id_, seed in found if id_ == 1}
    assert len(better) == 3  # the first run and two more
    assert len(better & baseline) == 1  # the first seed is everybody's, the others nobody else's


def test_failures_are_typed_and_have_no_score(ended: Campaign) -> None:
    query = "SELECT candidate_id, failure, detail FROM evaluation WHERE state = 'failed'"
    found = {id_: (failure, detail) for id_, failure, detail in rows(ended.folder, query)}
    assert found.keys() == {candidate(ended, "leaks"), candidate(ended, "crashes")}
    assert found[candidate(ended, "leaks")][0] == "leak"
    assert found[candidate(ended, "crashes")][0] in ("crash", "oom")
    ranked = {row["candidate"] for row in table(ended.folder, "leaderboard")}
    assert ranked.isdisjoint(found)


def test_the_baseline_runs_again_in_each_block_and_its_drift_is_told(ended: Campaign) -> None:
    found = table(ended.folder, "baseline")
    assert found[0]["gain"] is None
    slots = {row["slot"]: row for row in table(ended.folder, "candidates")}
    asked = [
        row for row in slots.values() if row["agent"] == "writer" and row["status"] != "promoted"
    ]
    again = [row for row in found if slots[row["slot"]]["operator"] == "baseline"]
    assert len(again) == len(asked) // 3
    assert all(abs(row["gain"]) < 0.05 for row in found[1:])
    assert all(row["low"] <= row["gain"] <= row["high"] for row in found[1:])


def test_results_are_confirmed_beside_the_baseline_and_printed_in_bits_per_byte(
    ended: Campaign, capsys: pytest.CaptureFixture[str]
) -> None:
    with reading(ended.folder) as db:
        summary, board = report.summary(db, "run"), report.leaderboard(db)
    results = {row["candidate"]: row for row in board if row["sealed"]}
    assert results.keys() == {1, candidate(ended, "better")}
    assert summary["best"]["candidate"] == candidate(ended, "better")
    for row in results.values():
        assert row["bits_per_byte"] == pytest.approx(8 * (1 - row["score"]))
        assert (row["params"], row["flops_ratio"]) == (65536, None)
    leaderboard(board)
    outcome(summary)
    said = " ".join(capsys.readouterr().out.split())
    assert "bits a byte saved over candidate 1, better with probability" in said
    assert "baseline again at slot" in said
    assert "bits a byte since the start [" in said


def test_the_diff_of_every_attempt_is_kept(ended: Campaign) -> None:
    [kept] = table(ended.folder, "diff", candidate(ended, "better"))
    [lost] = table(ended.folder, "diff", candidate(ended, "crashes"))
    assert (kept["verdict"], lost["verdict"], kept["against"]) == ("kept", "discarded", 1)
    assert "-SMOOTHING = 4.0\n+SMOOTHING = 0.1\n" in kept["diff"]
    assert "+    raise MemoryError('full')" in lost["diff"]
    assert [line for line in kept["diff"].splitlines() if line[0] in "+-"][2:] == [
        "-SMOOTHING = 4.0",
        "+SMOOTHING = 0.1",
    ]


def test_the_same_script_in_other_words_is_a_duplicate(ended: Campaign) -> None:
    assert candidate(ended, "renamed") == candidate(ended, "better")


def test_agents_start_from_whoever_holds_the_title(ended: Campaign) -> None:
    slots = len(ended.slots)
    view = ended._view("writer", slots, slots)
    assert view.incumbent is not None
    assert view.incumbent.source == BETTER
    assert len(view.incumbent.runs) == 2
    assert ended._view("writer", 1, 1).incumbent.source == BASELINE  # type: ignore[union-attr]


def test_decisions_are_replayed_and_a_script_is_within_the_noise(ended: Campaign) -> None:
    assert replay_calls(ended.folder)["match"]
    with reading(ended.folder) as db:
        again = replay(db, ended.folder, candidate(ended, "better"))
    assert again["match"]
    assert again["noise"] > 0


def content(folder: Path) -> list[Any]:
    """All that a campaign decided and measured, whenever it did."""
    queries = (
        "SELECT slot, status, operator, candidate_id, seen FROM proposal ORDER BY slot",
        "SELECT candidate_id, e.seed, sealed, metric, value FROM evaluation e JOIN measurement m"
        " ON m.evaluation_id = e.id ORDER BY 1, 2, 3, 4",
        "SELECT what, reason FROM decision ORDER BY id",
    )
    return [rows(folder, query) for query in queries]


class Killed(BaseException):
    """The driver's death, at any place."""


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, list[Any]]:
    """A search of knobs and its control, two slots at a time."""
    folder = tmp_path_factory.mktemp("straight")
    control = {"name": "random", "proposer": "knobs", "scaffold": "one-shot"}
    chosen = recipe(folder, controls=[control], lag=2, budget={"evaluations": 2}, seed=2)
    return chosen, content(run(folder / "run", chosen).folder)


def test_no_order_of_completion_and_no_death_of_the_driver_changes_a_campaign(
    tmp_path: Path, straight: tuple[Recipe, list[Any]]
) -> None:
    chosen, expected = straight
    assert {status for _, status, *_ in expected[0]} >= {"accepted", "promoted"}
    left = [4, 5, 200]  # pieces of work until each death

    def last(handles: Sequence[int]) -> int:
        left[0] -= 1
        if left[0] < 0:
            left.pop(0)
            raise Killed
        return handles[-1]

    campaign = Campaign.create(chosen, tmp_path / "run", workers=2)
    while len(left) > 1:
        with pytest.raises(Killed):
            campaign.run(LocalExecutor(2, last))
        campaign = Campaign.open(tmp_path / "run")
    campaign.run(LocalExecutor(2, last))
    assert content(tmp_path / "run") == expected


def test_the_run_keeps_its_baseline_and_its_salt(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, script={"salt": None})
    made = [Campaign.create(chosen, tmp_path / name, 1).recipe.script for name in "ab"]
    (tmp_path / "mine.py").unlink()
    assert Campaign.open(tmp_path / "a").recipe.script == made[0]
    assert made[0].baseline == BASELINE
    assert made[0].salt != made[1].salt


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"script": {"baseline": "nowhere.py"}}, "script.baseline nowhere.py: it cannot be read"),
        ({"evaluation": {"profile": "mad-mini"}}, "a script models the bytes of a text"),
        ({"evaluation": {"profile": f"text:{os.__file__}"}}, "a script could read it where it is"),
        ({"rungs": {"count": 2}}, "there are no rungs"),
        ({"references": {"patterns": {"x": "A+M"}}}, "compared with script.baseline"),
        ({"references": {"seeds": 1}}, "shows no noise"),
        ({"agents": [{"name": "r", "proposer": "random"}]}, "random writes no scripts"),
        ({"script": {"second": 3}}, "nearest known keys are 'seconds'"),
    ],
)
def test_what_a_campaign_of_scripts_cannot_have_is_said_before_it_runs(
    tmp_path: Path, changes: Row, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        check(recipe(tmp_path, **changes))


def test_a_model_is_told_the_contract_the_limits_and_the_baseline() -> None:
    chosen = load("autoresearch")
    writing, goal = scripts.writing(chosen), goal_of(chosen)
    for words in ("def build(length: int)", "def train(model", "length is 256", "2,000,000"):
        assert words in writing.contract
    assert writing.baseline == scripts.BASELINE.read_text()
    assert "10 seconds" in goal
    assert estimate(chosen)["evaluations"] == 3 + 10 * 7 + 2 + 3 * 3


TINY = (
    "script.baseline=mine.py",
    "script.seconds=1",
    "script.repeats=2",
    "script.block=1",
    "evaluation.profile=text-mini:text.txt",
    "references.seeds=2",
    "confirm.seeds=2",
    "controls=[]",
    "workers=1",
)


def test_as_a_user_types_it(tmp_path: Path) -> None:
    """Real processes and Ray."""
    (tmp_path / "mine.py").write_text(BASELINE)
    corpus(tmp_path)
    changes = [part for change in TINY for part in ("--set", change)]
    arguments = ("run", "autoresearch", "--evaluations", "1", "--out", "run", *changes)
    summary = command(tmp_path, *arguments)
    assert (summary["status"], summary["best"]["sealed"]) == ("done", True)
    assert len(summary["drift"]) >= 2
    assert table(tmp_path / "run", "incumbents") == summary["challenges"]
    [shown] = command(tmp_path, "inspect", "run", "diff", "2")["rows"]
    assert shown["diff"].startswith("--- candidate 1\n+++ candidate 2\n")
