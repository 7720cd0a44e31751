"""The laboratory's table: the committed one is whole and of today's profile; its maker can be interrupted."""

from __future__ import annotations

import csv
import subprocess
import sys
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest

from archwright import laboratory
from archwright.bench_scaffolds import described
from archwright.validity import read
from evaluator.evaluate import Job, evaluate
from search_space.space import Space


def test_the_committed_table_is_whole_and_of_todays_profile() -> None:
    rows = laboratory.rows()
    expected = sorted(product(laboratory.patterns(laboratory.SPACE), map(str, laboratory.SEEDS)))
    assert len(expected) == 2 * 3**6
    assert [(row["pattern"], row["seed"]) for row in rows] == expected
    said = {
        "profile": laboratory.label(),
        "task": laboratory.TASK,
        "share": str(laboratory.SHARE),
        "preset": laboratory.SPACE.preset,
        "dirty": "False",
    }
    for row in rows:
        assert {key: row[key] for key in said} == said
        assert 0 < float(row["validation"]) < 1
        assert 0 < float(row["test"]) < 1
        assert len(row["commit"]) == 40
    table = laboratory.load()
    assert len(table.scores) == len(table.places) == len(table.means) == 3**6
    one, two = (float(row["validation"]) for row in rows[:2])
    assert table.means[table.places[rows[0]["pattern"]]] == pytest.approx((one + two) / 2)


def test_the_committed_table_tells_architectures_apart() -> None:
    found = described(laboratory.load())
    assert found["rank_correlation_of_two_seeds"] > 0.7
    assert found["deviation_of_means"] > 2 * found["deviation_over_seeds"]


def test_the_committed_table_is_what_todays_evaluator_measures() -> None:
    """But for the last bits, which another processor or kernel may change."""
    (row,) = (r for r in laboratory.rows() if (r["pattern"], r["seed"]) == ("6M", "0"))
    again = laboratory.row_of("6M", 0)
    assert again["validation"] == pytest.approx(float(row["validation"]), abs=0.01)
    assert again["test"] == pytest.approx(float(row["test"]), abs=0.01)
    assert (again["tokens"], again["flops"]) == (int(row["tokens"]), float(row["flops"]))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laboratory of six patterns that takes milliseconds."""
    monkeypatch.setattr(laboratory, "SPACE", Space(("A", "M"), 1, 2, "mini"))
    monkeypatch.setattr(laboratory, "PROFILE", "smoke")
    monkeypatch.setattr(laboratory, "TASK", "compression")
    monkeypatch.setattr(laboratory, "SHARE", Fraction(1, 2))


@pytest.mark.usefixtures("small")
def test_a_measurement_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    laboratory.measure(table, (0, 1))
    lines = table.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 12
    table.write_text("".join(lines[:5]))
    laboratory.measure(table, (0, 1))
    again = table.read_text().splitlines(keepends=True)
    assert again[:5] == lines[:5]
    scores = [
        [(row["pattern"], row["seed"], row["validation"], row["test"]) for row in csv.DictReader(x)]
        for x in (lines, again)
    ]
    assert scores[0] == scores[1]
    assert [row[0] for row in scores[0][::2]] == ["A", "M", "2A", "A+M", "M+A", "2M"]


@pytest.mark.usefixtures("small")
def test_both_scores_are_of_one_training_up_to_the_share() -> None:
    row = laboratory.row_of("A+M", 3)
    job = Job("A+M", "mini", "smoke", 3, ("compression",), share=Fraction(1, 2))
    assert row["validation"] == evaluate(job).score()
    sealed = evaluate(Job("A+M", "mini", "smoke", 3, ("compression",), True, share=Fraction(1, 2)))
    assert row["test"] == sealed.score("test")
    assert row["tokens"] == sealed.spent.tokens


@pytest.mark.usefixtures("small")
def test_a_failure_is_no_score() -> None:
    with pytest.raises(ValueError, match=r"A\{kv=3\} at seed 0 failed: invalid"):
        laboratory.row_of("A{kv=3}", 0)


def test_equal_rows_are_packed_to_equal_bytes_in_whatever_order(tmp_path: Path) -> None:
    rows = [f"{pattern},{seed},0.{seed}5\n" for pattern in ("A", "M") for seed in (10, 9)]
    header = "pattern,seed,validation\n"
    for name, part in {"a": rows[:1], "b": rows[1:], "c": rows[::-1]}.items():
        (tmp_path / f"{name}.csv").write_text(header + "".join(part))
    one, two = tmp_path / "1.gz", tmp_path / "2.gz"
    laboratory.pack([tmp_path / "a.csv", tmp_path / "b.csv"], one)
    laboratory.pack([tmp_path / "c.csv"], two)
    assert one.read_bytes() == two.read_bytes()
    packed = [(row["pattern"], row["seed"]) for row in laboratory.rows(one)]
    assert packed == [("A", "9"), ("A", "10"), ("M", "9"), ("M", "10")]


def test_the_command_packs(tmp_path: Path) -> None:
    """Into a folder of its own: a copy of the module, which keeps its table beside it."""
    source = Path(laboratory.__file__).read_text()
    (tmp_path / "copied.py").write_text(source)
    table = tmp_path / "t.csv"
    table.write_text("pattern,seed,validation\nA,0,0.5\n")
    command = [sys.executable, "copied.py", "pack", str(table)]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert laboratory.rows(tmp_path / "laboratory.csv.gz") == read(table)
