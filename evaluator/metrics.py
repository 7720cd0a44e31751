"""Accuracy and loss over the labelled positions of a whole split, from logits.

It does not average over batches, choose a best epoch, or know a task: a position counts once,
however the split was cut into batches. It does not make bits per byte of the loss either (divide by
ln 2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evaluator.tasks.base import IGNORE


class NonFiniteLogits(ValueError):
    """A logit is NaN or infinite: the model diverged."""


class Scorer:
    """Gathers the batches of one split; `result` is bit-equal however the split was cut.

    Counts are integers, and the losses are kept one by one (8 bytes each) for an exactly rounded
    sum, since adding up batch sums would depend on the cut.
    """

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._hits: Tensor | None = None  # (V,) correct positions per label class
        self._totals: Tensor | None = None  # (V,) labelled positions per label class

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: logits (B, L, V) of any float type, labels (B, L) int64, or IGNORE.

        Raises ValueError for shapes that do not fit, another V than before or a label outside [0, V);
        NonFiniteLogits for a logit that is NaN or infinite, at an unscored position too.
        """
        self._check(logits, labels)
        scored = labels != IGNORE
        rows, targets = logits[scored].double(), labels[scored]  # (M, V), (M,)
        chosen = rows.gather(1, targets.unsqueeze(1)).squeeze(1)
        self._losses.append(rows.logsumexp(1) - chosen)
        right = targets[rows.argmax(1) == targets]
        hits, totals = (torch.bincount(ids, minlength=rows.shape[1]) for ids in (right, targets))
        self._hits = hits if self._hits is None else self._hits + hits
        self._totals = totals if self._totals is None else self._totals + totals

    def result(self) -> dict[str, float]:
        """The split's scores so far.

        accuracy: share of scored positions whose largest logit is the label's (micro).
        macro_accuracy: the mean of that share over the label classes that occur. loss: mean
        cross-entropy in nats. count: scored positions. Raises ValueError if there are none.
        """
        if self._hits is None or self._totals is None or not self._totals.any():
            raise ValueError("Scorer: a score needs a labelled position, not 0; update it first.")
        hits, totals = self._hits.tolist(), self._totals.tolist()
        per_class = [hit / total for hit, total in zip(hits, totals, strict=True) if total]
        count = sum(totals)
        return {
            "accuracy": sum(hits) / count,
            "macro_accuracy": math.fsum(per_class) / len(per_class),
            "loss": math.fsum(torch.cat(self._losses).tolist()) / count,
            "count": float(count),
        }

    def _check(self, logits: Tensor, labels: Tensor) -> None:
        if logits.dim() != 3 or logits.shape[:2] != labels.shape:
            shapes = f"{tuple(logits.shape)} and {tuple(labels.shape)}"
            raise ValueError(
                f"Scorer: logits must be (B, L, V) and labels (B, L), not {shapes}; reshape them."
            )
        classes = logits.shape[-1]
        if self._totals is not None and len(self._totals) != classes:
            rule = f"all batches must have {len(self._totals)} classes"
            raise ValueError(f"Scorer: {rule}, not {classes}; use a Scorer for each task.")
        outside = (labels != IGNORE) & ((labels < 0) | (labels >= classes))
        if outside.any():
            rule = f"labels must be {IGNORE} or in [0, {classes})"
            raise ValueError(
                f"Scorer: {rule}, not {labels[outside][0].item()}; check the vocabulary."
            )
        finite = logits.isfinite()
        if not finite.all():
            bad = logits.numel() - int(finite.sum())
            rule = "logits must be finite"
            raise NonFiniteLogits(
                f"Scorer: {rule}, not NaN or infinite at {bad} places; it diverged."
            )


def accuracy(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """`Scorer.result` of a whole split in one go: logits (N, L, V), labels (N, L)."""
    scorer = Scorer()
    scorer.update(logits, labels)
    return scorer.result()
