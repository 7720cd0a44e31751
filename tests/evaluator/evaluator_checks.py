"""What the tests of several tasks share: chi-square checks and scores of plain Python readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from scipy import stats
from torch import nn

from evaluator.metrics import accuracy
from evaluator.tasks import IGNORE, Split


def assert_plausible(statistic: Any) -> None:
    assert statistic.pvalue > 1e-4, statistic


def assert_uniform(values: Iterable[Any], classes: int) -> None:
    counts = Counter(values)
    observed = [*counts.values(), *[0] * (classes - len(counts))]
    assert len(observed) == classes, f"more than {classes} classes: {counts}"
    assert_plausible(stats.chisquare(observed))


def scores_of(
    split: Split, vocab: int, reader: Callable[[list[int]], list[int]]
) -> dict[str, float]:
    """Scores of a program that reads each row's inputs and predicts at each position."""
    predictions = torch.tensor([reader(row) for row in split.inputs.tolist()])
    return accuracy(nn.functional.one_hot(predictions, vocab).float(), split.labels)


def answers(split: Split) -> list[list[int]]:
    return [[y for y in row if y != IGNORE] for row in split.labels.tolist()]
