"""Written modules of an earlier run as primitives of a composition campaign, by the commands of a user.

A run of kind `module` is made; a composition campaign over its modules is started, interrupted, resumed
after that run was deleted, replayed and read. One module is drawn by the grammar, one is planted: it writes
a file of the host's wherever nothing keeps it from that. Work runs in this process in place of Ray's,
whose imports of torch would cost more than all the rest; what a Ray worker or actor gets is pickled anyway.
"""

from __future__ import annotations

import json
import pickle
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import ledgers
import pytest
import torch
import yaml
from typer.testing import CliRunner

from archwright import executor
from archwright.campaign import Campaign
from archwright.candidates import composition, space_of
from archwright.cli import app
from archwright.executor import LocalExecutor
from archwright.primitives import check
from archwright.recipe import Recipe, RecipeError, parse
from archwright.setup import anchored
from evaluator.profiles import profile
from sandbox.contract import construct, load
from search_space.pattern import Pattern
from search_space.presets import preset
from storage import blobs, database
from storage.ledger import BLOBS

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
    "seed": 3,  # the grammar draws a statistic, which is gated in half the time of a recurrence
    "kind": "module",
    "module": {"pattern": "X+M", "salt": 5},
    "evaluation": {"profile": "smoke", "tasks": ["compression"]},
    "confirm": {"finalists": 0},
    "budget": {"evaluations": 2},
}
DRAWN, PLANT = 1, 2  # candidates of that run
MIXED: Row = {
    "name": "mixed",
    "space": {
        "primitives": ["A", {"X": f"ledger:found/{DRAWN}", "Yy": f"ledger:runs/found/{PLANT}"}],
        "layers": 2,
    },
    "evaluation": MODULES["evaluation"],
    "agents": [{"name": "evolution", "proposer": "evolution"}],
    "controls": [{"name": "random", "proposer": "random"}],
    "budget": {"evaluations": 1},
    "references": {"patterns": {"written": "A+X+2*Yy"}, "seeds": 1},
    "confirm": {"finalists": 0, "seeds": 2},
    "workers": 1,
}


