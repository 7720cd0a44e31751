"""Properties of the scorer: right by hand, exact however a split is cut, loud on bad input."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evaluator.metrics import Scorer, accuracy
from evaluator.tasks import IGNORE


def logits_for(predictions: list[list[int]], vocab: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predictions), vocab).float()


def test_micro_and_macro_by_hand() -> None:
    # class 0: 3 of 4 right; class 1: 0 of 1; class 2 never occurs as a label, only as a prediction
    scores = accuracy(
        logits_for([[0, 0, 0], [2, 2, 1]], 3), torch.tensor([[0, 0, 0], [0, 1, -100]])
    )
    assert scores["accuracy"] == 3 / 5
    assert scores["macro_accuracy"] == (3 / 4 + 0) / 2
    assert scores["count"] == 5


def test_loss_by_hand() -> None:
    logits = torch.tensor([[[0.0, math.log(3.0)], [5.0, 5.0]]])
    scores = accuracy(logits, torch.tensor([[1, 0]]))
    assert scores["loss"] == pytest.approx((math.log(4 / 3) + math.log(2)) / 2, rel=1e-7)


def test_loss_agrees_with_torch_in_float64() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(7, 13, 11, generator=generator)
    labels = torch.randint(11, (7, 13), generator=generator)
    labels[:, ::3] = IGNORE
    exact = torch.nn.functional.cross_entropy(logits.double().flatten(0, 1), labels.flatten())
    assert accuracy(logits, labels)["loss"] == pytest.approx(exact.item(), rel=1e-14)


def test_huge_logits_give_a_finite_loss() -> None:
    scores = accuracy(torch.tensor([[[1e30, -1e30]]]), torch.tensor([[0]]))
    assert scores["loss"] == 0.0
    assert scores["accuracy"] == 1.0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    vocab=st.integers(2, 9),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_batches_of_any_size_equal_the_whole(
    seed: int, cuts: list[int], vocab: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (10 * torch.randn(40, 5, vocab, generator=generator)).to(dtype)
    labels = torch.randint(vocab, (40, 5), generator=generator)
    labels[torch.rand(40, 5, generator=generator) < 0.5] = IGNORE
    labels[0, 0] = 0  # at least one is scored; batches without any, or without rows, may occur
    scorer = Scorer()
    edges = [0, *sorted(cuts), 40]
    for start, end in pairwise(edges):
        scorer.update(logits[start:end], labels[start:end])
    assert scorer.result() == accuracy(logits, labels)  # bit-equal, not close


def test_unscored_positions_do_not_count() -> None:
    labels = torch.tensor([[1, IGNORE, IGNORE]])
    right, noisy = logits_for([[1, 0, 0]], 2), logits_for([[1, 1, 1]], 2)
    assert accuracy(right, labels) == accuracy(noisy, labels)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_logits_are_refused_even_where_unscored(bad: float) -> None:
    logits = torch.zeros(2, 3, 4)
    logits[1, 2, 3] = bad
    labels = torch.tensor([[1, 1, 1], [1, 1, IGNORE]])
    with pytest.raises(ValueError, match="logits must be finite, not NaN or infinite at 1 places"):
        accuracy(logits, labels)


def test_a_refused_batch_leaves_the_scorer_as_it_was() -> None:
    scorer = Scorer()
    scorer.update(torch.eye(3).unsqueeze(0), torch.tensor([[0, 1, 2]]))
    before = scorer.result()
    with pytest.raises(ValueError, match="finite"):
        scorer.update(torch.full((1, 1, 3), float("nan")), torch.tensor([[0]]))
    assert scorer.result() == before


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.int64), r"logits must be \(B, L, V\)"),
        (torch.zeros(6, 4), torch.zeros(6, dtype=torch.int64), r"logits must be \(B, L, V\)"),
        (torch.zeros(1, 1, 4), torch.tensor([[4]]), r"in \[0, 4\), not 4"),
        (torch.zeros(1, 1, 4), torch.tensor([[-1]]), r"in \[0, 4\), not -1"),
        (torch.zeros(1, 1, 4), torch.tensor([[IGNORE]]), "needs a labelled position"),
    ],
)
def test_what_cannot_be_scored_is_refused(logits: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accuracy(logits, labels)


def test_one_scorer_takes_one_vocabulary() -> None:
    scorer = Scorer()
    scorer.update(torch.zeros(1, 1, 4), torch.tensor([[0]]))
    with pytest.raises(ValueError, match="all batches must have 4 classes, not 5"):
        scorer.update(torch.zeros(1, 1, 5), torch.tensor([[0]]))
