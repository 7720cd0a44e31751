"""Profiles: what they hold, how they are named and narrowed, and that each evaluates."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluator import profiles
from evaluator.evaluate import Job, evaluate, score
from evaluator.outcome import FailureKind, Result
from evaluator.profiles import PROFILES, Profile, profile
from evaluator.tasks import IGNORE, ListOps, Mqar, Split, Text, mad_task
from evaluator.tasks import text as text_module
from evaluator.train import Training, batches
from search_space import presets

REAL_DATA = {"lra-text", "lra-retrieval", "lra-image", "lra-pathfinder"}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset so small that a step takes milliseconds."""
    small = replace(presets.PRESETS["mini"], name="tiny", width=16)
    monkeypatch.setitem(presets.PRESETS, "tiny", small)


def shorten(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    monkeypatch.setitem(PROFILES, name, replace(PROFILES[name].shortened(2, 8), **changes))


def run(name: str, *tasks: str, **changes: Any) -> Result:
    return evaluate(Job("A+M", "tiny", name, 0, tasks, **changes))


def metrics_of(result: Result) -> dict[str, float]:
    assert result.failure is None, result.detail
    return {metric.name: metric.value for metric in result.metrics}


SMOKE = [
    *((name, ()) for name in sorted(PROFILES.keys() - REAL_DATA - {"mad-grid", "mqar"})),
    ("mad-grid", ("memorization:baseline", "compression:length=64")),
    ("mqar", ("mqar:baseline",)),
]


@pytest.mark.parametrize(("name", "tasks"), SMOKE)
def test_each_profile_evaluates(
    monkeypatch: pytest.MonkeyPatch, name: str, tasks: tuple[str, ...]
) -> None:
    shorten(monkeypatch, name)
    result = run(name, *tasks)
    metrics = metrics_of(result)
    labels = [label for label, _ in profile(name).named(tasks)]
    scores = [metrics[f"{label}/score"] for label in labels]
    assert result.score() == sum(scores) / len(scores)
    assert all(0 <= value <= 1 for value in scores)
    assert result.spent.steps == 2 * len(labels) * len(profile(name).trainings)
    assert result == replace(run(name, *tasks), spent=result.spent), "not reproducible"


@pytest.mark.parametrize("name", sorted(REAL_DATA))
def test_a_profile_without_its_data_says_where_to_put_them(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("ARCHWRIGHT_LRA", raising=False)
    with pytest.raises(ValueError, match=r"ARCHWRIGHT_LRA, not ''; put .* there, or try"):
        profile(name).check()
    with pytest.raises(ValueError, match="ARCHWRIGHT_LRA"):  # not the candidate's fault
        run(name)


def test_what_stands_beside_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lra-listops-mini", "lra-standins", "text-mini"):
        shorten(monkeypatch, name)
    rules = ("majority", "root", "root_digits")
    found = metrics_of(run("lra-listops-mini"))
    assert all(0 <= found[f"lra-listops/shortcut_{rule}"] <= 1 for rule in rules)
    result = run("lra-standins", "lra-text")
    assert metrics_of(result)["lra-text/standin"] == 1.0
    assert [fact for fact, _ in result.facts] == ["lra-text/standin"]
    result = run("text-mini")
    found = metrics_of(result)
    assert found["text/score"] == pytest.approx(max(0, 1 - found["text/bits_per_byte"] / 8))
    assert dict(result.facts)["text/corpus"] == "pydoc-topics"
    assert len(dict(result.facts)["text/sha256"]) == 64


def test_a_text_profile_takes_a_corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("to be or not to be " * 1000)
    shorten(monkeypatch, "text-mini")
    named = profile(f"text-mini:{tmp_path}/a.txt")
    assert named.name == f"text-mini:{tmp_path}/a.txt"
    assert dict(run(named.name).facts)["text/corpus"] == f"{tmp_path}/a.txt"
    with pytest.raises(
        ValueError, match="profile mad: only text profiles take a corpus, not 'kjv'"
    ):
        profile("mad:kjv")
    with pytest.raises(ValueError, match=r"must be pydoc-topics, kjv, a file or a folder, not 'x'"):
        profile("text:x").check()
    profile("text").check()


# Sweeps


def test_the_grid_is_66_settings_of_six_trainings() -> None:
    grid = profile("mad-grid")
    assert len(grid.tasks) == 66 and len(grid.trainings) == 6
    assert {(t.lr, t.weight_decay) for t in grid.trainings} == {
        (lr, decay) for lr in (1e-4, 5e-4, 1e-3) for decay in (0.0, 0.1)
    }
    labels = [label for label, _ in grid.named()]
    assert len(set(labels)) == 66
    assert labels[:2] == ["in-context-recall:baseline", "in-context-recall:vocab=32"]
    assert [label for label, _ in grid.named(["memorization"])] == labels[-6:]
    steps = {task.train_size: grid.trainings[0].of(task.train_size).steps for task in grid.tasks}
    assert steps == {12_800: 20_000, 6400: 10_000, 3200: 5000, 1600: 2500, 800: 1250, 256: 400}


def test_a_sweep_keeps_what_is_best_on_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    task = mad_task("memorization", vocab=16, length=8, train_size=64, eval_size=64)
    slow, fast = (Training(steps=30, batch=16, lr=lr) for lr in (1e-6, 1e-2))
    sweep = Profile("sweep", (task,), slow, "", sweep=(slow, fast))
    monkeypatch.setitem(PROFILES, "sweep", sweep)
    monkeypatch.setitem(PROFILES, "fast", replace(sweep, training=fast, sweep=()))
    for sealed in (False, True):
        swept, alone = run("sweep", sealed=sealed), run("fast", sealed=sealed)
        found = metrics_of(swept)
        assert found["memorization/lr"] == 1e-2
        assert found["memorization/accuracy"] == metrics_of(alone)["memorization/accuracy"]
        assert (swept.spent.steps, alone.spent.steps) == (60, 30)
        assert swept.spent.flops == 2 * alone.spent.flops
        assert "memorization/lr" not in metrics_of(alone)


def test_a_training_that_fails_is_out_and_only_all_of_them_fail_the_candidate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = mad_task("memorization", vocab=16, length=8, train_size=64, eval_size=64)
    good = Training(steps=5, batch=16, lr=1e-3)
    bad = replace(good, lr=1e30)
    worse = replace(good, lr=1e32)
    monkeypatch.setitem(PROFILES, "half", Profile("half", (task,), good, "", sweep=(bad, good)))
    monkeypatch.setitem(PROFILES, "none", Profile("none", (task,), good, "", sweep=(bad, worse)))
    assert metrics_of(run("half"))["memorization/lr"] == 1e-3
    assert run("none").failure in (FailureKind.NAN, FailureKind.DIVERGED)
    assert run("half", timeout=0.0).failure is FailureKind.TIMEOUT


# Names


def test_labels_are_names_until_a_name_recurs() -> None:
    assert [label for label, _ in profile("mad").named()] == [t.name for t in profile("mad").tasks]
    assert [label for label, _ in profile("mqar").named()] == [
        "mqar:baseline",
        "mqar:length=128,pairs=8",
        "mqar:length=256,pairs=16",
        "mqar:length=512,pairs=64",
    ]
    one = profile("mqar").named(["mqar:length=128,pairs=8"])
    assert one == [("mqar:length=128,pairs=8", Mqar(length=128, pairs=8))]
    assert profile("mqar").narrow(["mqar:baseline"]).tasks == (Mqar(),)
    assert profile("mad").narrow([]) == profile("mad")


def test_unknown_names_name_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown profile 'mqar-mni': the nearest are 'mqar-mini'"):
        profile("mqar-mni")
    with pytest.raises(ValueError, match="profile mqar has no task 'mqa': the nearest are 'mqar'"):
        profile("mqar").named(["mqa"])


# Settings


def test_impossible_profiles_are_one_sentence() -> None:
    task, training = ListOps(), Training(steps=1, batch=1, lr=1.0)
    with pytest.raises(ValueError, match="profile p: it must have a task, not none; name one"):
        Profile("p", (), training, "")
    with pytest.raises(ValueError, match="profile p: a task must occur once, not twice: ListOps"):
        Profile("p", (task, task), training, "")
    with pytest.raises(ValueError, match="p: a training of the sweep must occur once, not twice"):
        Profile("p", (task,), training, "", sweep=(training, training))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps or epochs, one of them, must be positive, not (0, 0);"),
        ({"epochs": 3}, "steps or epochs, one of them, must be positive, not (9, 3);"),
        ({"steps": -1}, "steps or epochs, one of them, must be positive, not (-1, 0);"),
        ({"batch": 0}, "batch must be at least 1, not 0;"),
        ({"lr": 0.0}, "lr must be positive, not 0.0;"),
        ({"weight_decay": -0.1}, "weight_decay must not be negative, not -0.1;"),
        ({"clip": 0.0}, "clip must be positive, not 0.0;"),
        ({"warmup": 9}, "warmup must be from 0 to below steps = 9, not 9;"),
    ],
)
def test_impossible_trainings_are_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^training: {re.escape(message)} change the profile"):
        Training(**{"steps": 9, "batch": 4, "lr": 1e-3, **changes})


