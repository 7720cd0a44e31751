"""Properties of MQAR: a dictionary solves it, and its draws have the stated distributions."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations
from typing import Any

import pytest
import torch
from evaluator_checks import assert_plausible, assert_uniform, scores_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluator.tasks import IGNORE, Mqar, Split
from evaluator.tasks.base import SplitName
from evaluator.tasks.mqar import distinct

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


def small(**changes: Any) -> Mqar:
    return Mqar(**{"train_size": 400, "eval_size": 400, **changes})


def accuracy_of_a_dictionary(task: Mqar, split: Split) -> float:
    def read(row: list[int]) -> list[int]:
        context = row[: 2 * task.pairs]
        table = dict(zip(context[0::2], context[1::2], strict=True))
        return [table.get(token, 0) for token in row]

    return scores_of(split, task.vocab, read)["accuracy"]


@pytest.mark.parametrize("which", SPLITS)
@pytest.mark.parametrize(
    "changes",
    [
        {"vocab": 512, "length": 64, "pairs": 16},
        {"vocab": 20, "length": 32, "pairs": 8, "random_filler": True},
        {"vocab": 4, "length": 4, "pairs": 1},
    ],
)
def test_a_dictionary_solves_it(changes: dict[str, Any], which: SplitName) -> None:
    task = small(**changes)
    assert accuracy_of_a_dictionary(task, task.split(which, 3)) == 1.0


@settings(max_examples=30, deadline=None)
@given(
    pairs=st.integers(1, 12),
    spare_ids=st.integers(2, 9),
    spare_length=st.integers(0, 9),
    power=st.floats(0, 2),
    random_filler=st.booleans(),
    seed=st.integers(),
)
def test_any_setting_is_solvable(
    pairs: int, spare_ids: int, spare_length: int, power: float, random_filler: bool, seed: int
) -> None:
    task = Mqar(
        vocab=2 * pairs + spare_ids,
        length=4 * pairs + 2 * spare_length,
        pairs=pairs,
        power=power,
        random_filler=random_filler,
        eval_size=20,
    )
    assert accuracy_of_a_dictionary(task, task.split("test", seed)) == 1.0


def test_layout() -> None:
    task = small(vocab=64, length=48, pairs=8)
    split = task.split("train", 0)
    for ids in (split.inputs, split.labels):
        assert ids.shape == (400, 48) and ids.dtype == torch.int64 and ids.is_contiguous()
    for row, labels in zip(split.inputs.tolist(), split.labels.tolist(), strict=True):
        keys, values = row[0:16:2], row[1:16:2]
        assert len(set(keys)) == len(set(values)) == 8
        assert all(1 <= key < 32 for key in keys) and all(32 <= value < 64 for value in values)
        asked = [i for i in range(48) if labels[i] != IGNORE]
        assert all(i >= 16 and i % 2 == 0 for i in asked)
        assert sorted(row[i] for i in asked) == sorted(keys), "each key is asked once"
        assert all(row[i] == 0 for i in range(16, 48) if i not in asked)


def test_random_filler_is_uniform_over_all_ids_and_never_scored() -> None:
    split = small(vocab=16, length=64, pairs=4, random_filler=True).split("train", 1)
    rest, labels = split.inputs[:, 8:], split.labels[:, 8:]
    assert_uniform(rest[labels == IGNORE].tolist(), 16)
    assert ((labels != IGNORE).sum(1) == 4).all()


def test_keys_and_values_are_uniform_and_independent() -> None:
    inputs = small(vocab=10, length=16, pairs=2, train_size=8000).split("train", 2).inputs
    assert_uniform(map(tuple, inputs[:, 0:4:2].tolist()), 4 * 3)
    assert_uniform(map(tuple, inputs[:, 1:4:2].tolist()), 5 * 4)
    assert_uniform(map(tuple, inputs[:, 0:2].tolist()), 4 * 5)


@pytest.mark.parametrize("power", [0.01, 1.0])
def test_the_gaps_follow_the_power_law(power: float) -> None:
    """The first key's gap has the law itself; the second's is drawn from what is left."""
    task = small(vocab=64, length=20, pairs=2, power=power, train_size=20_000)
    split = task.split("train", 0)
    place = {key: (split.inputs[:, 4:] == split.inputs[:, [key]]).int().argmax(1) for key in (0, 2)}
    gaps = Counter(zip((place[0] // 2).tolist(), (place[2] // 2).tolist(), strict=True))
    rate = [(i + 1) ** (power - 1) for i in range(8)]
    pairs = list(permutations(range(8), 2))
    chance = {(i, j): rate[i] / sum(rate) * rate[j] / (sum(rate) - rate[i]) for i, j in pairs}
    assert math.isclose(sum(chance.values()), 1) and set(gaps) <= set(pairs)
    expected = [20_000 * chance[pair] for pair in pairs]
    assert_plausible(stats.chisquare([gaps[pair] for pair in pairs], expected))


def test_a_split_is_a_pure_function_and_splits_are_disjoint() -> None:
    task, seen = small(), set[tuple[int, ...]]()
    for seed in (0, 1):
        for which in SPLITS:
            once, again = (task.split(which, seed) for _ in range(2))
            assert torch.equal(once.inputs, again.inputs)
            assert torch.equal(once.labels, again.labels)
            rows = {tuple(row) for row in once.inputs.tolist()}
            assert len(rows) == 400 and not rows & seen
            seen |= rows
    assert Mqar(power=1) == Mqar(power=1.0)
    assert Mqar(power=1).identity() == Mqar(power=1.0).identity()


@pytest.mark.parametrize(("count", "ids"), [(1, 3), (3, 3), (2, 5), (4, 4)])
def test_distinct_gives_every_ordered_tuple_alike(count: int, ids: int) -> None:
    drawn = distinct(20_000, count, ids, torch.Generator().manual_seed(ids)).tolist()
    assert_uniform(map(tuple, drawn), math.perm(ids, count))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": 0}, "pairs must be a whole number of at least 1, not 0; raise it."),
        ({"pairs": 2.0}, "pairs must be a whole number of at least 1, not 2.0; raise it."),
        ({"pairs": 17}, "length must be even and at least 4 x pairs = 68, not 64;"),
        ({"length": 65}, "length must be even and at least 4 x pairs = 16, not 65;"),
        ({"vocab": 9}, "vocab must hold 4 keys above id 0: at least 10, not 9; raise it."),
        ({"power": -0.1}, "power must be a number of at least 0, not -0.1;"),
        ({"power": math.nan}, "power must be a number of at least 0, not nan;"),
        ({"power": "a"}, "power must be a number of at least 0, not 'a';"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Mqar(**changes)
    assert str(caught.value).startswith(f"mqar: {message}")
