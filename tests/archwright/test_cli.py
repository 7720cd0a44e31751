"""The command line as a user types it: real processes, real Ray, real signals, the real files.

Ray is started five times; all else reads one finished run, in processes forked from one that has
imported everything (`command_server`), or this would take ten minutes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ledgers
import pytest
import yaml

from archwright.campaign import Campaign
from archwright.executor import LocalExecutor
from archwright.recipe import load
from evaluator import memory
from evaluator.tasks.lra import CIFAR, IMDB
from storage import database

ARCHWRIGHT = Path(sys.executable).with_name("archwright")
LIMIT = 120  # seconds, so that a command that hangs fails
Row = dict[str, Any]
Process = subprocess.Popen[str]

RECIPE: Row = {
    "name": "smoke",
    "seed": 3,
    "space": {"primitives": ["A", "M"], "layers": [2, 3], "preset": "mini"},
    "evaluation": {"profile": "smoke"},
    "agents": [
        {
            "name": "evolution",
            "proposer": "evolution",
            "scaffold_options": {"population": 3, "sample": 2},
        }
    ],
    "controls": [{"name": "random", "proposer": "random"}],
    "budget": {"evaluations": 6},
    "references": {"patterns": {"llama": "A+M"}, "seeds": 2},
    "confirm": {"finalists": 1, "seeds": 2},
    "workers": 2,
    "lag": 2,
}
KEYLESS = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
ENVIRONMENT = {**KEYLESS, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "160"}


class Desk:
    """A working directory with a recipe in it, and the command."""

    def __init__(self, folder: Path, server: Process) -> None:
        self.folder, self.server = folder, server
        (folder / "mine.yaml").write_text(yaml.safe_dump(RECIPE))

    def __call__(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command that starts no Ray."""
        assert self.server.stdin is not None and self.server.stdout is not None
        out, err = (self.folder.parent / f"{self.folder.name}.{name}" for name in ("out", "err"))
        job = {
            "arguments": arguments,
            "folder": str(self.folder),
            "environment": {**ENVIRONMENT, **more},
            "out": str(out),
            "err": str(err),
        }
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())

    def alone(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command with an interpreter of its own."""
        return ended(self.start(*arguments, **more))

    def start(self, *arguments: str, **more: str) -> Process:
        """The command as a process group of its own, as a shell starts it."""
        return subprocess.Popen(
            [ARCHWRIGHT, *arguments],
            cwd=self.folder,
            env={**ENVIRONMENT, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Whoever runs the tests in the background may have it ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )

    def rows(self, run: str, query: str) -> list[Row]:
        return ledgers.rows(self.folder / run, query)


def ended(process: Process) -> subprocess.CompletedProcess[str]:
    """What came of a process, once it has ended."""
    try:
        out, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    server = Path(__file__).with_name("command_server.py")
    with subprocess.Popen(
        [sys.executable, server],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Desk(tmp_path_factory.mktemp("desk"), process)


def words(value: list[str] | str) -> str:
    """The name of a case: its arguments."""
    return " ".join(value)[:60] if isinstance(value, list) else value


def last_line(done: subprocess.CompletedProcess[str], code: int = 0) -> Row:
    """The JSON object that a command with --json ends in, of a command that ended with this code."""
    assert done.returncode == code, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert done.stdout.endswith("\n")
    row = json.loads(done.stdout.splitlines()[-1], parse_constant=no_constant)
    assert isinstance(row, dict)
    return row


def no_constant(name: str) -> None:
    pytest.fail(f"{name} is not JSON")


def assert_refused(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """One sentence on stderr, nothing on stdout, no traceback."""
    assert done.returncode == code, done.stderr[-2000:]
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("archwright: ")
    return sentence


# ---------------------------------------------------------------------------------------- whole runs


@dataclass
class Campaigns:
    """What came of the commands that start Ray, some two at a time, since that is mostly waiting."""

    between: list[Row]  # the evaluations of `run --out first` after its driver was killed (-9)
    resumed: Row  # the summary of resuming that
    doctor: Process
    exhausted: Process


@pytest.fixture(scope="module")
def campaigns(desk: Desk) -> Campaigns:
    killed = desk.start("run", "mine.yaml", "--out", "first", "--json")
    try:
        wait_for(desk, killed, "first", done=4)
    finally:
        killed.kill()
        killed.communicate(timeout=LIMIT)
    assert killed.returncode == -signal.SIGKILL
    between = desk.rows("first", "SELECT * FROM evaluation ORDER BY id")
    nobody_asked = {"RAY_ADDRESS": "127.0.0.1:1", "OPENAI_API_KEY": "sk-very-secret"}
    nobody_asked["PATH"] = without("bible")
    doctor = desk.start("doctor", "--json", **nobody_asked)
    resumed = last_line(desk.alone("resume", "first", "--json"))
    settings = ["--set", "budget.seconds=0.000001", "--set", "controls=[]", "--set", "workers=1"]
    exhausted = desk.start("run", "mine.yaml", *settings, "--out", "exhausted", "--json")
    return Campaigns(between, resumed, doctor, exhausted)


def without(program: str) -> str:
    """The search path less the folders that hold a program, but for Python's own."""
    own = str(ARCHWRIGHT.parent)
    others = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join([own, *(f for f in others if not (Path(f) / program).exists())])


@pytest.fixture(scope="module")
def finished(campaigns: Campaigns) -> Row:
    """The summary of the run in the folder `first`."""
    return campaigns.resumed


def wait_for(desk: Desk, process: Process, run: str, done: int) -> None:
    """Wait until some evaluations of a run are done and others are not."""
    deadline = time.monotonic() + LIMIT
    query = "SELECT COUNT(*) AS n FROM evaluation WHERE state = 'done'"
    while time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be stopped"
        try:
            if desk.rows(run, query)[0]["n"] >= done:
                return
        except sqlite3.OperationalError:
            pass  # there is no ledger yet, or no table in it
        time.sleep(0.01)
    pytest.fail("the run does not get on")


FOUND = """
    SELECT c.id, c.content_hash, c.pattern, e.seed, e.sealed, e.state, m.metric, m.split, m.value
    FROM candidate c JOIN evaluation e ON e.candidate_id = c.id
    JOIN measurement m ON m.evaluation_id = e.id ORDER BY c.id, e.seed, m.metric
"""
SLOTS = """
    SELECT slot, a.name, operator, p.reason, status, candidate_id FROM proposal p
    JOIN agent a ON a.id = p.agent_id ORDER BY slot
"""


SUMMARY = {"run", "status", "evaluations", "failures", "best", "controls", "spend"}


def test_a_run_ends_in_its_summary(desk: Desk, finished: Row) -> None:
    assert finished.keys() >= SUMMARY
    assert (finished["run"], finished["status"], finished["failures"]) == ("first", "done", 0)
    assert {"candidate", "pattern", "score", "stderr"} <= finished["best"].keys()
    assert finished["best"]["sealed"] is True
    (control,) = finished["controls"]
    assert control["agent"] == "random"
    assert control["low"] <= control["advantage"] <= control["high"]
    states = desk.rows("first", "SELECT state, COUNT(*) AS n FROM evaluation GROUP BY state")
    assert states == [{"state": "done", "n": finished["evaluations"]}]
    assert {"calls", "usd"} <= finished["spend"].keys()


def test_a_killed_run_is_resumed_without_repeating_what_was_finished(
    desk: Desk, campaigns: Campaigns
) -> None:
    before = campaigns.between
    done = [row for row in before if row["state"] == "done"]
    assert len(done) >= 4
    after = {row["id"]: row for row in desk.rows("first", "SELECT * FROM evaluation")}
    for row in done:
        assert row["attempt"] == 1
        assert after[row["id"]] == row, "its time of finishing included"
    for row in before:
        if row["state"] == "running":
            assert after[row["id"]]["attempt"] == 2
    assert {row["state"] for row in after.values()} == {"done"}
    assert len(after) > len(before), "it was killed before the end"


@pytest.mark.usefixtures("campaigns")
def test_the_same_recipe_and_seed_give_the_same_run(desk: Desk) -> None:
    """On Ray, with its driver killed and resumed; and in one process, one thing after the other."""
    again = Campaign.create(load(desk.folder / "mine.yaml"), desk.folder / "again", workers=1)
    again.run(LocalExecutor())
    again.ledger.engine.dispose()
    assert desk.rows("first", FOUND) == desk.rows("again", FOUND)
    assert desk.rows("first", SLOTS) == desk.rows("again", SLOTS)


@pytest.mark.usefixtures("campaigns")
def test_an_interrupt_saves_all_and_says_how_to_go_on(desk: Desk) -> None:
    """Ctrl-C in a terminal: the signal goes to the whole group, Ray's processes among them."""
    settings = ["--set", "budget.evaluations=2000", "--set", "controls=[]", "--set", "workers=1"]
    settings += ["--set", "space.layers=[4, 8]"]  # more than it can do before the signal
    process = desk.start("run", "mine.yaml", "--out", "interrupted", *settings)
    try:
        wait_for(desk, process, "interrupted", done=3)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, said[-2000:]
    assert "Traceback" not in said
    assert "archwright resume interrupted" in said
    assert desk.rows("interrupted", "SELECT status FROM campaign") == [{"status": "interrupted"}]
    states = {r["state"] for r in desk.rows("interrupted", "SELECT state FROM evaluation")}
    assert "done" in states and "running" not in states and "failed" not in states


def test_a_budget_that_is_gone_before_any_result_is_code_3(campaigns: Campaigns) -> None:
    row = last_line(ended(campaigns.exhausted), 3)
    assert row.keys() >= SUMMARY
    assert row["best"] is None
    assert row["evaluations"] == 0


def test_the_doctor_finds_nothing_wrong_here(campaigns: Campaigns) -> None:
    """Not even a cluster that the environment names: it is joined with `--ray-address` only."""
    row = last_line(ended(campaigns.doctor))
    checks = {check["name"]: check for check in row["checks"]}
    assert {"python", "ray", "sandbox", "OPENAI_API_KEY", "package agents"} <= checks.keys()
    assert not [check for check in checks.values() if check["ok"] is False]
    assert checks["sandbox"]["ok"] is True
    assert checks["OPENAI_API_KEY"]["detail"] == "set"
    assert checks["corpus pydoc-topics"]["ok"] is True
    assert "sha256" in checks["corpus pydoc-topics"]["detail"]
    assert checks["corpus kjv"]["ok"] is None, "it is not on this PATH, and not needed"
    assert "apt-get install bible-kjv" in checks["corpus kjv"]["detail"]
    assert "only needed for" in checks["ARCHWRIGHT_LRA"]["detail"]
    assert "for each worker" in checks["memory"]["detail"]
    assert "very-secret" not in json.dumps(row), "keys are said to be there, not shown"


# ---------------------------------------------------------------------------------- reading the run

COLUMNS = {
    "leaderboard": "rank candidate name pattern score stderr params flops_per_token state_bytes agent "
    "evaluations tied",
    "candidates": "slot agent operator candidate pattern status score",
    "agents": "agent role scaffold proposer accepted duplicate failed",
    "failures": "",
    "spend": "",
    "calls": "",
    "decisions": "what reason numbers",
    "candidate 2": "pattern proposals evaluations content_hash",
    "lineage 2": "candidate depth agent operator parents",
}


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize("what", COLUMNS)
def test_every_table_can_be_inspected(desk: Desk, what: str) -> None:
    rows = last_line(desk("inspect", "first", *what.split(), "--json"))["rows"]
    for row in rows:
        assert set(COLUMNS[what].split()) <= row.keys()
    assert bool(rows) == bool(COLUMNS[what]), "this run has no failures and no model"
    shown = desk("inspect", "first", *what.split())
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.strip()


def test_the_leaderboard_is_that_of_the_summary(desk: Desk, finished: Row) -> None:
    rows = last_line(desk("inspect", "first", "--json"))["rows"]
    assert rows[0] == finished["best"]
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    limited = last_line(desk("inspect", "first", "--sort", "-score", "--limit", "2", "--json"))
    scores = sorted((row["score"] for row in rows), reverse=True)
    assert [row["score"] for row in limited["rows"]] == scores[:2]


@pytest.mark.usefixtures("finished")
def test_sql_reads(desk: Desk) -> None:
    query = "SELECT name, role FROM agent ORDER BY id"
    row = last_line(desk("sql", "first", query, "--json"))
    agents = [["references", "reference"], ["evolution", "search"], ["random", "control"]]
    assert row == {"columns": ["name", "role"], "rows": agents}
    row = last_line(desk("sql", "first", "SELECT ':a' AS x, NULL, 1.5, x'ff', 9e999", "--json"))
    assert row["rows"][0][:3] == [":a", None, 1.5]
    assert len(row["rows"][0]) == 5


WRITES = [
    "DELETE FROM candidate",
    "UPDATE campaign SET name = 'mine'",
    "DROP VIEW leaderboard",
    "CREATE TABLE mine (x)",
    "PRAGMA user_version = 4",
    "PRAGMA journal_mode = DELETE",
    "VACUUM INTO 'copy.db'",
    "ATTACH 'other.db' AS other",
    "SELECT 1; DELETE FROM candidate",
]


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize("query", WRITES)
def test_sql_does_not_write_anywhere(desk: Desk, query: str) -> None:
    before = desk.rows("first", FOUND), sorted(desk.folder.iterdir())
    done = desk("sql", "first", query)
    after = desk.rows("first", FOUND), sorted(desk.folder.iterdir())
    for stray in ("copy.db", "other.db"):
        (desk.folder / stray).unlink(missing_ok=True)
    assert after == before
    if "journal_mode" not in query:  # which answers with the mode that stays
        assert_refused(done)
    assert desk.rows("first", "PRAGMA journal_mode") == [{"journal_mode": "wal"}]


def test_the_best_replays_bit_for_bit(desk: Desk, finished: Row) -> None:
    row = last_line(desk("replay", "first", "--best", "--json"))
    assert {"candidate", "recorded", "replayed", "match", "difference"} <= row.keys()
    assert row["candidate"] == finished["best"]["candidate"]
    assert (row["match"], row["difference"], row["split"]) == (True, 0.0, "test")
    assert row["recorded"] == row["replayed"]


@pytest.mark.usefixtures("finished")
def test_a_replay_that_differs_says_so_and_fails(desk: Desk) -> None:
    """A ledger in which somebody has bettered a score."""
    shutil.copytree(desk.folder / "first", desk.folder / "forged")
    with closing(sqlite3.connect(desk.folder / "forged" / database.FILE)) as db, db:
        db.execute("UPDATE measurement SET value = value + 0.1 WHERE metric = 'score'")
    row = last_line(desk("replay", "forged", "2", "--json"), 1)
    assert row["match"] is False
    assert row["difference"] == pytest.approx(-0.1)


# ------------------------------------------------------------------------------- without a campaign


def test_eval_scores_a_pattern(desk: Desk) -> None:
    arguments = ["eval", "2(A+M)", "--profile", "smoke", "--seeds", "2", "--json"]
    row = last_line(desk(*arguments))
    keys = {"pattern", "score", "stderr", "tasks", "params", "seconds", "steps"}
    assert keys <= row.keys()
    assert row["pattern"] == "2(A+M)"
    assert row["score"] == pytest.approx(sum(row["tasks"].values()) / 2)
    narrowed = last_line(desk(*arguments, "--task", "compression"))
    assert list(narrowed["tasks"]) == ["compression"]
    assert narrowed["tasks"]["compression"] == row["tasks"]["compression"]


def test_eval_says_which_data_and_which_shortcuts_stand_beside_a_score(
    desk: Desk, data: Path
) -> None:
    """A corpus's digest; that data are a stand-in; what blind rules reach on ListOps."""
    path = data / "alphabet.txt"
    path.write_text("abcdefghijklmnopqrstuvwxyz\n" * 400)
    row = last_line(desk("eval", "M", "--profile", f"text-mini:{path}", "--json"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert row["facts"] == {"text/corpus": str(path), "text/sha256": digest}
    assert row["figures"]["text/bits_per_byte"] > 0
    standin = ["eval", "M", "--profile", "lra-standins", "--task", "lra-text"]
    row = last_line(desk(*standin, "--json"))
    assert row["facts"].keys() == {"lra-text/standin"}
    assert row["figures"]["lra-text/standin"] == 1.0
    listops = ["eval", "M", "--profile", "lra-listops-smoke"]
    row = last_line(desk(*listops, "--json"))
    ladder = [
        row["figures"][f"lra-listops/shortcut_{x}"] for x in ("majority", "root", "root_digits")
    ]
    assert 0 < ladder[0] < ladder[1] < ladder[2] < 1
    for arguments, word in ((standin, "not the data of the Long"), (listops, "shortcut_majority")):
        assert word in desk(*arguments).stdout


def test_pattern_describes_a_pattern(desk: Desk) -> None:
    row = last_line(desk("pattern", "AMAM", "--preset", "mini", "--json"))
    keys = {"canonical", "layers", "counts", "params", "flops_per_token", "state_bytes"}
    assert keys <= row.keys()
    assert row["canonical"] == "2(A+M)"
    assert row["layers"] == ["A", "M", "A", "M"]
    assert row["counts"] == {"A": 2, "M": 2}


def test_a_dry_run_says_what_would_run_and_writes_nothing(desk: Desk) -> None:
    before = sorted(desk.folder.iterdir())
    arguments = ["--set", "budget.evaluations=4", "--seed", "9", "--out", "dry"]
    row = last_line(desk("run", "mine.yaml", "--dry-run", "--json", *arguments))
    assert row["recipe"]["seed"] == 9
    assert row["recipe"]["budget"]["evaluations"] == 4
    # Two arms of 4, the reference at 2 seeds; then 1 + 1 + 1 finalists at 2 seeds.
    assert row["estimate"]["evaluations"] == 4 + 4 + 2 + 3 * 2
    assert (row["estimate"]["calls_at_most"], row["estimate"]["usd_at_most"]) == (0, 0)
    shown = desk("run", "mine.yaml", "--dry-run")
    assert yaml.safe_load(shown.stdout.partition("estimate")[0])["name"] == "smoke"
    assert sorted(desk.folder.iterdir()) == before


GRID = ["evaluation.profile=mad-grid", "evaluation.tasks=[compression:baseline]"]


@pytest.mark.parametrize(
    ("recipe", "settings", "trainings"),
    [
        ("quickstart", [], []),  # a training with a warm-up
        ("mine.yaml", GRID, [6, 12_800, 32, 200]),  # a sweep, in epochs
    ],
)  # fmt: skip
def test_a_dry_run_counts_epochs_and_sweeps_and_knows_warm_ups(
    desk: Desk, recipe: str, settings: list[str], trainings: list[int]
) -> None:
    """6 trainings on 12,800 rows of 32 tokens, 200 times over."""
    overrides = [word for setting in settings for word in ("--set", setting)]
    found = last_line(desk("run", recipe, "--dry-run", *overrides, "--json"))["estimate"]
    assert found["seconds_per_evaluation"] > 0
    tokens = found["trained_tokens"] / found["evaluations"]
    assert tokens > 0 and (not trainings or tokens == pytest.approx(math.prod(trainings), rel=0.01))


# ----------------------------------------------------------------------------------------- bad input

NEW = ["--out", "new"]
LOCAL = "openai:m@http://127.0.0.1:1"
BAD_RUNS = [
    (["run", "mine.yaml", *NEW, "--set", "budget.evaluation=3"], "'evaluations'"),
    (["run", "mine.yaml", *NEW, "--set", "nonsense"], "key=value"),
    (["run", "mine.yaml", *NEW, "--set", "space.layers.0.x=1"], "space.layers.0.x"),
    (["run", "mine.yaml", *NEW, "--set", "space.primitives=[A, Mc]"], "'Mc'"),
    (["run", "mine.yaml", *NEW, "--set", "references.patterns={x: A+Mc}"], "'Mc'"),
    (["run", "mine.yaml", *NEW, "--set", "evaluation.profile=smok"], "'smoke'"),
    (["run", "mine.yaml", *NEW, "--set", "space.preset=minni"], "'mini'"),
    (["run", "mine.yaml", *NEW, "--set", "agents.0.proposer=evolve"], "'evolution'"),
    (["run", "mine.yaml", *NEW, "--llm", "anthropic:some-model"], "ANTHROPIC_API_KEY"),
    (["run", "mine.yaml", *NEW, "--llm", "some-model"], "provider"),
    (["run", "mine.yaml", *NEW, "--llm", LOCAL, "--set", "controls.0.name=llm"], "llm"),
    (["run", "mine.yaml", *NEW, "--evaluations", "0"], "budget.evaluations"),
    (["run", "mine.yaml", *NEW, "--seed", "-1"], "seed"),
    (["run", "compose-mad", *NEW], "ANTHROPIC_API_KEY"),
    (["run", "mine.yaml", *NEW, "--set", "evaluation.tasks=[compresion]"], "'compression'"),
    (["run", "mine.yaml", *NEW, "--set", "evaluation.timeout_seconds=0"], "timeout_seconds"),
    (["run", "mine.yaml", *NEW, "--set", "rungs.count=4"], "rungs.count"),
    (["run", "mine.yaml", *NEW, "--set", "rungs.eta=1"], "rungs.eta"),
    (["run", "nowhere.yaml", *NEW], "nowhere.yaml"),
    (["run", "mine.yaml", "--out", "mine.yaml/new"], "mine.yaml/new"),
    (["run", "mine.yaml", "--out", "/proc/new"], "/proc/new"),
    (["resume", "new"], "new"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "word"), BAD_RUNS, ids=words)
def test_what_cannot_run_is_one_sentence_and_leaves_nothing(
    desk: Desk, arguments: list[str], word: str
) -> None:
    before = sorted(desk.folder.iterdir())
    done = desk(*arguments)
    after = sorted(desk.folder.iterdir())
    shutil.rmtree(desk.folder / "new", ignore_errors=True)
    assert word in assert_refused(done)
    assert after == before


def misshapen(folder: Path, what: str, body: bytes) -> None:
    """Put a file of the Long Range Arena's release there whose lines are not as published."""
    path = folder / what
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpora and copies of the Long Range Arena with which something is wrong."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "empty.txt").touch()
    (folder / "latin.txt").write_bytes(b"caf\xe9 au lait")
    (folder / "short.txt").write_text("short")
    (folder / "bare").mkdir()
    (folder / "bare" / "text.md").write_text("not a .txt file")
    misshapen(folder / "small", IMDB.name, b"cut off")
    for archive in (IMDB, CIFAR):
        misshapen(folder / "other", archive.name, b"")
        os.truncate(
            folder / "other" / archive.name, archive.size
        )  # sparse: of that size, all zeros
    for part in ("train", "eval", "test"):
        misshapen(folder / "other", f"tsv_data/new_aan_pairs.{part}.tsv", b"1.0\tone text\n")
        misshapen(folder / "few", f"tsv_data/new_aan_pairs.{part}.tsv", b"1.0\t1\t2\tb'a'\tb'b'\n")
    hard = "pathfinder32/curv_contour_length_14"
    misshapen(folder / "other", f"{hard}/metadata/0.npy", b"\x93NUMPY\xff")
    misshapen(folder / "few", f"{hard}/metadata/0.npy", b"")
    misshapen(folder / "lost", f"{hard}/metadata/0.npy", b"imgs/0 sample_0.png 0 1 1.8\n")
    misshapen(folder / "jpeg", f"{hard}/metadata/0.npy", b"imgs/0 sample_0.png 0 1 1.8\n")
    misshapen(folder / "jpeg", f"{hard}/imgs/0/sample_0.png", b"\xff\xd8 a picture")
    return folder


BAD_DATA = [
    ("text-mini:{}/nowhere.txt", "", "must be pydoc-topics, kjv, a file or a folder, not '/"),
    ("text-mini:near.txt", "", "not 'near.txt'; correct the path (it starts at /"),
    ("text-mini:{}/empty.txt", "", "must hold text, not 0 bytes; name another"),
    ("text-mini:{}/bare", "", "must hold .txt files, not none; add some"),
    ("text-mini:{}/latin.txt", "", "must be UTF-8, not byte 0xe9 at offset 3; convert it"),
    ("text-mini:{}/short.txt", "", "must have at least 6500 bytes for windows of 64, not 5; lengthen"),
    ("text-mini:kjv", "", "`bible` must be installed, not missing from PATH; run `apt-get install bible-"),
    ("smoke:kjv", "", "profile smoke: only text profiles take a corpus, not 'kjv'; leave it out"),
    ("mad-minni", "", "unknown profile 'mad-minni': the nearest are 'mad-mini'"),
    ("lra-text", "", "environment variable ARCHWRIGHT_LRA, not ''; put aclImdb"),
    ("lra-text", "nowhere", "nowhere/aclImdb_v1.tar.gz must be there, not missing; get it from https"),
    ("lra-text", "small", "must have 84125825 bytes, not 7; get it from https"),
    ("lra-text", "other", "must be 7c2ac02c03563afcf9b574c7e56c153a, not "),
    ("lra-image", "other", "must be c32a1d4ab5d03f1284b67883e8d87530, not "),
    ("lra-retrieval", "small", "new_aan_pairs.train.tsv must be there, not missing; put lra_release/ (h"),
    ("lra-retrieval", "other", "must have a label and four more fields in each line, not b'1.0\\tone te"),
    ("lra-retrieval", "few", "new_aan_pairs.train.tsv must have 147086 rows, not 1; get https"),
    ("lra-pathfinder", "small", "curv_contour_length_14 must be there, not missing; put lra_release/ "),
    ("lra-pathfinder", "other", "must have an image and its label in each line, not b'\\x93NUMPY\\xff"),
    ("lra-pathfinder", "few", "must have 200000 rows, not 0; get https"),
    ("lra-pathfinder", "lost", "must have images that are there, not b'imgs/0 sample_0.png"),
    ("lra-pathfinder", "jpeg", "0.npy: png: an image must be greyscale of 8 bits, 32 x 32"),
]  # fmt: skip


@pytest.mark.parametrize("command", ["eval", "run"])
@pytest.mark.parametrize(("profile", "root", "words"), BAD_DATA)
def test_data_that_cannot_be_used_are_one_sentence_before_anything_runs(
    desk: Desk, data: Path, command: str, profile: str, root: str, words: str
) -> None:
    """Place, rule, value and way out; no run folder is left, and nothing was trained."""
    before, named = sorted(desk.folder.iterdir()), profile.format(data)
    arguments = ["A+M", "--profile", named]
    if command == "run":
        arguments = ["mine.yaml", *NEW, "--set", f"evaluation.profile={named}"]
    lra = {"ARCHWRIGHT_LRA": str(data / root)} if root else {}
    done = desk(command, *arguments, PATH="/nowhere", **lra)
    assert sorted(desk.folder.iterdir()) == before
    assert words in assert_refused(done)


def test_a_model_over_memory_is_a_typed_failure_in_one_sentence(desk: Desk) -> None:
    """One weight of more than this machine may give, and of less than it has."""
    hidden = int(1.05 * memory.share(1)) // (4 * 64)
    arguments = ["eval", f"A+M{{hidden={hidden}}}", "--profile", "smoke", "--seeds", "2"]
    row = last_line(desk(*arguments, "--json"), 1)
    assert (row["score"], row["failure"], row["tasks"], row["steps"]) == (None, "oom", {}, 0)
    limit = memory.readable(memory.share(1))
    assert f"must stay within {limit}, not take another " in row["detail"]
    assert row["detail"].endswith("use a smaller preset or pattern, or fewer workers.")
    done = desk(*arguments)
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence == f"archwright: {row['pattern']} has no score: {row['detail']}"


BAD_READS = [
    (["inspect", "nowhere"], "nowhere"),
    (["inspect", "first", "leaderbord"], "'leaderboard'"),
    (["inspect", "first", "candidate"], "ID"),
    (["inspect", "first", "candidate", "999"], "999"),
    (["inspect", "first", "lineage", "999"], "999"),
    (["inspect", "first", "calls", "999"], "999"),
    (["inspect", "first", "agents", "1"], "ID"),
    (["inspect", "first", "--sort", "scor"], "'score'"),
    (["sql", "first", "SELECT * FROM candidat"], "candidat"),
    (["sql", "first", "nonsense"], "nonsense"),
    (["sql", "nowhere", "SELECT 1"], "nowhere"),
    (["replay", "first", "999"], "999"),
    (["replay", "first", "1", "--best"], "not both"),
    (["replay", "first", "1", "--calls"], "not both"),
    (["replay", "nowhere"], "nowhere"),
    (["run", "mine.yaml", "--out", "first"], "first"),
    (["eval", "A+Mc", "--profile", "smoke"], "'Mc'"),
    (["eval", "A", "--profile", "smok"], "'smoke'"),
    (["eval", "A", "--profile", "smoke", "--preset", "minni"], "'mini'"),
    (["eval", "A", "--profile", "smoke", "--task", "compresion"], "'compression'"),
    (["pattern", "A+Mc"], "'Mc'"),
    (["bench", "evaluater"], "'evaluator'"),
    (["pattern", "5("], "column"),
    (["pattern", "999A"], "256"),
]


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize(("arguments", "word"), BAD_READS, ids=words)
def test_what_cannot_be_read_is_one_sentence(desk: Desk, arguments: list[str], word: str) -> None:
    before = desk.rows("first", FOUND)
    assert word in assert_refused(desk(*arguments))
    assert desk.rows("first", FOUND) == before


@pytest.mark.usefixtures("finished")
def test_an_error_is_one_json_object_too(desk: Desk) -> None:
    for arguments in (["inspect", "first", "candidate", "999"], ["run", "nowhere.yaml"]):
        row = last_line(desk(*arguments, "--json"), 2)
        assert row["exit_code"] == 2
        assert row["error"]


def test_a_mistake_is_one_sentence_of_a_process_of_its_own_too(desk: Desk) -> None:
    done = desk.alone("run", "mine.yaml", "--out", "new", "--set", "budget.evaluation=3")
    assert "'evaluations'" in assert_refused(done)
    assert not (desk.folder / "new").exists()


@pytest.mark.usefixtures("finished")
def test_debug_shows_the_traceback(desk: Desk) -> None:
    done = desk("--debug", "inspect", "first", "candidate", "999")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["run", "--nonsense"], ["inspect"], ["sql", "x"]]
)
def test_a_command_that_is_not_understood_is_a_usage_error(
    desk: Desk, arguments: list[str]
) -> None:
    done = desk(*arguments)
    assert done.returncode == 2
    assert done.stderr and "Traceback" not in done.stderr


def test_an_empty_ledger_is_said_to_be_empty(desk: Desk) -> None:
    database.create(desk.folder / "empty").dispose()
    for arguments in (["inspect", "empty"], ["resume", "empty"], ["replay", "empty"]):
        assert "campaign" in assert_refused(desk(*arguments))
    row = last_line(desk("sql", "empty", "SELECT COUNT(*) AS n FROM candidate", "--json"))
    assert row == {"columns": ["n"], "rows": [[0]]}


@pytest.fixture
def damaged(desk: Desk, finished: Row, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a copy of the run whose ledger is damaged in the way that is asked for."""
    copy = desk.folder / "damaged"
    shutil.copytree(desk.folder / "first", copy)
    path = copy / database.FILE
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = db.execute("PRAGMA page_size").fetchone()
        tables = "('measurement', 'evaluation', 'proposal', 'campaign')"
        query = f"SELECT rootpage FROM sqlite_master WHERE type = 'table' AND name IN {tables}"
        pages = [page for (page,) in db.execute(query)]
    data = bytearray(path.read_bytes())
    match request.param:
        case "words":
            data = bytearray(b"words " * 1000)
        case "cut":
            data = data[: len(data) // 2]
        case "pages":
            for page in pages:
                data[(page - 1) * size : page * size] = b"\xaa" * size
    path.write_bytes(data)
    yield "damaged"
    shutil.rmtree(copy)


@pytest.mark.parametrize("damaged", ["words", "cut", "pages"], indirect=True)
def test_a_damaged_ledger_is_one_sentence_for_every_command(desk: Desk, damaged: str) -> None:
    for arguments in (
        ["inspect", damaged],
        ["inspect", damaged, "candidates"],
        ["sql", damaged, "SELECT * FROM evaluation"],
        ["replay", damaged, "--best"],
        ["resume", damaged],
    ):
        sentence = assert_refused(desk(*arguments))
        assert re.search("malformed|not a database|not a readable", sentence)


# -------------------------------------------------------------------------------------------- help


def test_the_help_names_every_command(desk: Desk) -> None:
    """That it answers at once follows from what it imports, which test_architecture.py holds."""
    done = desk.alone("--help")
    assert done.returncode == 0
    for command in (
        "run",
        "resume",
        "inspect",
        "sql",
        "replay",
        "eval",
        "pattern",
        "bench",
        "doctor",
    ):
        assert re.search(rf"\b{command}\b", done.stdout)


def test_no_arguments_show_the_help(desk: Desk) -> None:
    done = desk()
    assert "Usage" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
