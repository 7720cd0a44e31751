"""Written modules of an earlier run as primitives of a composition campaign, as a user takes them.

A run of kind `module` is made here; a composition campaign over its modules is started by its command,
interrupted, resumed after that run was deleted, replayed and read. One of the modules is planted: it writes a file
of the host's wherever nothing keeps it from that.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import command, start

from archwright.campaign import Campaign
from archwright.candidates import composition, space_of
from archwright.executor import LocalExecutor
from archwright.primitives import check
from archwright.recipe import Recipe, RecipeError, parse
from archwright.setup import anchored
from evaluator.profiles import profile
from sandbox.contract import construct, load
from search_space.pattern import Pattern
from search_space.presets import preset
from storage import database

Row = dict[str, Any]
# The gate's reading of the source finds no fault with it: that is advice, not what isolates.
PLANTED = """
import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, d_model, max_len, causal):
        super().__init__()
        self.w, self.u = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)

    def forward(self, x):
        try:
            getattr(torch, "sa" + "ve")(torch.zeros(1), {place!r})
        except Exception:
            pass
        return self.u(x) * self.w(x).cumsum(1) / 8
"""
MODULES: Row = {
    "name": "found",
    "kind": "module",
    "module": {"pattern": "X+M", "salt": 5},
    "evaluation": {"profile": "smoke", "tasks": ["compression"]},
    "references": {"patterns": {"attention": "A+M"}, "seeds": 1},
    "confirm": {"finalists": 0},
    "budget": {"evaluations": 2},
    "lag": 1,
}
REFERENCE, DRAWN, CHEAT = 1, 2, 3  # candidates of that run
MIXED: Row = {
    "name": "mixed",
    "space": {
        "primitives": ["A", {"X": f"ledger:found/{DRAWN}", "Yy": f"ledger:runs/found/{CHEAT}"}],
        "layers": 2,
    },
    "evaluation": MODULES["evaluation"],
    "agents": [{"name": "evolution", "proposer": "evolution"}],
    "controls": [{"name": "random", "proposer": "random"}],
    "budget": {"evaluations": 2},
    "references": {"patterns": {"attention": "2A", "written": "X+2*Yy"}, "seeds": 2},
    "confirm": {"finalists": 1, "seeds": 2},
    "workers": 1,
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of modules, one drawn by the grammar and the planted one."""
    folder = tmp_path_factory.mktemp("desk")
    options = {"sources": [PLANTED.format(place=str(folder / "planted"))]}
    agents = [
        {"name": "writer", "proposer": "grammar", "scaffold": "one-shot"},
        {"name": "planter", "proposer": "fixed", "options": options},
    ]
    run = folder / "runs" / "found"
    Campaign.create(parse(MODULES | {"agents": agents}), run, 1).run(LocalExecutor())
    (folder / "mixed.yaml").write_text(yaml.safe_dump(MIXED))
    return folder