def test_shortened_keeps_all_but_the_size() -> None:
    short = profile("mad-grid").shortened(3, 10)
    assert len(short.tasks) == 66 - 5 * 4 and len(short.sweep) == 6  # four train sizes
    assert {t.steps for t in short.trainings} == {3} and {t.epochs for t in short.trainings} == {0}
    assert {task.train_size for task in short.tasks} == {10}
    assert profile("text").shortened(3, 10).tasks == (Text(train_size=10, eval_size=10),)


def test_every_profile_says_what_its_scores_mean() -> None:
    assert all(len(each.note) > 20 for each in PROFILES.values())
    assert profiles.__doc__ is not None


# Narrow splits


def test_narrow_integers_train_and_score_like_wide_ones() -> None:
    narrow = ListOps(length=40, shortest=10, train_size=20).split("train", 0)
    assert narrow.inputs.dtype == torch.uint8 and narrow.labels.dtype == torch.int8
    wide = Split(narrow.inputs.long(), narrow.labels.long())
    assert (wide.labels == IGNORE).sum() == 20 * 39
    for one, other in zip(batches(narrow, 8, 3, 0), batches(wide, 8, 3, 0), strict=True):
        assert all(a.dtype == torch.int64 for a in one)
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(16, 8), torch.nn.Linear(8, 10))
    training = Training(steps=1, batch=1, lr=1.0)
    assert score(model, narrow, training) == score(model, wide, training)


def test_the_fingerprint_changes_with_the_sweep_and_with_the_corpus(tmp_path: Path) -> None:
    grid = profile("mad-grid").narrow(["compression:baseline"])
    assert replace(grid, sweep=grid.sweep[1:]).fingerprint != grid.fingerprint
    marks = set()
    for content in ("one ", "two "):
        (tmp_path / "a.txt").write_text(content * 10_000)
        text = Text(corpus=str(tmp_path / "a.txt"))
        text_module.read_corpus.cache_clear()
        marks.add(replace(profile("text"), tasks=(text,)).fingerprint)
    assert len(marks) == 2
