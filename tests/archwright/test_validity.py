"""The validity of a proxy: tables that can be interrupted, and correlations that planted ranks give."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from archwright import validity
from evaluator.profiles import profile
from search_space.references import REFERENCES

PROFILES = ("mad-mini", "mad-midi")


def table(path: Path, scores: dict[str, list[float]], cost: int) -> Path:
    """A table of planted scores by architecture and seed."""
    for name, values in scores.items():
        for seed, score in enumerate(values):
            row = {"profile": "p#0", "name": name, "pattern": name, "seed": seed, "score": score}
            validity.append(path, {**row, "tokens": cost, "flops": cost, "seconds": cost})
    return path


def test_equal_ranks_correlate_fully_and_shuffled_ones_do_not(tmp_path: Path) -> None:
    names = [f"n{i}" for i in range(25)]
    rising = table(tmp_path / "a.csv", {n: [i, i + 0.1] for i, n in enumerate(names)}, 1)
    curved = table(tmp_path / "b.csv", {n: [i**3] for i, n in enumerate(names)}, 9)
    found = validity.compare(rising, curved)
    assert found["correlation"]["score"] == pytest.approx({"value": 1, "low": 1, "high": 1})
    assert found["cost_ratio"] == {"tokens": 9, "flops": 9, "seconds": 9}
    assert found["seeds"] == [2, 1]
    assert found["between_seeds"] == [pytest.approx({"0-1": 1}), {}]
    shuffled = [(7 * i) % 25 for i in range(25)]  # in no order of ranks
    chance = table(tmp_path / "c.csv", {n: [x] for n, x in zip(names, shuffled, strict=True)}, 9)
    found = validity.compare(rising, chance)["correlation"]["score"]
    assert found["low"] < 0 < found["high"]
    assert found["low"] < found["value"] < found["high"]


def test_a_table_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: validity.ARCHITECTURES[name] for name in ("6M", "3(A+M)")}
    monkeypatch.setattr(validity, "ARCHITECTURES", few)
    path = tmp_path / "smoke.csv"
    validity.measure("smoke", [0], path)
    first = path.read_text().splitlines()
    assert len(first) == 3
    path.write_text("\n".join(first[:2]) + "\n")  # the last row was lost
    validity.measure("smoke", [0], path)
    again = path.read_text().splitlines()
    assert again[:2] == first[:2]
    scores = [
        dict(zip(first[0].split(","), t.split(","), strict=True)) for t in (first[2], again[2])
    ]
    assert scores[0]["score"] == scores[1]["score"]


def test_a_failure_is_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(validity.ARCHITECTURES, "odd", "A{kv=3}+M")
    with pytest.raises(ValueError, match="odd at profile smoke failed: invalid"):
        validity.row_of("smoke", "odd", 0)


@pytest.mark.parametrize("name", PROFILES)
def test_the_committed_table_is_of_todays_profile_and_holds_the_references(name: str) -> None:
    with (validity.FOLDER / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["profile"] for row in rows} == {f"{name}#{profile(name).fingerprint}"}
    patterns = {row["name"]: row["pattern"] for row in rows}
    assert {key: patterns[key] for key in REFERENCES} == {
        key: reference.pattern for key, reference in REFERENCES.items()
    }
    assert len(patterns) >= 24


def test_the_command_compares_the_committed_tables() -> None:
    command = [sys.executable, "-m", "archwright.validity", "compare", *PROFILES]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cost_ratio"]["flops"] >= 8
    score = found["correlation"]["score"]
    assert score["low"] < score["value"] < score["high"] <= 1