class Here(LocalExecutor):
    """Runs work in this process, after it went through what Ray would send it by; ``left`` pieces of it are
    done before the user types Ctrl-C."""

    left = 10**6

    def __init__(self, workers: int, address: str | None = None) -> None:
        super().__init__(workers, self._next)

    def _next(self, handles: Sequence[int]) -> int:
        Here.left -= 1
        if Here.left < 0:
            raise KeyboardInterrupt
        return handles[0]

    def add_agent(self, spec: Any) -> None:
        super().add_agent(pickle.loads(pickle.dumps(spec)))

    def submit(self, task: Callable[..., Any], *args: Any) -> int:
        return super().submit(task, *pickle.loads(pickle.dumps(args)))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, with a finished run of modules in it and the recipe that takes them."""
    folder = tmp_path_factory.mktemp("desk")
    options = {"sources": [PLANTED.format(place=str(folder / "planted"))]}
    agents = [
        {"name": "writer", "proposer": "grammar", "scaffold": "one-shot"},
        {"name": "planter", "proposer": "fixed", "options": options},
    ]
    for data in (MODULES | {"agents": agents}, MIXED):
        (folder / f"{data['name']}.yaml").write_text(yaml.safe_dump(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(executor, "RayExecutor", Here)
        command("run", "found.yaml", "--out", "runs/found")
        yield folder


def command(*arguments: str, code: int = 0) -> Row:
    """The JSON object in the last line of a command's output."""
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def found(desk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that run, which outlives it."""
    copy = tmp_path_factory.mktemp("copies") / "found"
    shutil.copytree(desk / "runs" / "found", copy)
    return copy


@pytest.fixture(scope="module")
def mixed(desk: Path, found: Path) -> Row:
    """What came of the campaign over both: interrupted, and resumed after their run was deleted."""
    Here.left = 3
    said = command("run", "mixed.yaml", "--out", "mixed", code=130)
    assert "archwright resume mixed" in said["error"]
    Here.left = 10**6
    shutil.rmtree(desk / "runs" / "found")
    return command("resume", "mixed")


def rows(query: str) -> list[Row]:
    return ledgers.rows(Path("mixed"), query)


# --------------------------------------------------------------------------------- the campaign


def test_it_ends_without_the_run_that_it_took_from(desk: Path, mixed: Row) -> None:
    assert (mixed["status"], mixed["failures"], mixed["best"]["sealed"]) == ("done", 0, True)
    taken = command("inspect", "mixed", "primitives")["rows"]
    assert [(row["code"], row["candidate"]) for row in taken] == [("X", 1), ("Yy", 2)]
    places = [f"ledger:{desk}/runs/found/{id_}" for id_ in (DRAWN, PLANT)]
    assert [row["ledger"] for row in taken] == places


def test_source_and_a_new_certificate_are_its_own(desk: Path, mixed: Row) -> None:
    [shown] = command("inspect", "mixed", "candidate", "2")["rows"]
    assert shown["source"] == PLANTED.format(place=str(desk / "planted"))
    assert [row["name"] for row in shown["certificate"]][-3:] == ["budget", "copy", "learns"]
    assert {row["verdict"] for row in shown["certificate"]} <= {"pass", "skip"}
    assert shown["evaluations"] == shown["proposals"] == []
    [shown] = command("inspect", "mixed", "candidate", "3")["rows"]
    assert (shown["name"], shown["pattern"]) == ("written", "A+X+2*Yy")
    assert [row["candidate"] for row in shown["primitives"]] == [1, 2]


def test_what_is_mixed_is_replayed_to_the_bit_and_so_are_all_decisions(mixed: Row) -> None:
    assert command("replay", "mixed", "3")["match"]
    assert command("replay", "mixed", "--calls")["match"]


def test_all_patterns_are_scored_in_the_sandbox_under_one_protocol(mixed: Row) -> None:
    found = rows("SELECT state, profile, facts, sealed FROM evaluation")
    assert {row["state"] for row in found} == {"done"}
    assert {row["profile"].rpartition("/")[2] for row in found} == {"module"}
    assert {json.loads(row["facts"])["sandbox"] for row in found} <= {"bubblewrap", "landlock"}
    agents = {row["agent"] for row in command("inspect", "mixed")["rows"]}
    assert agents == {"references", "evolution", "random"}


def test_parameters_are_those_counted_from_the_trained_weights(mixed: Row) -> None:
    query = """SELECT c.pattern, c.params, m.value FROM candidate c
        JOIN evaluation e ON e.candidate_id = c.id JOIN measurement m ON m.evaluation_id = e.id
        WHERE m.metric = 'compression/params'"""
    width = preset("mini").width
    [task] = profile("smoke").narrow(("compression",)).tasks
    around = task.vocab * width + sum(p.numel() for p in task.head(width).parameters())
    found = rows(query)
    assert {"A+X+2*Yy"} < {row["pattern"] for row in found}
    for row in found:
        assert row["params"] == row["value"] - around, row["pattern"]


def test_written_code_runs_nowhere_but_in_the_sandbox(desk: Path, mixed: Row) -> None:
    """It was gated, trained, scored and replayed in this process's sandboxes; the control is a plain call."""
    assert not (desk / "planted").exists()
    (desk / "mixer.py").write_text(PLANTED.format(place=str(desk / "planted")))
    construct(load(desk / "mixer.py"), 16, 8, 0)(torch.zeros(1, 4, 16))
    assert (desk / "planted").exists()


def test_a_pattern_alone_does_not_know_the_code(desk: Path) -> None:
    assert "archwright inspect RUN primitives" in command("pattern", "A+X", code=2)["error"]


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
    "composed": "UPDATE candidate SET kind = 'composition'",
    "failed": "UPDATE gate_check SET verdict = 'fail' WHERE name = 'causality'",
    "ungated": "DELETE FROM gate_check",
    "costless": "UPDATE candidate SET params = 0",
    "leak": "UPDATE evaluation SET state = 'failed', failure = 'leak'",
    "unscored": "UPDATE evaluation SET state = 'queued'",
}
CANDIDATES = [
    ("", 99, "there is no such candidate"),
    ("composed", DRAWN, "a composition is no primitive"),
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
        ({"space": {"primitives": {"D": "ledger:FOUND/1"}}}, "D is the catalogue's own, "),
        ({"space": {"primitives": ["A", "Q"], "written": {}}}, "unknown code 'Q'"),
        ({"references": {"patterns": {"fused": "[A|X]"}}}, "stands in no fusion"),
        ({"references": {"patterns": {"sized": "X{kv=2}"}}}, "X takes no options"),
        ({"evaluation": {"profile": "mad-grid"}}, "trains in several ways"),
        ({"kind": "module"}, "kind: module takes no X"),
    ],
)  # fmt: skip
def test_a_campaign_that_cannot_be_says_so_and_leaves_nothing(
    found: Path, tmp_path: Path, changes: Row, said: str
) -> None:
    asked = {"space": {"primitives": {"X": "ledger:FOUND/1"}, "layers": 2}} | changes
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


def test_what_the_gate_refuses_here_begins_nothing(found: Path, tmp_path: Path) -> None:
    """Whatever its certificate says there; here the source is no longer what it was."""
    run = tmp_path / "run"
    shutil.copytree(found, run)
    sha, _ = blobs.put(run / BLOBS, b"import os")
    with closing(sqlite3.connect(run / database.FILE)) as db, db:
        db.execute(f"UPDATE artifact SET sha256 = '{sha}' WHERE rowid = 1")
        db.execute(f"UPDATE candidate SET source_sha = '{sha}'")
    chosen = recipe({"X": f"ledger:{run}/{PLANT}"}, references={})
    with pytest.raises(
        RecipeError, match=r"X: ledger:.*/2 fails the gate at preset mini \(source: "
    ):
        Campaign.create(chosen, tmp_path / "new", 1)
    assert not (tmp_path / "new").exists()
