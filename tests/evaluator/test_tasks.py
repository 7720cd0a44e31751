"""What is promised of every generated task alike: labels, splits that do not overlap, the same bytes.

The tasks' own rules are attacked in their own files; corpora and public data in theirs.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from itertools import combinations
from typing import get_args

import pytest
import torch
from evaluator_checks import answers, assert_plausible, assert_uniform
from scipy import stats

from evaluator.profiles import profile
from evaluator.tasks import (
    LraImage,
    LraPathfinder,
    LraRetrieval,
    LraText,
    Mqar,
    Split,
    Task,
    mad_task,
)
from evaluator.tasks.base import SplitName

SPLITS: tuple[SplitName, ...] = get_args(SplitName)
GENERATED = (
    "mad-mini",
    "mad",
    "mqar-mini",
    "lra-listops-mini",
)  # profiles, at the sizes users meet
STANDINS = (LraText, LraRetrieval, LraImage, LraPathfinder)

# Per task the ids that a row's one label may be, all alike: the last one scored, but of a fuzzy value and
# of a compressed sequence the first.
LABELS: dict[str, tuple[Task, range, int]] = {
    "in-context-recall": (mad_task("in-context-recall", train_size=1280), range(8, 16), -1),
    "noisy-recall": (mad_task("noisy-recall", train_size=1280), range(8, 16), -1),
    "fuzzy-recall": (mad_task("fuzzy-recall", train_size=1280), range(7, 15), 0),
    "selective-copying": (mad_task("selective-copying", train_size=1280), range(14), -1),
    "compression": (mad_task("compression", train_size=1280), range(15), 0),
    "memorization": (mad_task("memorization", train_size=1280), range(127, 254), -1),
    "mqar": (Mqar(vocab=64, train_size=1280, eval_size=1280), range(32, 64), -1),
    **{
        kind().name: (kind(standin=True, train_size=900, eval_size=900), range(kind().classes), -1)
        for kind in STANDINS
    },
}


# Training of fuzzy recall scores every next id; its tuples are counted in test_mad.py.
CASES = [(name, which) for name in LABELS for which in SPLITS]
CASES.remove(("fuzzy-recall", "train"))


@pytest.mark.parametrize(("name", "which"), CASES)
def test_labels_are_uniform(name: str, which: SplitName) -> None:
    """One label a row, since those of a row depend on each other."""
    task, ids, place = LABELS[name]
    labels = [row[place] for row in answers(task.split(which, 11))]
    assert set(labels) <= set(ids)
    assert_uniform(labels, len(ids))


def distinct_keys(pairs: int, keys: int, count: int) -> float:
    """The chance that so many uniform pairs have ``count`` distinct keys."""
    onto = sum((-1) ** i * math.comb(count, i) * (count - i) ** pairs for i in range(count + 1))
    return math.comb(keys, count) * onto / keys**pairs


@pytest.mark.parametrize("which", ["validation", "test"])
@pytest.mark.parametrize("noise", [None, 0.2, 0.6])
def test_recall_has_as_many_labels_as_repeats_of_that_chance(
    noise: float | None, which: SplitName
) -> None:
    """Five slots before the question; one of them is never noise."""
    slots, keys, settings = 5, 4, {"length": 12, "eval_size": 4000}
    task = mad_task("in-context-recall", vocab=8, **settings)
    if noise is not None:
        task = mad_task("noisy-recall", vocab=12, noise_vocab=4, noise=noise, **settings)
    chance: Counter[int] = Counter()
    for quiet in range(slots):
        pairs = slots - quiet
        likely = stats.binom.pmf(quiet, slots - 1, noise or 0.0)
        for count in range(1, min(keys, pairs) + 1):
            chance[pairs - count + 1] += likely * distinct_keys(pairs, keys, count)
    assert math.isclose(sum(chance.values()), 1)
    found = Counter(len(row) for row in answers(task.split(which, 5)))
    assert set(found) <= {labels for labels, p in chance.items() if p > 0}
    counts = sorted(labels for labels, p in chance.items() if 4000 * p > 5)
    observed = [found[labels] for labels in counts]
    expected = [chance[labels] for labels in counts]
    scaled = [p * sum(observed) / sum(expected) for p in expected]
    assert_plausible(stats.chisquare(observed, scaled))


def row_set(split: Split) -> set[bytes]:
    return {bytes(row) for row in split.inputs.to(torch.int16).view(torch.uint8).tolist()}


@pytest.mark.parametrize("name", GENERATED)
def test_no_example_is_in_two_splits_of_a_profile(name: str) -> None:
    """At the sizes that are trained and scored, the sealed split included."""
    for label, task in profile(name).named():
        rows = {which: row_set(task.split(which, 2)) for which in SPLITS}
        for one, other in combinations(SPLITS, 2):
            assert not rows[one] & rows[other], f"{label}: {one} and {other}"


DIGESTS = """
import hashlib, json, torch
from evaluator.tasks import *
tasks = [mad_task(name, train_size=64, eval_size=64) for name in MAD_TASKS]
small = {"train_size": 64, "eval_size": 64}
tasks += [Mqar(**small), ListOps(length=60, shortest=10, **small), Text(**small)]
tasks += [kind(standin=True, **small) for kind in (LraText, LraRetrieval, LraImage, LraPathfinder)]
found = {}
for task in tasks:
    for which in ("train", "validation", "test"):
        for seed in (0, 1):
            split = task.split(which, seed)
            both = torch.stack([split.inputs.long(), split.labels.long()])
            raw = both.numpy().tobytes()
            found[f"{task.name} {which} {seed}"] = hashlib.sha256(raw).hexdigest()
print(json.dumps(found))
"""


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    """With other hashes of strings, and with another number of threads."""
    found = []
    for hashes, threads in (("1", "1"), ("2", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": hashes, "OMP_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", DIGESTS], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(json.loads(done.stdout))
    assert found[0] == found[1]
    assert len(set(found[0].values())) == len(found[0]) == 13 * 3 * 2, "no two of them alike"