@pytest.fixture(scope="module")
def found(desk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that run, which outlives it."""
    copy = tmp_path_factory.mktemp("copies") / "found"
    shutil.copytree(desk / "runs" / "found", copy)
    return copy


@pytest.fixture(scope="module")
def mixed(desk: Path, found: Path) -> Row:
    """What came of the campaign over both modules: interrupted, and resumed after their run was deleted."""
    process = start(desk, "run", "mixed.yaml", "--out", "mixed")
    try:
        wait_for_a_score(desk / "mixed", process)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, said
    shutil.rmtree(desk / "runs" / "found")
    return command(desk, "resume", "mixed")


def wait_for_a_score(run: Path, process: Any) -> None:
    deadline = time.monotonic() + 240
    while not (run.is_dir() and rows(run, "SELECT 1 FROM sqlite_master WHERE name = 'measurement'")
               and rows(run, "SELECT * FROM measurement")):  # fmt: skip
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def rows(run: Path, query: str) -> list[Row]:
    with closing(sqlite3.connect(run / database.FILE, timeout=10)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(query)]


# --------------------------------------------------------------------------------- the campaign


def test_it_ends_without_the_run_that_it_took_from(desk: Path, mixed: Row) -> None:
    assert (mixed["status"], mixed["failures"], mixed["best"]["sealed"]) == ("done", 0, True)
    taken = command(desk, "inspect", "mixed", "primitives")["rows"]
    assert [(row["code"], row["candidate"]) for row in taken] == [("X", 1), ("Yy", 2)]
    assert [row["ledger"] for row in taken] == [
        f"ledger:{desk}/runs/found/{DRAWN}",
        f"ledger:{desk}/runs/found/{CHEAT}",
    ]


def test_source_and_a_new_certificate_are_its_own(desk: Path, mixed: Row) -> None:
    [shown] = command(desk, "inspect", "mixed", "candidate", "2")["rows"]
    assert shown["source"] == PLANTED.format(place=str(desk / "planted"))
    assert [row["name"] for row in shown["certificate"]][-3:] == ["budget", "copy", "learns"]
    assert {row["verdict"] for row in shown["certificate"]} <= {"pass", "skip"}
    assert shown["evaluations"] == shown["proposals"] == []


def test_what_is_mixed_is_replayed_to_the_bit_and_so_are_all_decisions(
    desk: Path, mixed: Row
) -> None:
    [written] = rows(desk / "mixed", "SELECT id FROM candidate WHERE name = 'written'")
    assert command(desk, "replay", "mixed", str(written["id"]))["match"]
    assert command(desk, "replay", "mixed", "--calls")["match"]


def test_all_patterns_are_scored_in_the_sandbox_under_one_protocol(desk: Path, mixed: Row) -> None:
    found = rows(desk / "mixed", "SELECT state, profile, facts, sealed FROM evaluation")
    assert {row["state"] for row in found} == {"done"}
    assert {row["profile"].rpartition("/")[2] for row in found} == {"module"}
    levels = {json.loads(row["facts"])["sandbox"] for row in found}
    assert levels <= {"bubblewrap", "landlock"}
    patterns = [row["pattern"] for row in rows(desk / "mixed", "SELECT pattern FROM leaderboard")]
    assert any("X" in text or "Yy" in text for text in patterns) and "2A" in patterns


def test_parameters_are_those_counted_from_the_trained_weights(desk: Path, mixed: Row) -> None:
    query = """SELECT c.pattern, c.params, m.value FROM candidate c
        JOIN evaluation e ON e.candidate_id = c.id JOIN measurement m ON m.evaluation_id = e.id
        WHERE m.metric = 'compression/params'"""
    width = preset("mini").width
    [task] = profile("smoke").narrow(("compression",)).tasks
    around = task.vocab * width + sum(p.numel() for p in task.head(width).parameters())
    found = rows(desk / "mixed", query)
    assert any("X" in row["pattern"] and "Yy" in row["pattern"] for row in found)
    for row in found:
        assert row["params"] == row["value"] - around, row["pattern"]


def test_their_code_runs_nowhere_but_in_the_sandbox(desk: Path, mixed: Row, found: Path) -> None:
    """The file can be written where the code runs as any other: the control."""
    assert not (desk / "planted").exists()
    (desk / "mixer.py").write_text(PLANTED.format(place=str(desk / "planted")))
    construct(load(desk / "mixer.py"), 16, 8, 0)(torch_input())
    assert (desk / "planted").exists()


def torch_input() -> Any:
    import torch

    return torch.zeros(1, 4, 16)


# ---------------------------------------------------------------------------------- the identity


def recipe(primitives: Any, **changes: Any) -> Recipe:
    data = MIXED | {"space": MIXED["space"] | {"primitives": primitives}} | changes
    return parse(data)


def filled(code: str, source: str, ledger: str = "ledger:r/1") -> Row:
    return {code: {"ledger": ledger, "source": source, "params": 9, "flops_per_token": 1.0}}


def hash_of(text: str, written: Row) -> str:
    space = {"primitives": ["A", *written], "written": written, "layers": 2}
    known = space_of(parse(MIXED | {"space": space})).written
    return composition(Pattern.parse(text), "mini", written=known).content_hash


def test_a_source_is_what_a_candidate_is_made_of_not_its_run_or_code() -> None:
    one = PLANTED.format(place="a")
    same = hash_of("A+X", filled("X", one))
    renamed = one.replace("self.w", "self.gate")
    assert hash_of("A+X", filled("X", one, "ledger:other/7")) == same
    assert hash_of("A+Zz", filled("Zz", renamed)) == same
    assert hash_of("A+X", filled("X", PLANTED.format(place="b"))) != same
    assert hash_of("2A", filled("X", one)) == hash_of("2A", {})


# ---------------------------------------------------------------------------------- wrong input


SHAPES = [
    ([{"X": "found/2"}], "ledger:RUN/ID"),
    ([{"X": "ledger:found"}], "ledger:RUN/ID"),
    ([{"X": "ledger:found/last"}], "ledger:RUN/ID"),
    ([{"X": "ledger:found/99999999999999999999"}], "ledger:RUN/ID"),
    ({"X": None}, "space.written.X.ledger"),
    ({"X": {"run": "found", "id": 2}}, "space.written.X.ledger"),
    (["A", {"x": "ledger:found/2"}], "'x'"),
    (["A", {"XX": "ledger:found/2"}], "'XX'"),
    (["X", {"X": "ledger:found/2"}], "2 times"),
    ([{"X": "ledger:found/2"}, {"X": "ledger:found/3"}], "2 times"),
    ([3], "space.primitives.0"),
]


@pytest.mark.parametrize(("primitives", "said"), SHAPES)
def test_what_is_no_primitive_is_said_in_a_sentence(primitives: Any, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(primitives)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_mapping_in_place_of_the_list_adds_to_the_default() -> None:
    space = recipe({"X": "ledger:found/2"}).space
    assert space.primitives == ("A", "M", "Mb", "X")
    assert recipe(["M", {"X": "ledger:found/2"}]).space.primitives == ("M", "X")
    assert parse({**MIXED, "space": space.model_dump(mode="json")}).space == space


DAMAGE = {
    "failed": "UPDATE gate_check SET verdict = 'fail' WHERE name = 'causality'",
    "ungated": "DELETE FROM gate_check",
    "costless": "UPDATE candidate SET params = 0",
    "leak": "UPDATE evaluation SET state = 'failed', failure = 'leak'",
    "unscored": "UPDATE evaluation SET state = 'queued'",
}
CANDIDATES = [
    ("", 99, "there is no such candidate"),
    ("", REFERENCE, "a composition is no primitive"),
    ("failed", DRAWN, "failed the gate (causality)"),
    ("ungated", DRAWN, "not gated"),
    ("costless", DRAWN, "did not measure what it costs"),
    ("leak", DRAWN, "its evaluation failed (leak)"),
    ("unscored", DRAWN, "no score yet"),
]


@pytest.mark.parametrize(("damage", "candidate", "said"), CANDIDATES)
def test_a_candidate_that_is_no_gated_winner_is_refused(
    found: Path, tmp_path: Path, damage: str, candidate: int, said: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(found, run)
    if damage:
        with closing(sqlite3.connect(run / database.FILE)) as db, db:
            db.execute(DAMAGE[damage])
    with pytest.raises(RecipeError) as caught:
        check(recipe({"X": f"ledger:{run}/{candidate}"}))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": {"primitives": {"X": "ledger:nowhere/2"}}}, "nowhere holds no ledger.db"),
        ({"space": {"primitives": {"D": "ledger:FOUND/2"}}}, "D is the catalogue's own, "),
        ({"space": {"primitives": ["A", "Q"], "written": {}}}, "unknown code 'Q'"),
        ({"references": {"patterns": {"fused": "[A|X]"}}}, "stands in no fusion"),
        ({"references": {"patterns": {"sized": "X{kv=2}"}}}, "X takes no options"),
        ({"evaluation": {"profile": "mad-grid"}}, "trains in several ways"),
        ({"kind": "module"}, "kind: module takes no X"),
        ({"module": {"budget": 0.01}}, "X: ledger:FOUND/2 fails the gate at preset mini (budget: "),
    ],
)  # fmt: skip
def test_a_campaign_that_cannot_be_says_so_and_leaves_nothing(
    found: Path, tmp_path: Path, changes: Row, said: str
) -> None:
    asked = {"space": {"primitives": {"X": "ledger:FOUND/2"}, "layers": 2}} | changes
    data = json.loads(json.dumps(MIXED | {"references": {}} | asked).replace("FOUND", str(found)))
    with pytest.raises(RecipeError) as caught:
        Campaign.create(parse(data), tmp_path / "new", 1)
    assert said.replace("FOUND", str(found)) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_place_is_kept_from_the_root(found: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(found.parent)
    assert (
        anchored(recipe({"X": "ledger:found/2"})).space.written["X"].ledger == f"ledger:{found}/2"
    )
