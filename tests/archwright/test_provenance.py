"""Which data are behind a score: kept with every evaluation, shown beside it, and not to be swapped.

Campaigns are real, in this process, at profiles cut to two steps.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledgers import reading, rows

from archwright import console, report
from archwright.campaign import Campaign
from archwright.executor import LocalExecutor
from archwright.recipe import Recipe, RecipeError, parse
from archwright.replay import replay
from evaluator import profiles
from evaluator.evaluate import drawn
from evaluator.tasks.text import read_corpus

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def short_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("text-mini", "lra-standins", "lra-listops-mini", "smoke"):
        short = profiles.PROFILES[name].shortened(steps=2, rows=32)
        monkeypatch.setitem(profiles.PROFILES, name, short)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    write(path, "to be or not to be, that is the question\n" * 400)
    return path


def write(path: Path, text: str) -> None:
    """Change a file, for those too who have read it: each process of a real run reads it once."""
    path.write_text(text)
    read_corpus.cache_clear()
    drawn.cache_clear()


def recipe(profile: str, *tasks: str) -> Recipe:
    return parse(
        {
            "name": "provenance",
            "space": {"primitives": ["A", "M"], "layers": [2, 2], "preset": "mini"},
            "evaluation": {"profile": profile, "tasks": tasks},
            "agents": [{"name": "random", "proposer": "random"}],
            "budget": {"evaluations": 1},
            "references": {"patterns": {"llama": "A+M"}, "seeds": 1},
            "confirm": {"finalists": 1, "seeds": 2},
        }
    )


def run(folder: Path, chosen: Recipe) -> Path:
    drive(Campaign.create(chosen, folder, workers=1))
    return folder


def drive(campaign: Campaign) -> None:
    try:
        campaign.run(LocalExecutor())
    finally:
        campaign.ledger.engine.dispose()


def test_the_digest_of_the_corpus_is_in_every_evaluation(tmp_path: Path, corpus: Path) -> None:
    folder = run(tmp_path / "run", recipe(f"text-mini:{corpus}"))
    digest = hashlib.sha256(corpus.read_bytes()).hexdigest()
    wanted = {"text/corpus": str(corpus), "text/sha256": digest}
    measured = rows(
        folder,
        "SELECT e.facts FROM measurement m JOIN evaluation e ON e.id = m.evaluation_id",
    )
    assert len(measured) > 10
    assert all(json.loads(row["facts"]) == wanted for row in measured)
    with reading(folder) as db:
        summary = report.summary(db, "run")
        shown = report.candidate(db, 1)["evaluations"]
    assert summary["facts"] == wanted
    assert [row["facts"] for row in shown] == [wanted] * len(shown) != []
    assert (summary["best"]["standin"], summary["best"]["shortcuts"]) == (False, {})


def test_a_run_goes_on_with_the_data_it_began_with_or_not_at_all(
    tmp_path: Path, corpus: Path
) -> None:
    folder, text = run(tmp_path / "run", recipe(f"text-mini:{corpus}")), corpus.read_text()
    before = rows(folder, "SELECT * FROM evaluation")
    then = hashlib.sha256(corpus.read_bytes()).hexdigest()
    write(corpus, text.replace("be", "bee"))
    now = hashlib.sha256(corpus.read_bytes()).hexdigest()
    sentence = f"text: sha256 was {then}, is now {now}"
    with pytest.raises(ValueError, match=sentence) as resumed:
        Campaign.open(folder)
    with reading(folder) as db, pytest.raises(ValueError, match=sentence) as replayed:
        replay(db, folder, None)
    assert str(resumed.value) == str(replayed.value)
    assert str(resumed.value).endswith("put the former ones back, or start a new run")
    corpus.unlink()
    read_corpus.cache_clear()
    with pytest.raises(ValueError, match="must be pydoc-topics, kjv, a file or a folder, not '/"):
        Campaign.open(folder)
    write(corpus, text)
    drive(Campaign.open(folder))
    assert rows(folder, "SELECT * FROM evaluation") == before
    with reading(folder) as db:
        assert replay(db, folder, None)["match"] is True


def test_a_profile_that_has_changed_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(tmp_path / "run", recipe("smoke"))
    smoke = profiles.PROFILES["smoke"]
    other = replace(smoke, training=replace(smoke.training, lr=0.1))
    monkeypatch.setitem(profiles.PROFILES, "smoke", other)
    with pytest.raises(
        ValueError, match=r"profile smoke has changed .* is now smoke#.*: check out"
    ):
        Campaign.open(folder)
    with reading(folder) as db, pytest.raises(ValueError, match="profile smoke has changed"):
        replay(db, folder, None)


def test_a_campaign_is_not_created_without_its_data(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="must be pydoc-topics, kjv, a file"):
        Campaign.create(recipe("text-mini:/no/such"), tmp_path / "run", 1)
    assert not (tmp_path / "run").exists()


def shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[list[Row], str]:
    """The leaderboard's rows, and what a person sees of them and of the outcome."""
    with reading(folder) as db:
        board, summary = report.leaderboard(db), report.summary(db, "run")
    console.leaderboard(board)
    console.outcome(summary)
    return board, capsys.readouterr().out


def test_scores_of_stand_ins_are_called_so_wherever_they_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path / "run", recipe("lra-standins", "lra-text"))
    board, text = shown(folder, capsys)
    assert board and all(row["standin"] is True for row in board)
    assert text.count("generated stand-ins: NOT the benchmark's data") == text.count("rank  ")
    assert "stand-ins: NOT the benchmark" in text
    assert "compare these scores with no published ones" in text
    facts = rows(folder, "SELECT DISTINCT facts FROM evaluation")
    assert [json.loads(row["facts"]).keys() for row in facts] == [{"lra-text/standin"}]
    assert {row["standin"] for row in rows(folder, "SELECT standin FROM leaderboard")} == {1}


def test_the_shortcut_ladder_stands_beside_every_score_of_listops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path / "run", recipe("lra-listops-mini"))
    board, text = shown(folder, capsys)
    ladder = {f"lra-listops/shortcut_{rule}" for rule in ("majority", "root", "root_digits")}
    for row in board:
        assert row["shortcuts"].keys() == ladder and row["standin"] is False
        rules = ", ".join(f"{k.split('shortcut_')[1]} {v:.3f}" for k, v in row["shortcuts"].items())
        assert rules in text
    per_score = rows(
        folder,
        "SELECT SUM(metric = 'score') AS scores, SUM(metric LIKE '%/shortcut_%') AS rules, "
        "evaluation_id FROM measurement GROUP BY evaluation_id",
    )
    assert {(row["scores"], row["rules"]) for row in per_score} == {(1, 3)}


def test_where_nothing_stands_beside_a_score_nothing_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board, text = shown(run(tmp_path / "run", recipe("smoke")), capsys)
    assert not any(row["standin"] or row["shortcuts"] for row in board)
    assert "stand-in" not in text and "blind" not in text
