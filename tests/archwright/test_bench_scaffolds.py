"""`archwright bench scaffolds` as a user types it; its arithmetic on made-up curves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from agents.proposers import PROPOSERS
from agents.scaffolds import SCAFFOLDS, WITH_TOOLS
from archwright.bench import policy_row
from archwright.bench_scaffolds import POLICIES, Policy, compared, mean, verdict

ARCHWRIGHT = Path(sys.executable).with_name("archwright")
# Models, a given list, and one that writes modules, of which the table has none.
WITHOUT_A_SEARCH_OF_ITS_OWN = {
    "llm",
    "best-of-n",
    "scripted",
    "recorded",
    "fixed",
    "grammar",
    "knobs",
}


def test_every_scaffold_and_every_proposer_without_a_model_is_there() -> None:
    searched = {p.scaffold for p in POLICIES if p.proposer == "evolution"}
    assert searched == SCAFFOLDS.keys() - {*WITH_TOOLS}
    assert {p.proposer for p in POLICIES} == PROPOSERS.keys() - WITHOUT_A_SEARCH_OF_ITS_OWN


def test_a_gain_is_paired_with_the_same_worlds() -> None:
    """Worlds that differ far more than the policies do: only pairs tell these apart."""
    rng = np.random.default_rng(0)
    worlds = rng.normal(5, 1, (100, 1)) + np.zeros((100, 8))
    better = worlds[:40] - 0.05 + rng.normal(0, 0.01, (40, 8))
    (point,) = compared(Policy("p", "s"), better, worlds, [8])["curve"]
    assert point["evaluations"] == 8
    assert point["verdict"] == "beats random"
    assert point["gain"]["mean"] == pytest.approx(0.05, abs=0.01)
    assert point["regret"]["mean"] == pytest.approx(better[:, 7].mean())
    (point,) = compared(Policy("p", "s"), 2 * worlds - better[[0]], worlds, [8])["curve"]
    assert point["gain"]["low"] < point["gain"]["mean"] < point["gain"]["high"]


def test_the_interval_is_students() -> None:
    values = np.array([0.1, 0.4, 0.2, 0.6])
    found = mean(values)
    error = values.std(ddof=1) / 2
    low, high = stats.t.interval(0.95, 3, values.mean(), error)
    assert found == pytest.approx({"mean": values.mean(), "low": low, "high": high})


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.02, "beats random"),
        (-0.02, -0.01, "worse than random"),
        (-0.01, 0.02, "not told from random"),
        (0.0, 0.0, "not told from random"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low: float, high: float, said: str) -> None:
    assert verdict({"mean": (low + high) / 2, "low": low, "high": high}) == said


def test_the_command_simulates_and_reports(tmp_path: Path) -> None:
    command = [ARCHWRIGHT, "bench", "scaffolds", "--quick", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert list(tmp_path.iterdir()) == []
    assert (found["table"]["patterns"], found["table"]["seeds"]) == (729, 2)
    named = {(p["proposer"], p["scaffold"]): p for p in found["policies"]}
    assert named.keys() == {(p.proposer, p.scaffold) for p in POLICIES}
    for policy in named.values():
        assert [point["evaluations"] for point in policy["curve"]] == [4, 12]
        first, last = (point["regret"] for point in policy["curve"])
        assert 0 < last["mean"] < first["mean"] < 0.4
        assert last["low"] < last["mean"] < last["high"]
    # drafts of `evolution` are those of `random`, in the same worlds from the same seeds
    gains = [point["gain"] for point in named["evolution", "one-shot"]["curve"]]
    assert gains == [dict.fromkeys(("mean", "low", "high"), 0.0)] * 2
    assert found["figures"] == [policy_row(policy) for policy in found["policies"]]
