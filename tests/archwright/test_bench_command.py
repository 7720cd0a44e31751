"""`archwright bench` as a user types it, once, with real Ray; the arithmetic on made-up observations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from archwright.bench import row
from archwright.bench_evaluator import Observation, utilisation
from evaluator.outcome import Result, Spent
from evaluator.stages import STAGES

ARCHWRIGHT = Path(sys.executable).with_name("archwright")


def seen(began: float, ended: float, rest: float = 0.0) -> Observation:
    length = ended - began
    stages = {**dict.fromkeys(STAGES, 0.0), "backward": length * (1 - rest), "rest": length * rest}
    return Observation(Result((), Spent()), began, ended, stages, peak_bytes=int(ended))


def test_workers_that_never_wait_are_busy_and_orchestrate_nothing() -> None:
    found = utilisation([seen(0, 5), seen(0, 10), seen(5, 10)], 2)
    assert found["busy"] == found["busy_before_tail"] == 1
    assert found["orchestration"] == found["orchestration_of_five_seconds"] == 0
    assert found["shares"]["backward"] == 1
    assert (found["evaluations"], found["wall_seconds"]) == (3, 10)
    assert found["candidates_per_hour"] == 3600 * 3 / 10
    assert found["peak_bytes"] == 10


def test_a_gap_is_orchestration_and_a_tail_is_not() -> None:
    """Two workers; one waits 1 s of the 9 before the tail, in which it has nothing left to do."""
    found = utilisation([seen(10, 14), seen(10, 22), seen(15, 19)], 2)
    assert found["gap_seconds"] == {"median": 1, "low": 1, "high": 1, "n": 1}
    assert found["busy"] == pytest.approx(20 / 24)
    assert found["busy_before_tail"] == pytest.approx(17 / 18)
    assert found["orchestration"] == pytest.approx(1 / 18)
    assert found["orchestration_of_five_seconds"] == pytest.approx(1 / 6)


def test_what_is_in_no_stage_is_orchestration_too() -> None:
    """A worker's first evaluation may take long to start; it is not what a warm one costs."""
    found = utilisation([seen(0, 10, 0.5), seen(10, 20, 0.1), seen(20, 30, 0.1)], 1)
    assert found["busy"] == 1
    assert found["orchestration"] == pytest.approx(0.7 / 3)
    assert found["orchestration_of_five_seconds"] == pytest.approx(0.1)


def test_a_row_says_whether_its_target_holds() -> None:
    figure = {"median": 0.02, "low": 0.01, "high": 0.04, "n": 3}
    assert row("x", figure, "< 0.03")["holds"] is True
    assert row("x", figure, "> 0.03")["holds"] is False
    assert row("x", figure, "> 0.03", key="high")["holds"] is True
    assert row("x", 0.03, "< 0.03")["holds"] is row("x", 0.03, "> 0.03")["holds"] is False
    assert row("x", 0.5) == {
        "figure": "x",
        "value": 0.5,
        "target": None,
        "holds": None,
        **dict.fromkeys(("low", "high", "n")),
    }


def test_the_command_measures_a_real_campaign(tmp_path: Path) -> None:
    command = [ARCHWRIGHT, "bench", "evaluator", "--quick", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert list(tmp_path.iterdir()) == []  # the campaign's folder was a temporary one
    campaign = found["campaign"]
    assert (campaign["workers"], campaign["evaluations"]) == (2, 4)
    assert sum(campaign["shares"].values()) == pytest.approx(1, abs=0.01)
    assert min(campaign["shares"].values()) > 0
    assert 0 < campaign["busy"] <= 1
    assert campaign["peak_bytes"] > 2**20
    assert {figure["target"] for figure in found["figures"]} > {"> 0.95", "< 0.03", "< 0.01", "< 1"}
    for figure in found["figures"]:
        assert (figure["holds"] is None) == (figure["target"] is None)
        assert isinstance(figure["value"], float)


def test_the_sandbox_starts_from_its_warm_parent(tmp_path: Path) -> None:
    command = [ARCHWRIGHT, "bench", "sandbox", "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cold_seconds"]["n"] == 1
    assert found["levels"].keys() == {"landlock", "bubblewrap"}
    held = [level for level in found["levels"].values() if "error" not in level]
    assert held
    for level in held:
        assert 0 < level["start"]["median"] < level["round_trip"]["median"]
        assert level["start"]["n"] == 2
    targets = [figure["target"] for figure in found["figures"]]
    assert targets == [None, *["< 0.1", None, "< 1"] * len(held)]
