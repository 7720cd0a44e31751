"""The benchmark of whole candidates, run as a user does on a machine with nothing but torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evaluator.throughput import jobs, parser

ROOT = Path(__file__).parents[2]
SMALL = ("--profile", "smoke", "--preset", "mini", "--layers", "3", "--task", "compression")


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evaluator.throughput", *SMALL, *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_it_counts_candidates_tokens_and_failures() -> None:
    """Four heads cannot share three keys, so one of the codes always fails."""
    options = ("--candidates", "4", "--concurrent", "2", "--layers", "1", "--codes", "A,A{kv=3}")
    done = run(*options)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    row = json.loads(last)
    failed = [line for line in lines if "invalid" in line]
    assert (len(lines), row["failures"]) == (4, {"invalid": len(failed)})
    assert 0 < len(failed) < 4
    tokens = row["tokens_per_second"] * row["seconds"]
    assert tokens == pytest.approx((4 - len(failed)) * 3 * 16 * 8)
    assert row["candidates_per_hour"] == pytest.approx(4 * 3600 / row["seconds"])
    assert row["device"]
    assert row["eager"] == {}


def test_a_wrong_name_ends_at_once_and_names_the_nearest() -> None:
    done = run("--candidates", "1", "--codes", "A", "--preset", "minni")
    assert done.returncode != 0
    assert "mini" in done.stderr.splitlines()[-1]


def test_the_seed_fixes_the_patterns() -> None:
    def patterns(seed: int) -> list[str]:
        given = ["--candidates", "20", "--layers", "16", "--seed", str(seed)]
        return [job.pattern for job in jobs(parser().parse_args(given))]

    assert patterns(1) == patterns(1) != patterns(2)
    assert len(set(patterns(1))) == 20
