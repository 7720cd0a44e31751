"""Ray's workers as real processes: who stays, who is replaced, and a campaign with a model over memory."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluator import memory
from storage import database

ARCHWRIGHT = Path(sys.executable).with_name("archwright")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
HIDDEN = int(1.05 * memory.share(2)) // (
    4 * 64
)  # a weight of more than a worker's share, at width 64
OVER = f"A+M{{hidden={HIDDEN}}}"

WORKERS = f"""
import json, os, resource
from archwright.executor import Fault, RayExecutor
from evaluator.evaluate import Job, evaluate

def score(pattern):
    result = evaluate(Job(pattern, "mini", "smoke", 0))
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return os.getpid(), result.failure, result.score(), limit

def broken():
    raise RuntimeError("a sticky error of CUDA")

executor = RayExecutor(2)

def run(task, *arguments):
    handle = executor.submit(task, *arguments)
    while not executor.wait([handle], timeout=60): pass
    result = executor.result(handle)
    return result.detail if isinstance(result, Fault) else result

ordinary, over, end = (score, "A+M"), (score, {OVER!r}), (os._exit, 1)
print(json.dumps([run(*x) for x in (ordinary, ordinary, over, ordinary, (broken,), ordinary, end, ordinary)]))
executor.close()
"""


def test_a_worker_stays_until_something_in_it_is_spent_or_broken(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKERS],
        env=ENVIRONMENT,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second, over, third, broken, fourth, ended, fifth = json.loads(
        done.stdout.splitlines()[-1]
    )
    scored = [first, second, third, fourth, fifth]
    assert {tuple(row[1:]) for row in scored} == {(None, first[2], memory.share(2))}
    assert over[1:3] == ["oom", None]
    pids = [row[0] for row in scored]
    assert pids[0] == pids[1] == over[0]
    assert len(set(pids)) == 4, "replaced after memory ran out, after an error and after its death"
    assert broken == "RayTaskError(RuntimeError): RuntimeError: a sticky error of CUDA"
    assert "Died" in ended


RECIPE: dict[str, Any] = {
    "name": "over",
    "space": {"primitives": ["A", "M"], "layers": [2, 2], "preset": "mini", "options": True},
    "evaluation": {"profile": "smoke"},
    "agents": [
        {"name": "mine", "proposer": "fixed", "options": {"patterns": ["2A", OVER, "M+A", "2M"]}}
    ],
    "budget": {"evaluations": 4},
    "references": {"patterns": {"llama": "A+M"}, "seeds": 1},
    "confirm": {"finalists": 1, "seeds": 2},
    "workers": 2,
}


def test_a_candidate_over_memory_is_recorded_and_the_campaign_goes_on(tmp_path: Path) -> None:
    (tmp_path / "over.yaml").write_text(yaml.safe_dump(RECIPE))
    done = subprocess.run(
        [ARCHWRIGHT, "run", "over.yaml", "--out", "run", "--json"],
        env=ENVIRONMENT,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["status"], summary["failures"]) == ("done", 1)
    with closing(sqlite3.connect(tmp_path / "run" / database.FILE)) as db:
        query = "SELECT c.pattern, e.state, e.failure, e.attempt, e.detail FROM evaluation e "
        rows = db.execute(query + "JOIN candidate c ON c.id = e.candidate_id").fetchall()
        scored = "SELECT COUNT(*) FROM measurement m JOIN evaluation e ON e.id = m.evaluation_id "
        assert db.execute(scored + "WHERE e.state = 'failed'").fetchone() == (0,)
    (failed,) = [row for row in rows if row[1] != "done"]
    assert failed[:4] == (OVER, "failed", "oom", 1), (
        "it is the candidate's own, so it is not retried"
    )
    assert f"must stay within {memory.readable(memory.share(2))}, not take another" in failed[4]
    assert [row[3] for row in rows] == [1] * len(rows), "nobody else paid for it"
    assert {row[0] for row in rows} == {OVER, "2A", "M+A", "2M", "A+M"}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_dry_run_of_a_model_over_memory_is_one_sentence(tmp_path: Path) -> None:
    """A space at a size for other machines; here, for one of 1.5 GB."""
    (tmp_path / "over.yaml").write_text(yaml.safe_dump(RECIPE))
    command = [str(ARCHWRIGHT), "run", "over.yaml", "--dry-run", "--set", "space.preset=3B"]
    limited = f"ulimit -d {1500 * 1024}; exec {' '.join(command)} --set space.layers=4"
    done = subprocess.run(
        ["bash", "-c", limited], env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr[-2000:]
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(
        "archwright: space.preset 3B: memory: an evaluation must stay within 1.4"
    )
