"""Classification of whole sequences: one label per row, at its last token, behind a pooling head.

What the tasks of the Long Range Arena share. It draws nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evaluator.tasks.base import IGNORE, Split, Task


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """A task with `classes` labels, of which each row has one, at its last token.

    Rows that are shorter than `length` are padded on the right, where a causal model's padding has no
    effect on what comes before it.
    """

    classes: int

    def __post_init__(self) -> None:
        super().__post_init__()
        ok = type(self.classes) is int and self.classes >= 2
        self._require(ok, "classes must be a whole number of at least 2", self.classes, "raise it")

    @property
    def outputs(self) -> int:
        return self.classes

    def head(self, d_model: int) -> nn.Module:
        """(B, L, D) -> (B, L, classes): a linear map of the mean over the positions up to each."""
        return MeanSoFar(d_model, self.outputs)


class MeanSoFar(nn.Module):
    """Classifies the mean of the hidden states up to each position.

    At a row's last token that is the mean over all of its tokens, and over no padding, with no need
    of a mask; and the logits stay causal, so that a prefix can be checked as in any other task.
    """

    def __init__(self, d_model: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, classes)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, classes). Sums in float32: a bfloat16 sum of 2,000 is noise."""
        count = torch.arange(1, hidden.shape[1] + 1, device=hidden.device).unsqueeze(1)
        logits: Tensor = self.linear((hidden.float().cumsum(1) / count).to(hidden.dtype))
        return logits


def labelled_last(tokens: Tensor, lengths: Tensor, labels: Tensor) -> Split:
    """Tokens (N, L), the length and the label of each row (N,) -> a split in narrow integers.

    Wide ones would take 3 GB for the 96,000 rows of ListOps, half of it for labels that say IGNORE.
    """
    places = torch.full(tokens.shape, IGNORE, dtype=torch.int8)
    places.scatter_(1, (lengths - 1).unsqueeze(1), labels.to(torch.int8).unsqueeze(1))
    return Split(tokens.to(torch.uint8), places)


def row_labels(split: Split) -> Tensor:
    """(N,) int64: the one label of each row."""
    return split.labels[split.labels != IGNORE].long()
