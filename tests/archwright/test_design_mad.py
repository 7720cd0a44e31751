"""`archwright run design-mad` as a user types it, at a tiny size: real processes, Ray, the sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest
from typed import command

TINY = (
    "evaluation.profile=smoke",
    "evaluation.tasks=[compression]",
    "references.patterns={attention: 2(A+M)}",
    "module.salt=1",
    "workers=1",
)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run in it."""
    folder = tmp_path_factory.mktemp("desk")
    changes = [part for change in TINY for part in ("--set", change)]
    summary = command(folder, "run", "design-mad", "--evaluations", "1", *changes)
    assert (summary["status"], summary["best"]["sealed"]) == ("done", True)
    return folder / summary["run"]


def test_written_modules_stand_beside_the_catalogues_own(desk: Path) -> None:
    rows = command(desk, "inspect", str(desk))["rows"]
    found = {row["agent"]: row for row in rows if row["sealed"]}
    assert found.keys() == {"references", "evolution", "random"}
    assert found["references"]["pattern"] == "2(A+M)"
    for agent in ("evolution", "random"):
        assert found[agent]["pattern"] == "2(X+M)"
        assert found[agent]["params"] > 0
        assert found[agent]["state_bytes"] is None


def test_the_source_and_the_certificate_of_the_best_can_be_read(desk: Path) -> None:
    rows = command(desk, "inspect", str(desk))["rows"]
    best = next(row["candidate"] for row in rows if row["agent"] == "evolution")
    [shown] = command(desk, "inspect", str(desk), "candidate", str(best))["rows"]
    assert "class Mixer(nn.Module):" in shown["source"]
    assert len(shown["certificate"]) == 11
    assert not [row for row in shown["certificate"] if row["verdict"] == "fail"]


def test_what_became_of_the_proposals_is_told(desk: Path) -> None:
    rows = command(desk, "inspect", str(desk), "submissions")["rows"]
    assert [(r["agent"], r["asked"], r["measured"]) for r in rows] == [
        ("evolution", 1, 1),
        ("random", 1, 1),
    ]


def test_the_run_is_replayed_whole_and_its_leader_to_the_bit(desk: Path) -> None:
    assert command(desk, "replay", str(desk))["match"]
    assert command(desk, "replay", str(desk), "--calls")["match"]


def test_a_dry_run_says_what_it_would_take(desk: Path) -> None:
    plan = command(desk, "run", "design-mad", "--dry-run")
    assert plan["recipe"]["module"]["pattern"] == "2(X+M)"
    assert plan["estimate"]["evaluations"] == 2 * 8 + 4 * 2 + 6 * 2
